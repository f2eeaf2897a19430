"""Folded generators paint the same."""

from __future__ import annotations

import inspect
from typing import Any, get_args

import pytest
import torch
from torch import nn

from model_zoo.generators import GENERATORS
from model_zoo.layers import Padding, convolution, upsampling_block
from service.runtimes.folding import PolyphaseConvolution, UpsamplingConvolution, fold

PADDINGS = get_args(Padding)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("size", [(2, 3), (9, 16)])
@torch.inference_mode()
def test_upsampling_convolution_equals_upsampling_and_convolution(
    padding: Padding, size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    block = upsampling_block(5, 4, None, padding).eval()
    x = torch.randn(2, 5, *size)
    expected = block[:2](x)
    assert isinstance(block[1], nn.Conv2d)
    assert torch.allclose(UpsamplingConvolution(block[1])(x), expected, atol=1e-5)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize(("kernel", "phases"), [(3, 2), (7, 2), (9, 2), (9, 4), (5, 4)])
@torch.inference_mode()
def test_polyphase_convolution_equals_the_convolution(
    padding: Padding, kernel: int, phases: int
) -> None:
    torch.manual_seed(0)
    plain = convolution(5, 3, kernel, padding, bias=True).eval()
    x = torch.randn(2, 5, 12, 16)
    assert torch.allclose(PolyphaseConvolution(plain, phases)(x), plain(x), atol=1e-5)


def test_fold_sorts_into_no_more_phases_than_kernel_and_stride_allow() -> None:
    def phases_of(last_kernel: int, stride: int) -> int:
        generator = GENERATORS["johnson"](last_kernel=last_kernel)
        generator.stride = stride
        convolution = fold(generator, most_phases=4).to_rgb
        assert isinstance(convolution, PolyphaseConvolution)
        return convolution.phases

    assert phases_of(9, 4) == phases_of(9, 8) == 4
    assert phases_of(7, 4) == phases_of(9, 2) == 2


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        (name, arguments)
        for name, build in GENERATORS.items()
        for arguments in ({}, {"padding": "circular"}, {"normalization": "batch"})
        if arguments.keys() <= inspect.signature(build).parameters.keys()
    ],
)
@torch.inference_mode()
def test_fold_leaves_the_painting_and_the_generator_as_they_were(
    name: str, arguments: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    generator = GENERATORS[name](**arguments).eval()
    before = {key: value.clone() for key, value in generator.state_dict().items()}
    photos = torch.rand(1, 3, 64, 96)
    folded = fold(generator)
    assert torch.allclose(folded.paint(photos, [0]), generator.paint(photos, [0]), atol=1e-3)
    after = generator.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize(
    ("name", "upsamplings"), [("johnson", 2), ("johnson_half", 2), ("fast", 3)]
)
def test_fold_finds_what_it_is_for(name: str, upsamplings: int) -> None:
    modules = list(fold(GENERATORS[name]()).modules())
    assert sum(isinstance(module, UpsamplingConvolution) for module in modules) == upsamplings
    thin = sum(isinstance(module, PolyphaseConvolution) for module in modules)
    assert thin == (name != "fast")


def test_fold_leaves_other_convolutions_alone() -> None:
    block = nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(3, 3, 3, 1, 1))
    generator = GENERATORS["fast"]()
    generator.decoder.append(block)  # type: ignore[union-attr,operator]
    folded = fold(generator)
    assert isinstance(folded.decoder[-1][0], nn.Upsample)  # type: ignore[index]
