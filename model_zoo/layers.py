"""The layers that generators share: normalizations, convolution blocks, exact-size padding."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Normalization = Literal["instance", "batch"]
Padding = Literal["reflect", "replicate", "zero", "circular"]
NormalizationKind: TypeAlias = Normalization | type[nn.Module]
"""One by name, or a module that is built from its number of channels alone."""

INPUT_GAIN = 32.0
"""The networks see [0, 32]: from [0, 1] the variances of pale pictures come near to the eps of the
first normalizations, and the answer would no longer be independent of their contrast."""


class Generator(nn.Module):
    """Base of all generators: answers any size exactly, whatever the network's stride.

    Subclasses set ``stride`` and ``minimum_side`` and implement :meth:`paint`.
    """

    stride: int = 1
    """Heights and widths that :meth:`paint` gets are multiples of this many px."""
    minimum_side: int = 1
    """Heights and widths that :meth:`paint` gets are at least this many px."""
    reach_px: int
    """How far from a pixel of the answer those pixels lie that it depends on, but for statistics:
    convolutions look no further. Set by subclasses, a multiple of ``stride``."""
    noise_channels: int = 0
    """Channels of noise z drawn from a seed; 0 where the answer depends on the photograph alone."""

    def forward(self, photos: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        """Stylize a batch of photographs of one size.

        Args:
            photos: RGB in [0, 1], float, (N, 3, H, W) with any H, W >= 1.
            seeds: one seed a photograph, for generators with noise; others ignore it.

        Returns:
            RGB of the same shape, linear: the caller clamps to [0, 1].
        """
        height, width = photos.shape[-2:]
        painted = self.paint(pad_to_multiple(photos, self.stride, self.minimum_side), seeds)
        return painted[..., :height, :width]

    def paint(self, photos: Tensor, seeds: Sequence[int] | None) -> Tensor:
        """The network itself, on sizes that suit it: (N, 3, H, W) -> (N, 3, H, W)."""
        raise NotImplementedError


class InstanceNorm(nn.InstanceNorm2d):
    """y = (x - mean) / sqrt(var + eps) * gamma + beta over each picture's own H x W, in fp32.

    Affine and without running statistics, so training and inference compute the same
    (Ulyanov, Vedaldi, Lempitsky 2016, section 2). Half precision would lose the small variances
    of flat pictures, hence fp32 whatever the dtype of ``x``.

    ``statistics``, where set, gives mean and variance in place of the picture's own, each (C,):
    so a tile is painted as the part of its picture that it is (``model_zoo.tiling``).
    """

    def __init__(self, channels: int, *, affine: bool = True) -> None:
        super().__init__(channels, eps=1e-5, affine=affine, track_running_stats=False)
        self.statistics: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.statistics is None:
            return super().forward(x.float()).to(x.dtype)
        mean, variance = self.statistics(x.float())
        gain = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * gain
        return torch.addcmul(shift.view(-1, 1, 1), x.float(), gain.view(-1, 1, 1)).to(x.dtype)


def normalization_layer(kind: NormalizationKind, channels: int) -> nn.Module:
    """Instance or batch normalization over ``channels``, both with eps 1e-5 and affine, or another.

    Raises:
        ValueError: ``kind`` is the name of neither.
    """
    if isinstance(kind, type):
        return kind(channels)
    if kind == "instance":
        return InstanceNorm(channels)
    if kind == "batch":
        return nn.BatchNorm2d(channels, eps=1e-5)
    raise ValueError(f"normalization {kind!r} must be one of {', '.join(get_args(Normalization))}")


def convolution(
    in_channels: int,
    out_channels: int,
    kernel: int,
    padding: Padding = "reflect",
    *,
    stride: int = 1,
    bias: bool = False,
) -> nn.Conv2d:
    """A convolution over padded input: H, W are divided by ``stride``, no more.

    Zero padding tells the network where the border is; Ulyanov et al. 2016 saw the worst artefacts
    there, hence reflection as the default.

    Raises:
        ValueError: ``padding`` is none of the four.
    """
    if padding not in get_args(Padding):
        raise ValueError(f"padding {padding!r} must be one of {', '.join(get_args(Padding))}")
    return nn.Conv2d(
        in_channels,
        out_channels,
        kernel,
        stride=stride,
        padding=kernel // 2,
        padding_mode="zeros" if padding == "zero" else padding,
        bias=bias,
    )


def conv_block(
    in_channels: int,
    out_channels: int,
    kernel: int,
    normalization: NormalizationKind | None,
    padding: Padding = "reflect",
    *,
    stride: int = 1,
) -> nn.Sequential:
    """Convolution, normalization, ReLU; no bias, since the normalization would remove it.

    Without a normalization (None) the convolution has one, and the ReLU leaks: nothing would bring
    a channel back that is negative everywhere, and even patches of the picture died that way.
    """
    if normalization is None:
        return nn.Sequential(
            convolution(in_channels, out_channels, kernel, padding, stride=stride, bias=True),
            nn.LeakyReLU(0.2, inplace=True),
        )
    return nn.Sequential(
        convolution(in_channels, out_channels, kernel, padding, stride=stride),
        normalization_layer(normalization, out_channels),
        nn.ReLU(inplace=True),
    )


def upsampling_block(
    in_channels: int,
    out_channels: int,
    normalization: NormalizationKind | None,
    padding: Padding = "reflect",
) -> nn.Sequential:
    """Nearest upsampling by 2, then a 3x3 block: free of the grids of a transposed convolution."""
    return nn.Sequential(
        nn.Upsample(scale_factor=2, mode="nearest"),
        *conv_block(in_channels, out_channels, 3, normalization, padding),
    )


class ResidualBlock(nn.Module):
    """x + norm(conv(relu(norm(conv(x))))), without a ReLU after the sum.

    (N, C, H, W) -> (N, C, H, W). Source: Gross and Wilber 2016, as Johnson et al. 2016 use it.
    """

    def __init__(
        self, channels: int, normalization: NormalizationKind, padding: Padding = "reflect"
    ) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *conv_block(channels, channels, 3, normalization, padding),
            convolution(channels, channels, 3, padding),
            normalization_layer(normalization, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        branch: Tensor = self.branch(x)
        return x + branch


class Grain(nn.Module):
    """Adds to each photograph the same fixed noise, scaled by that photograph's contrast.

    Scaled so, an answer under instance normalization still does not depend on the contrast, and
    fixed, it is the same each time. Two tiles of unlike periods lie over each other, so that large
    even areas show no repetition. (N, C, H, W) -> (N, C, H, W).

    ``place``, where set, says that all photographs are tiles of one: row and column of their first
    pixel in it, and its standard deviation, each a tensor of one number.
    """

    _PERIODS_PX = (251, 311)

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength
        self.place: tuple[Tensor, Tensor, Tensor] | None = None
        rng = torch.Generator().manual_seed(0)
        for number, period in enumerate(self._PERIODS_PX):
            tile = torch.randn(period, period, generator=rng) / math.sqrt(len(self._PERIODS_PX))
            self.register_buffer(f"tile_{number}", tile, persistent=False)

    def forward(self, photos: Tensor) -> Tensor:
        height, width = photos.shape[-2:]
        rows, columns = (torch.arange(n, device=photos.device) for n in (height, width))
        if self.place is None:
            contrast = contrast_of(photos)
        else:
            top, left, contrast = self.place
            rows, columns = rows + top, columns + left
        noise = photos.new_zeros(height, width)
        for tile in self.buffers():
            noise = noise + tile[rows[:, None] % len(tile), columns % len(tile)]
        return photos + self.strength * contrast.view(-1, 1, 1, 1) * noise


def contrast_of(photos: Tensor) -> Tensor:
    """Standard deviation of each photograph, never quite 0: (N, C, H, W) -> (N,)."""
    return photos.flatten(1).std(1).clamp_min(1e-3)  # where a whole photograph is one colour


def pad_to_multiple(x: Tensor, multiple: int, minimum: int) -> Tensor:
    """Reflect-pad right and bottom so that H and W are multiples of ``multiple``, >= ``minimum``.

    Unlike ``F.pad`` it reflects again and again where the padding is wider than the picture,
    so that 1 px works, too. (N, C, H, W) -> (N, C, H', W').
    """
    height, width = x.shape[-2:]
    padded_height = _round_up(height, multiple, minimum)
    padded_width = _round_up(width, multiple, minimum)
    # An exported graph holds one way for all sizes: there, H and W are symbols, and the general
    # way below, which asks nothing of them, is the only one.
    if not torch.compiler.is_exporting():
        if (padded_height, padded_width) == (height, width):
            return x
        bottom, right = padded_height - height, padded_width - width
        if bottom < height and right < width:
            return F.pad(x, (0, right, 0, bottom), mode="reflect")
    rows = _reflected_indices(height, padded_height, x.device)
    columns = _reflected_indices(width, padded_width, x.device)
    return x.index_select(-2, rows).index_select(-1, columns)


def _round_up(size: int, multiple: int, minimum: int) -> int:
    # Unlike `max`, this takes a symbol without asking how large it is.
    at_least: int = torch.sym_max(size, minimum)  # type: ignore[no-untyped-call]
    # Every term is positive, since ONNX divides integers towards 0 and Python downwards.
    return (at_least + multiple - 1) // multiple * multiple


def _reflected_indices(size: int, padded_size: int, device: torch.device) -> Tensor:
    positions = torch.arange(padded_size, device=device)
    # A tensor, since ONNX's remainder takes no symbol; 1 px repeats at every position.
    period = positions.new_full((), 2 * (size - 1)).clamp_min(1)
    positions = positions % period
    return torch.minimum(positions, period - positions)
