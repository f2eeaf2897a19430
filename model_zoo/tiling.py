"""Painting a picture in tiles as if it were painted whole.

Instance normalization looks at the whole picture, so tiles that are normalized each by themselves
differ in colour. Here the statistics are taken once, from patches of full size spread evenly over
the picture and normalized together, and every tile is painted with them. A reduced copy of the
picture, from which Chen et al. 2022 (*URST*) take theirs, has other statistics: its strokes and
edges are of another size (docs/decisions/0008 has the comparison).
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch

from model_zoo.layers import Grain, InstanceNorm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from model_zoo.layers import Generator


class _AllMeasured(Exception):  # noqa: N818  # no error: the rest of the pass is not needed
    """Every normalization has given its statistics."""


@dataclass(frozen=True, slots=True, eq=False)
class WholeStatistics:
    """What a tile must know of its picture.

    ``contrast`` is the picture's standard deviation, (1,); ``norms`` holds means and variances of
    every instance normalization in the order of the generator's modules, (2 C1 + 2 C2 + ...,).
    """

    contrast: Tensor
    norms: Tensor


def measure_whole(generator: Generator, patches: Tensor, contrast: Tensor) -> WholeStatistics:
    """Take the statistics of a picture from ``patches`` of it.

    Args:
        generator: in evaluation mode.
        patches: RGB in [0, 1], (K, 3, H, W) with sides that suit the network.
        contrast: standard deviation of the picture, (1,).
    """
    measured: dict[int, Tensor] = {}

    def of_all_patches(x: Tensor, number: int) -> tuple[Tensor, Tensor]:
        variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
        measured[number] = torch.cat((mean, variance))
        if len(measured) == len(layers):
            raise _AllMeasured
        return mean, variance

    layers = instance_norms(generator)
    if not layers:
        return WholeStatistics(contrast, patches.new_zeros(0))
    origin = torch.zeros((), dtype=torch.int64, device=patches.device)
    try:
        for number, layer in enumerate(layers):
            layer.statistics = partial(of_all_patches, number=number)
        with _at(generator, origin, origin, contrast), suppress(_AllMeasured):
            generator.paint(patches, None)
    finally:
        for layer in layers:
            layer.statistics = None
    # In the order of modules, which need not be that in which they ran.
    in_order = [measured[number] for number in range(len(layers))]
    return WholeStatistics(contrast, torch.cat(in_order))


@contextmanager
def as_part_of(
    generator: Generator, whole: WholeStatistics, top: Tensor, left: Tensor
) -> Iterator[None]:
    """Within, ``generator`` paints a tile whose first pixel is at ``top`` and ``left``, px."""
    layers = instance_norms(generator)
    offset = 0
    try:
        for layer in layers:
            channels = layer.num_features
            mean = whole.norms[offset : offset + channels]
            variance = whole.norms[offset + channels : offset + 2 * channels]
            layer.statistics = lambda x, mean=mean, variance=variance: (mean, variance)  # noqa: ARG005
            offset += 2 * channels
        with _at(generator, top, left, whole.contrast):
            yield
    finally:
        for layer in layers:
            layer.statistics = None


def statistics_size(generator: Generator) -> int:
    """Length of ``WholeStatistics.norms``."""
    return sum(2 * layer.num_features for layer in instance_norms(generator))


@contextmanager
def _at(generator: Generator, top: Tensor, left: Tensor, contrast: Tensor) -> Iterator[None]:
    grains = [module for module in generator.modules() if isinstance(module, Grain)]
    try:
        for grain in grains:
            grain.place = (top, left, contrast)
        yield
    finally:
        for grain in grains:
            grain.place = None


def instance_norms(generator: Generator) -> list[InstanceNorm]:
    """Those of ``generator``, in the order of its modules."""
    return [module for module in generator.modules() if isinstance(module, InstanceNorm)]
