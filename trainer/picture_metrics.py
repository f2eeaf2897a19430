"""Picture metrics: the faults that people see in stylized pictures, as numbers.

Pictures are RGB as users get them, clamped and rounded to 256 steps: (1, 3, H, W) in [0, 1], with
H, W >= 32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from trainer.pictures import as_seen

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

_LUMINANCE = (0.299, 0.587, 0.114)
_WINDOW_PX = 32
# Half and a quarter of the sampling rate, down, across and both: what strides of 2 leave behind.
_GRID_FREQUENCIES = tuple(
    (y * _WINDOW_PX // 4, x * _WINDOW_PX // 4) for y in (0, 1, 2) for x in (0, 1, 2) if y or x
)
_FLAT_WINDOW_PX = 8
_FLAT_DEVIATION = 1.0 / 255
_CONTRASTS = ((0.5, 0.25), (0.25, 0.1), (0.7, 0.3))


def checkerboard_energy(picture: Tensor) -> float:
    """Spectral power at the frequencies of grids over that of their neighbours; 1 is no grid.

    Of each frequency with a period of 2 or 4 px the nine nearest bins are compared with those
    three to six bins away; the strongest counts. Strokes and textures spread over more bins than
    that, a grid does not. Photographs have 1 to 3, a grid of 4 of 255 gives 5 and more.
    """
    luminance = _luminance(picture)  # (1, 1, H, W)
    tiles = F.unfold(luminance, _WINDOW_PX, stride=_WINDOW_PX // 2)  # (1, 32*32, tiles)
    tiles = tiles[0].T.reshape(-1, _WINDOW_PX, _WINDOW_PX)
    tiles = tiles - tiles.mean((1, 2), keepdim=True)
    window = torch.hann_window(_WINDOW_PX, periodic=True)
    power = torch.fft.fft2(tiles * window[:, None] * window).abs().square().mean(0)
    return max(_peak_over_lines(power, y, x) for y, x in _GRID_FREQUENCIES)


def border_ratio(picture: Tensor, ring_px: int = 16) -> float:
    """Mean gradient in the outer ``ring_px`` over that inside; 1 where the border is like the rest.

    A photograph's own border may be livelier or flatter, by a factor of 2 either way.
    """
    luminance = _luminance(picture)[0, 0]
    down = luminance.diff(dim=0)[:, :-1].abs()
    across = luminance.diff(dim=1)[:-1].abs()
    gradient = down + across  # (H - 1, W - 1)
    ring = min(ring_px, (min(gradient.shape) - 1) // 4)
    inside = torch.zeros_like(gradient, dtype=torch.bool)
    inside[ring:-ring, ring:-ring] = True
    floor = 0.5 / 255  # so that two even areas are alike
    return float((gradient[~inside].mean() + floor) / (gradient[inside].mean() + floor))


def clipped_share(unclamped: Tensor) -> float:
    """Share of pixels with a channel more than half a step outside [0, 1], before clamping."""
    half_a_step = 0.5 / 255
    outside = (unclamped < -half_a_step) | (unclamped > 1 + half_a_step)
    return float(outside.any(1).float().mean())


def flat_share(picture: Tensor) -> float:
    """Share of windows of 8 x 8 px that are one colour, but for a step: 0 for a lively painting."""
    luminance = _luminance(picture)
    mean = F.avg_pool2d(luminance, _FLAT_WINDOW_PX)
    mean_square = F.avg_pool2d(luminance.square(), _FLAT_WINDOW_PX)
    deviation = (mean_square - mean.square()).clamp_min(0).sqrt()
    return float((deviation < _FLAT_DEVIATION).float().mean())


def contrast_invariance(stylize: Callable[[Tensor], Tensor], photo: Tensor) -> float:
    """Largest change of the painting, in steps of 255, when the photograph's contrast is changed.

    0 to 2 for a generator with instance normalization, tens for one without. 99.9 % of the values
    lie below; ``photo``, (1, 3, H, W) in [0, 1], is changed to ``gain * photo + offset`` without
    clipping.
    """
    painted = as_seen(stylize(photo))
    changes = [
        (as_seen(stylize(gain * photo + offset)) - painted).abs().flatten()
        for gain, offset in _CONTRASTS
    ]
    return 255 * max(float(change.quantile(0.999)) for change in map(_at_most, changes))


def _at_most(values: Tensor, limit: int = 1_000_000) -> Tensor:
    """Evenly spaced values: torch's quantile takes 16 million at most, and is slow with them."""
    return values[:: max(1, len(values) // limit)]


def _luminance(picture: Tensor) -> Tensor:
    weights = torch.tensor(_LUMINANCE, device=picture.device).view(1, 3, 1, 1)
    return (picture.float() * weights).sum(1, keepdim=True).cpu()


def _peak_over_lines(power: Tensor, y: int, x: int) -> float:
    """Largest of the 3 x 3 bins around (y, x) over what lies beside them, down or across.

    Edges of one direction fill a whole line of bins: the line with more power is the measure.
    """
    size = len(power)
    beside = [d for d in range(-6, 7) if abs(d) >= 3]
    down = [float(power[(y + d) % size, (x + e) % size]) for d in beside for e in (-1, 0, 1)]
    across = [float(power[(y + e) % size, (x + d) % size]) for d in beside for e in (-1, 0, 1)]
    peak = max(
        float(power[(y + dy) % size, (x + dx) % size]) for dy in (-1, 0, 1) for dx in (-1, 0, 1)
    )
    noise = 1e-7 * float(power.sum()) + 1e-9  # of rounding: an even picture has no grid
    # The upper quartile: towards low frequencies power rises, and that is no grid.
    level = max(sorted(line)[len(line) * 3 // 4] for line in (down, across))
    return (peak + noise) / (level + noise)
