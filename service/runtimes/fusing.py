"""Fusing: a generator whose maps are bf16, channels last, and normalized by kernels of ours.

Convolutions are cuDNN's, folded first. What lies between two of them, normalization, ReLU, the sum
of a residual block and the padding of the next, is one reading and one writing of the map.
"""

from __future__ import annotations

import math
from itertools import zip_longest
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from model_zoo.generators.conditional import ConditionalInstanceNorm
from model_zoo.layers import InstanceNorm, ResidualBlock
from service.runtimes.cuda_kernels import suits
from service.runtimes.folding import PolyphaseConvolution, UpsamplingConvolution, fold
from service.runtimes.half_convolutions import (
    OUTPUT_PHASES,
    HalfConvolution,
    HalfPolyphase,
    HalfUpsampling,
    PhasedConvolution,
    rewritten,
    sees_few_channels,
    sorted_back,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from model_zoo.layers import Generator
    from service.runtimes.cuda_kernels import Kernels, PaddingMode


def fuse(generator: Generator, kernels: Kernels) -> Generator:
    """Copy ``generator`` with its convolutions in bf16 and what is between them fused.

    A module that is not known here stays as it is, and gets bf16 maps.
    """
    fused = fold(generator, OUTPUT_PHASES)
    _fuse_children(fused, kernels)
    return fused


def _fuse_children(module: nn.Module, kernels: Kernels) -> None:
    for name, child in list(module.named_children()):
        setattr(module, name, _fused(child, kernels))


def _fused(module: nn.Module, kernels: Kernels) -> nn.Module:
    if isinstance(module, nn.Sequential):
        return nn.Sequential(*_fused_layers(module, kernels))
    if isinstance(module, ResidualBlock):
        return FusedResidualBlock(_fused_layers(module.branch, kernels))
    if isinstance(module, InstanceNorm):
        return FusedNorm(module, kernels)
    if isinstance(module, nn.Conv2d):
        return HalfConvolution(module, kernels)
    if isinstance(module, UpsamplingConvolution):
        return HalfUpsampling(module, kernels)
    if isinstance(module, PolyphaseConvolution):
        return HalfPolyphase(module, kernels)
    _fuse_children(module, kernels)
    return module


def _fused_layers(sequence: nn.Sequential, kernels: Kernels) -> list[nn.Module]:
    """The layers of ``sequence`` and of those in it, each with what it swallows behind it."""
    fused: list[nn.Module] = []
    layers = list(_flat(sequence))
    for layer, behind in zip_longest(layers, layers[1:]):
        before = fused[-1] if fused else None
        if isinstance(layer, nn.ReLU) and isinstance(before, FusedNorm):
            before.relu = True
        elif isinstance(layer, nn.Conv2d):
            convolution = HalfConvolution(layer, kernels)
            if isinstance(before, FusedNorm):
                before.padding, before.mode = convolution.padding, convolution.mode
                convolution.padding = 0
                fused.append(convolution)
            elif isinstance(behind, InstanceNorm) and sees_few_channels(layer):
                fused.append(PhasedConvolution(layer, convolution))
            else:
                fused.append(convolution)
        else:
            fused.append(_fused(layer, kernels))
    return fused


def _flat(sequence: nn.Sequential) -> Iterable[nn.Module]:
    for layer in sequence:
        if isinstance(layer, nn.Sequential):
            yield from _flat(layer)
        else:
            yield layer


class FusedNorm(nn.Module):
    """Instance normalization and what comes behind it: a sum, a ReLU, the next one's padding."""

    def __init__(self, norm: InstanceNorm, kernels: Kernels) -> None:
        super().__init__()
        self.norm = norm  # where tiles put their picture's statistics
        self.kernels = kernels
        self.relu = False
        self.padding = 0
        self.mode: PaddingMode = "reflect"

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        phases = math.isqrt(x.shape[1] // self.norm.num_features)
        if phases > 1 and (self.norm.statistics is not None or not suits(x)):
            x, phases = sorted_back(x, phases), 1
        affine = self._affine(x, phases) if suits(x) else None
        return rewritten(
            x if affine is not None else self.norm(x),
            self.kernels,
            affine,
            other=other,
            relu=self.relu,
            padding=self.padding,
            mode=self.mode,
            phases=phases,
        )

    def _affine(self, x: Tensor, phases: int) -> Tensor:
        """Gain and shift of each channel, fp32, (N, 2, C) or (1, 2, C)."""
        weight, bias = self._weight_and_bias(x)
        if self.norm.statistics is None:
            return self.kernels.instance_affine(x, weight, bias, self.norm.eps, phases=phases)
        mean, variance = self.norm.statistics(x.float())
        gain = weight.view(-1, x.shape[1]) * torch.rsqrt(variance + self.norm.eps)
        return torch.stack((gain, bias.view(-1, x.shape[1]) - mean * gain), 1)

    def _weight_and_bias(self, x: Tensor) -> tuple[Tensor, Tensor]:
        norm = self.norm
        if isinstance(norm, ConditionalInstanceNorm):
            row = norm.affine_of_row
            if row.gain is None or row.shift is None:
                raise RuntimeError("no row is set: call the generator, not its layers")
            return row.gain.float(), row.shift.float()
        if not norm.affine:
            ones = x.new_ones(norm.num_features, dtype=torch.float32)
            return ones, torch.zeros_like(ones)
        return norm.weight, norm.bias


class FusedResidualBlock(nn.Module):
    """A residual block whose last normalization adds what it started from."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        branch = x
        for layer in self.layers[:-1]:
            branch = layer(branch)
        last = self.layers[-1]
        answer: Tensor = last(branch, x) if isinstance(last, FusedNorm) else x + last(branch)
        return answer
