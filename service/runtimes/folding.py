"""Folding: the same generator with fewer operations. Exact, but for rounding."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from model_zoo.layers import Generator

# Which of a 3x3 kernel's rows fall on the same pixel once nearest upsampling has repeated it, for
# each row of the 4x4 kernel of a convolution transposed with stride 2.
_REPEATED = ((0.0, 0.0, 1.0), (0.0, 1.0, 1.0), (1.0, 1.0, 0.0), (1.0, 0.0, 0.0))
# Reflected at its border, an upsampled map repeats its border pixel.
_PADDING_BEFORE = {
    "reflect": "replicate",
    "replicate": "replicate",
    "circular": "circular",
    "zeros": "constant",
}
# Below, the way into phases and back costs more than it saves.
_LEAST_KERNEL = 7


def fold(generator: Generator, most_phases: int = 2) -> Generator:
    """Copy ``generator`` with its convolutions rewritten where that is faster.

    ``most_phases`` is how long the side of a square may be whose pixels become channels.
    """
    folded = copy.deepcopy(generator)
    for module in list(folded.modules()):
        if isinstance(module, nn.Sequential):
            _fold_upsampling(module)
    for name, module in list(folded.named_children()):
        if isinstance(module, nn.Conv2d) and _is_thin(module):
            fits = phases_fit(most_phases, module, generator.stride)
            setattr(folded, name, PolyphaseConvolution(module, most_phases if fits else 2))
    return folded


def _fold_upsampling(block: nn.Sequential) -> None:
    for number, (before, after) in enumerate(pairwise(list(block))):
        if (
            isinstance(before, nn.Upsample)
            and (before.mode, before.scale_factor) == ("nearest", 2.0)
            and isinstance(after, nn.Conv2d)
            and (after.kernel_size, after.stride, after.padding) == ((3, 3), (1, 1), (1, 1))
            and (after.groups, after.dilation) == (1, (1, 1))
        ):
            block[number] = nn.Identity()
            block[number + 1] = UpsamplingConvolution(after)


def _is_thin(convolution: nn.Conv2d) -> bool:
    """Whether it gives so few channels that most of each vector would be idle."""
    kernel = convolution.kernel_size[0]
    return (
        convolution.kernel_size == (kernel, kernel)
        and kernel % 2 == 1
        and kernel >= _LEAST_KERNEL
        and convolution.out_channels <= 3  # RGB
        and (convolution.stride, convolution.padding) == ((1, 1), (kernel // 2, kernel // 2))
        and (convolution.groups, convolution.dilation) == (1, (1, 1))
    )


def phases_fit(phases: int, convolution: nn.Conv2d, stride: int) -> bool:
    """Whether squares of so many pixels a side cut each padded map of ``stride`` without rest."""
    return stride % phases == 0 and (convolution.kernel_size[0] - 1) % phases == 0


def weight_of_phases(weight: Tensor, phases: int) -> Tensor:
    """The same convolution between maps whose pixels are sorted by their phase, f = ``phases``.

    (O, I, K, K) -> (O, f, f, I, f, f, T, T): row and column in the square, after and before it.
    """
    outputs, inputs, kernel, _ = weight.shape
    taps = -(-(kernel + phases - 1) // phases)
    sorted_by_phase = weight.new_zeros(
        *(outputs, phases, phases, inputs, phases, phases), taps, taps
    )
    for row in range(phases):
        for column in range(phases):
            for y in range(kernel):
                for x in range(kernel):
                    at_y, at_x = divmod(row + y, phases), divmod(column + x, phases)
                    sorted_by_phase[:, row, column, :, at_y[1], at_x[1], at_y[0], at_x[0]] = weight[
                        :, :, y, x
                    ]
    return sorted_by_phase


class UpsamplingConvolution(nn.Module):
    """Nearest upsampling by 2 and a 3x3 convolution, as one transposed convolution.

    The 3x3 kernel sees each pixel up to four times after upsampling; with its weights added up it
    need be multiplied once: 4 products a pixel of the answer instead of 9, on a smaller map.
    (N, C, H, W) -> (N, C', 2 H, 2 W).
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        repeated = torch.tensor(_REPEATED, device=convolution.weight.device)
        weight = torch.einsum("ka,lb,oiab->iokl", repeated, repeated, convolution.weight.detach())
        self.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
        self.bias = convolution.bias
        self.padding_mode = _PADDING_BEFORE[convolution.padding_mode]

    def forward(self, x: Tensor) -> Tensor:
        if self.padding_mode == "constant":  # which is what a transposed convolution does itself
            return F.conv_transpose2d(x, self.weight, self.bias, stride=2, padding=1)
        padded = F.pad(x, (1, 1, 1, 1), mode=self.padding_mode)
        return F.conv_transpose2d(padded, self.weight, self.bias, stride=2, padding=3)


class PolyphaseConvolution(nn.Module):
    """A convolution to few channels, as one to many times as many on a smaller map.

    The pixels of each square of ``phases`` x ``phases`` become channels, before and after it, so
    that the three channels of RGB fill the processor's vectors. (N, C, H, W) -> (N, C', H, W), H
    and W multiples of ``phases``.
    """

    def __init__(self, convolution: nn.Conv2d, phases: int = 2) -> None:
        super().__init__()
        self.phases = phases
        weight = weight_of_phases(convolution.weight.detach(), phases)
        self.weight = nn.Parameter(weight.flatten(3, 5).flatten(0, 2), requires_grad=False)
        bias = convolution.bias
        self.bias = (
            None
            if bias is None
            else nn.Parameter(bias.detach().repeat_interleave(phases**2), requires_grad=False)
        )
        self.padding = (convolution.kernel_size[0] // 2,) * 4
        mode = convolution.padding_mode
        self.padding_mode = "constant" if mode == "zeros" else mode

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, self.padding, mode=self.padding_mode)
        sorted_by_phase = F.pixel_unshuffle(padded, self.phases)
        return F.pixel_shuffle(F.conv2d(sorted_by_phase, self.weight, self.bias), self.phases)
