"""Convolutions in bf16, for a GPU: padded, and their pixels sorted, by kernels of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from service.runtimes.cuda_kernels import VECTOR, suits
from service.runtimes.folding import weight_of_phases

if TYPE_CHECKING:
    from service.runtimes.cuda_kernels import Kernels, PaddingMode
    from service.runtimes.folding import PolyphaseConvolution, UpsamplingConvolution

_KERNEL_MODES = ("reflect", "replicate")
# Squares of pixels that are channels for the first and the last convolution: three channels leave
# tensor cores idle, 48 do not.
_INPUT_PHASES = 2
OUTPUT_PHASES = 4
_LEAST_KERNEL = 7  # below, sorting costs more than it saves


def sees_few_channels(convolution: nn.Conv2d) -> bool:
    """Whether a large kernel gets so few channels that most of each product would be of zeros."""
    kernel = convolution.kernel_size[0]
    return (
        convolution.in_channels <= 4  # RGB, and perhaps a mask
        and convolution.kernel_size == (kernel, kernel)
        and kernel >= _LEAST_KERNEL
        and (kernel - 1) % _INPUT_PHASES == 0
        and (convolution.stride, convolution.padding) == ((1, 1), (kernel // 2, kernel // 2))
        and (convolution.groups, convolution.dilation) == (1, (1, 1))
    )


class HalfConvolution(nn.Module):
    """A convolution in bf16; its own padding, where that is not of zeros, by the kernels.

    Channels that it gets too few of are filled up with zeros, which costs less than cuDNN's way
    with three of them.
    """

    def __init__(self, convolution: nn.Conv2d, kernels: Kernels) -> None:
        super().__init__()
        self.more = -convolution.in_channels % VECTOR if convolution.groups == 1 else 0
        weight = F.pad(convolution.weight.detach(), (0, 0, 0, 0, 0, self.more))
        self.weight, self.bias = _half(weight), _half_or_none(convolution.bias)
        self.kernels = kernels
        self.stride = convolution.stride
        self.dilation = convolution.dilation
        self.groups = convolution.groups
        self.zeros = cast("tuple[int, int]", convolution.padding)
        self.padding, self.mode = 0, cast("PaddingMode", convolution.padding_mode)
        if self.mode in _KERNEL_MODES and self.zeros[0] == self.zeros[1]:
            self.padding, self.zeros = self.zeros[0], (0, 0)
        elif self.mode != "zeros":
            raise ValueError(f"padding {self.mode} of {self.zeros} px cannot be fused")

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(torch.bfloat16)
        if self.more:
            x = F.pad(x, (0, 0, 0, 0, 0, self.more))
            x = x.contiguous(memory_format=torch.channels_last)
        if self.padding:
            x = rewritten(x, self.kernels, padding=self.padding, mode=self.mode)
        return F.conv2d(
            x, self.weight, self.bias, self.stride, self.zeros, self.dilation, self.groups
        )


class PhasedConvolution(nn.Module):
    """A convolution of RGB that gives its map in phases, for a fused normalization to sort back.

    (N, 3, H, W) -> (N, f f C', H / f, W / f), or (N, C', H, W) where H or W have a rest.
    """

    def __init__(self, convolution: nn.Conv2d, plain: HalfConvolution) -> None:
        super().__init__()
        self.plain = plain
        weight = weight_of_phases(convolution.weight.detach(), _INPUT_PHASES)
        weight = weight.flatten(3, 5).permute(1, 2, 0, 3, 4, 5).flatten(0, 2)
        self.more = -weight.shape[1] % VECTOR
        self.weight = _half(F.pad(weight, (0, 0, 0, 0, 0, self.more)))
        bias = convolution.bias
        self.bias = None if bias is None else _half(bias.repeat(_INPUT_PHASES**2))
        self.padding = (convolution.kernel_size[0] // 2,) * 4
        mode = convolution.padding_mode
        self.mode = "constant" if mode == "zeros" else mode

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-2] % _INPUT_PHASES or x.shape[-1] % _INPUT_PHASES:
            plain: Tensor = self.plain(x)
            return plain
        x = F.pad(x.to(torch.bfloat16), self.padding, mode=self.mode)
        x = F.pad(F.pixel_unshuffle(x, _INPUT_PHASES), (0, 0, 0, 0, 0, self.more))
        return F.conv2d(x.contiguous(memory_format=torch.channels_last), self.weight, self.bias)


class HalfUpsampling(nn.Module):
    """:class:`UpsamplingConvolution` in bf16, padded by the kernels."""

    def __init__(self, convolution: UpsamplingConvolution, kernels: Kernels) -> None:
        super().__init__()
        self.weight, self.bias = _half(convolution.weight), _half_or_none(convolution.bias)
        self.kernels = kernels
        self.mode = _kernel_mode(convolution.padding_mode)

    def forward(self, x: Tensor) -> Tensor:
        # Zeros around it are what a transposed convolution has itself.
        padding = 0 if self.mode == "zeros" else 1
        x = rewritten(x.to(torch.bfloat16), self.kernels, padding=padding, mode=self.mode)
        return F.conv_transpose2d(x, self.weight, self.bias, stride=2, padding=1 + 2 * padding)


class HalfPolyphase(nn.Module):
    """:class:`PolyphaseConvolution` in bf16, its map padded and sorted by the kernels."""

    def __init__(self, convolution: PolyphaseConvolution, kernels: Kernels) -> None:
        super().__init__()
        self.phases = f = convolution.phases
        # From a channel's phases beside each other to a phase's channels, as the kernels sort.
        outputs, inputs, *taps = convolution.weight.shape
        weight = convolution.weight.view(outputs, inputs // f**2, f * f, *taps)
        weight = weight.transpose(1, 2).flatten(1, 2)
        self.weight, self.bias = _half(weight), _half_or_none(convolution.bias)
        self.kernels = kernels
        self.padding = convolution.padding[0]
        self.mode = _kernel_mode(convolution.padding_mode)

    def forward(self, x: Tensor) -> Tensor:
        x = rewritten(
            x.to(torch.bfloat16),
            self.kernels,
            padding=self.padding,
            mode=self.mode,
            answer_phases=self.phases,
        )
        return F.pixel_shuffle(F.conv2d(x, self.weight, self.bias), self.phases)


def _half_or_none(parameter: Tensor | None) -> nn.Parameter | None:
    return None if parameter is None else _half(parameter)


def _half(parameter: Tensor) -> nn.Parameter:
    """``parameter`` in bf16, channels last where it is a kernel."""
    half = parameter.detach().to(torch.bfloat16)
    if half.dim() == 4:
        half = half.contiguous(memory_format=torch.channels_last)
    return nn.Parameter(half, requires_grad=False)


def _kernel_mode(mode: str) -> PaddingMode:
    """What the kernels call a mode of ``F.pad``."""
    if mode == "constant":
        return "zeros"
    if mode not in _KERNEL_MODES:
        raise ValueError(f"padding {mode} cannot be fused")
    return cast("PaddingMode", mode)


def rewritten(
    x: Tensor,
    kernels: Kernels,
    affine: Tensor | None = None,
    *,
    other: Tensor | None = None,
    relu: bool = False,
    padding: int = 0,
    mode: PaddingMode = "reflect",
    phases: int = 1,
    answer_phases: int = 1,
) -> Tensor:
    """:meth:`Kernels.rewritten`, by torch where the kernels do not take ``x``."""
    changes = affine is not None or other is not None or relu or padding
    if not changes and phases == answer_phases:
        return x
    others_suit = other is None or suits(other)
    least_side = phases * min(x.shape[-2:])
    if suits(x) and others_suit and not (mode == "reflect" and padding >= least_side):
        return kernels.rewritten(
            x,
            affine,
            other=other,
            relu=relu,
            padding=padding,
            mode=mode,
            phases=phases,
            answer_phases=answer_phases,
        )
    x = sorted_back(x, phases)
    if affine is not None:
        gain, shift = affine[..., None, None].unbind(1)
        x = torch.addcmul(shift, x.float(), gain).to(x.dtype)
    if other is not None:
        x = x + other
    if relu:
        x = x.relu()
    if padding:
        x = F.pad(x, (padding,) * 4, mode="constant" if mode == "zeros" else mode)
    return _sorted(x, answer_phases)


def _sorted(x: Tensor, phases: int) -> Tensor:
    """(N, C, H, W) -> (N, f f C, H / f, W / f), in the kernels' order."""
    batch, channels, height, width = x.shape
    f = phases
    squares = x.reshape(batch, channels, height // f, f, width // f, f).permute(0, 3, 5, 1, 2, 4)
    return squares.flatten(1, 3).contiguous(memory_format=torch.channels_last)


def sorted_back(x: Tensor, phases: int) -> Tensor:
    """(N, f f C, H, W) in the kernels' order -> (N, C, f H, f W)."""
    batch, channels, height, width = x.shape
    f = phases
    squares = x.reshape(batch, f, f, channels // f**2, height, width).permute(0, 3, 4, 1, 5, 2)
    plain = squares.reshape(batch, channels // f**2, f * height, f * width)
    return plain.contiguous(memory_format=torch.channels_last)
