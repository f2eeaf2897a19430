"""Numbers for the faults that users see in stylized pictures: grids, borders, clipping, dead areas.

Unless it says otherwise, a function takes one picture as users see it, clamped and rounded to 256
steps: RGB in [0, 1], (3, H, W) or (1, 3, H, W), with H, W >= 32. Isolated droplets, as instance
normalization leaves them, are not measured: no detector told them from the even areas of woodcuts
and of photographs.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from trainer.pictures import as_seen

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

MINIMUM_SIDE_PX = 32
STEP = 1 / 255

GRID_FREQUENCIES = (
    (0.0, 0.5),
    (0.5, 0.0),
    (0.5, 0.5),
    (0.0, 0.25),
    (0.25, 0.0),
    (0.25, 0.25),
    (0.25, -0.25),
    (0.25, 0.5),
    (0.5, 0.25),
)
"""Where grids of period 2 and 4 px show, (down, across) in cycles a px; the others mirror these."""
DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""In which the spectrum may have a ridge: that of edges and strokes of one direction."""
NEIGHBOUR_BINS = (2, 3)
"""A Hann window spreads a line over one bin to either side; two bins away none of it is left."""

FLAT_WINDOW_PX = 8
FLAT_DEVIATION = 1.5 * STEP

CONTRASTS = ((0.5, 0.0), (0.5, 0.5), (0.25, 0.375))
"""(gain, offset): dark, pale, and grey. Photographs in [0, 1] stay there, so nothing is clipped."""


def checkerboard_energy(picture: Tensor) -> float:
    """How far a grid of period 2 or 4 px stands out: ln of its power over what lies around it.

    0 where there is none; 1 means e times, 4.6 a hundred times the power. Of the spectrum of the
    luminance, averaged as logarithms over overlapping Hann windows of 64 px (smaller ones below
    128 px), each grid frequency is compared with its neighbours in four directions, and the
    strongest direction counts: strokes and edges make ridges, a grid makes a peak. The answer is
    that of the frequency that stands out most.

    Each window weighs the same, so a grid on a fifth of the picture gives a fifth. Powers below
    those of noise of one step count as noise. Up to half a window at the right and at the bottom is
    left out. Pictures of less than 64 px have too few windows: faint grids are missed there. Grids
    that differ in colour alone, or of other periods, are not seen; nor is it told whether the
    generator made the grid: fences and fabrics of exactly that period count, too.
    """
    return max(0.0, grid_prominences(_luminance(picture)).max().item())


def grid_prominences(luminance: Tensor) -> Tensor:
    """How far each of GRID_FREQUENCIES stands out, as ln of power; differentiable.

    Below 0 where it is weaker than the strongest ridge through it. (..., H, W) -> (..., 9).
    """
    spectrum = _mean_log_spectrum(luminance)
    size = torch.tensor(spectrum.shape[-2:], device=spectrum.device)
    peaks = (torch.tensor(GRID_FREQUENCIES, device=spectrum.device) * size).round().long()
    steps = torch.tensor([sign * n for n in NEIGHBOUR_BINS for sign in (1, -1)])
    offsets = torch.tensor(DIRECTIONS)[:, None] * steps[:, None]  # (directions, bins, 2)
    around = (peaks[:, None, None] + offsets.to(spectrum.device)) % size
    ridges = spectrum[..., around[..., 0], around[..., 1]].mean(-1)  # (..., 9, directions)
    rows, columns = (peaks % size).unbind(1)
    return spectrum[..., rows, columns] - ridges.amax(-1)


def border_ratio(picture: Tensor, ring_px: int = 16, *, reference: Tensor | None = None) -> float:
    """Mean gradient of the luminance in the outer ring over that in the next, twice as wide.

    About 1 without faults; above, the border is busier than what lies inside, below it is duller.
    The comparison is with the neighbouring ring and not with all of the inside, since photographs
    are emptier towards their borders: for 12 of them the logarithm varies by 0.15 instead of 0.41.

    Args:
        picture: as users see it.
        ring_px: width of the outer ring; at most a quarter of the shorter side is used.
        reference: the photograph, by whose own ratio the answer is divided where given. That helps
            where the picture keeps the photograph's textures. It is no default, because painted
            pictures do not: theirs then varies by 0.15 instead of 0.05 to 0.11.
    """
    if ring_px < 1:
        raise ValueError(f"ring_px {ring_px} must be at least 1")
    luminance = _luminance(picture)
    corner = luminance[:-1, :-1]
    down, across = luminance[1:, :-1] - corner, luminance[:-1, 1:] - corner
    gradient = torch.hypot(down, across)  # (H - 1, W - 1)
    rows, columns = (torch.minimum(n := torch.arange(side), n.flip(0)) for side in gradient.shape)
    from_border = torch.minimum(rows[:, None], columns)
    width = min(ring_px, min(luminance.shape) // 4)
    outside = gradient[from_border < width].mean()
    inside = gradient[(from_border >= width) & (from_border < 3 * width)].mean()
    # A tenth of a step keeps an even picture's ratio at 1.
    ratio = ((outside + 0.1 * STEP) / (inside + 0.1 * STEP)).item()
    return ratio if reference is None else ratio / border_ratio(reference, ring_px)


def clipped_share(unclamped: Tensor) -> float:
    """Share of pixels that clamping changes visibly, in any channel.

    A value counts from half a step outside [0, 1], where rounding would no longer hide it, and
    where it is not a number.

    Args:
        unclamped: the generator's linear output, (..., 3, H, W) of any size.
    """
    kept = (unclamped >= -STEP / 2) & (unclamped <= 1 + STEP / 2)
    return (~kept).any(-3).float().mean().item()


def flat_share(picture: Tensor) -> float:
    """Share of the area that lies in a dead even window: 0 for lively strokes, 1 for a grey card.

    Windows are of 8x8 px, at every place; one is dead where the luminance deviates by less than 1.5
    steps. What is too little depends on the style: a woodcut has even areas, Van Gogh has none.
    """
    luminance = _luminance(picture)[None]  # (1, H, W)
    mean = F.avg_pool2d(luminance, FLAT_WINDOW_PX, stride=1)
    variance = F.avg_pool2d(luminance.square(), FLAT_WINDOW_PX, stride=1) - mean.square()
    dead = (variance < FLAT_DEVIATION**2).float()
    around = FLAT_WINDOW_PX - 1
    covered = F.max_pool2d(F.pad(dead, (around,) * 4), FLAT_WINDOW_PX, stride=1)  # (1, H, W)
    return covered.mean().item()


def contrast_invariance(stylize: Callable[[Tensor], Tensor], photo: Tensor) -> float:
    """Largest change of any value of the picture when the photograph's contrast changes, in steps.

    Compares ``stylize(photo)`` with ``stylize(gain * photo + offset)`` for CONTRASTS, clamped and
    rounded. 0 and 1, a value on the other side of a rounding, are what instance normalization with
    reflection padding gives (Ulyanov et al. 2016, section 2); 255 is the most.

    Args:
        stylize: the generator, (1, 3, H, W) -> (1, 3, H, W), clamped or not; the same each time.
        photo: RGB in [0, 1], (1, 3, H, W), of any size that ``stylize`` takes.
    """
    painted = as_seen(stylize(photo))
    changes = [
        (as_seen(stylize(gain * photo + offset)) - painted).abs().max()
        for gain, offset in CONTRASTS
    ]
    return torch.stack(changes).max().item() / STEP


def _luminance(picture: Tensor) -> Tensor:
    """Rec. 601 luma, (H, W), on the CPU.

    Raises:
        ValueError: ``picture`` is not one picture in [0, 1] of at least MINIMUM_SIDE_PX.
    """
    picture = picture[0] if picture.dim() == 4 and len(picture) == 1 else picture
    if picture.dim() != 3 or len(picture) != 3 or min(picture.shape[1:]) < MINIMUM_SIDE_PX:
        raise ValueError(
            f"a picture of shape {tuple(picture.shape)} cannot be measured; it must be "
            f"(3, H, W) or (1, 3, H, W) with sides of at least {MINIMUM_SIDE_PX} px"
        )
    picture = picture.detach().float().cpu()
    if not ((picture >= 0) & (picture <= 1)).all():
        raise ValueError("the picture holds values outside [0, 1]; clamp it first")
    return luma(picture)


def luma(pictures: Tensor) -> Tensor:
    """Rec. 601 luma: (..., 3, H, W) -> (..., H, W)."""
    return torch.einsum("c,...chw->...hw", pictures.new_tensor([0.299, 0.587, 0.114]), pictures)


def _mean_log_spectrum(luminance: Tensor) -> Tensor:
    """Mean of ln(power) over windows, frequencies as fft2 orders them: (..., H, W) -> (..., h, w).

    Logarithms are averaged so that one strong edge does not outweigh the rest of the picture.
    """
    height, width = (_window_px(side) for side in luminance.shape[-2:])
    windows = luminance.unfold(-2, height, height // 2).unfold(-2, width, width // 2)
    windows = windows - windows.mean((-2, -1), keepdim=True)  # (..., rows, columns, h, w)
    down, across = (torch.hann_window(n, device=luminance.device) for n in (height, width))
    taper = down[:, None] * across
    power = torch.fft.fft2(windows * taper).abs().square() / taper.square().sum()
    spectrum: Tensor = (power + STEP**2).log().mean((-4, -3))
    return spectrum


def _window_px(side: int) -> int:
    """A power of two from 16 to 64, so that three windows or more lie over each side."""
    return min(64, 1 << int(math.log2(side / 2)))
