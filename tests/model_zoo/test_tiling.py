"""Tiles painted with the statistics of their picture, for every generator."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from model_zoo.generators import GENERATORS
from model_zoo.layers import Generator, InstanceNorm, contrast_of
from model_zoo.tiling import WholeStatistics, as_part_of, measure_whole, statistics_size


def make_generator(name: str) -> Generator:
    torch.manual_seed(0)
    return GENERATORS[name]().eval()


def at(position: int) -> torch.Tensor:
    return torch.tensor(position)


def exact_statistics(generator: Generator, photo: torch.Tensor) -> WholeStatistics:
    return measure_whole(generator, photo, contrast_of(photo))


@pytest.mark.parametrize("name", GENERATORS)
@torch.inference_mode()
def test_tile_equals_that_part_of_the_whole(name: str) -> None:
    """Given the picture's own statistics, for every pixel further than the reach from the cut."""
    generator = make_generator(name)
    reach, stride = generator.reach_px, generator.stride
    assert reach % stride == 0
    core = 2 * stride
    photo = torch.rand(1, 3, 4 * stride, 2 * reach + 3 * core)
    whole = generator.paint(photo, None)
    statistics = exact_statistics(generator, photo)
    left = core
    tile = photo[..., left : left + 2 * reach + core]
    with as_part_of(generator, statistics, at(0), at(left)):
        painted = generator.paint(tile, None)
    expected = whole[..., left + reach : left + reach + core]
    assert (painted[..., reach : reach + core] - expected).abs().max() < 2e-4
    # Less context than the reach is seen, or the reach would be a waste.
    if reach > 2 * stride:
        short = 2 * stride
        with as_part_of(generator, statistics, at(0), at(left)):
            cut = generator.paint(photo[..., left : left + 2 * short + core], None)
        expected = whole[..., left + short : left + short + core]
        assert (cut[..., short : short + core] - expected).abs().max() > 1e-3


@pytest.mark.parametrize("name", GENERATORS)
@torch.inference_mode()
def test_measure_whole_of_the_whole_picture_gives_its_own_statistics(name: str) -> None:
    generator = make_generator(name)
    side = max(64, generator.minimum_side)
    photo = torch.rand(1, 3, side, side)
    statistics = exact_statistics(generator, photo)
    assert statistics.norms.shape == (statistics_size(generator),)
    with as_part_of(generator, statistics, at(0), at(0)):
        painted = generator.paint(photo, None)
    assert (painted - generator.paint(photo, None)).abs().max() < 1e-4


@torch.inference_mode()
def test_measure_whole_pools_its_patches() -> None:
    generator = make_generator("fast")
    photo = torch.rand(1, 3, 64, 64)
    twice = measure_whole(generator, torch.cat((photo, photo)), contrast_of(photo))
    once = measure_whole(generator, photo, contrast_of(photo))
    assert torch.allclose(twice.norms, once.norms, atol=1e-4)
    other = measure_whole(generator, torch.cat((photo, photo / 4)), contrast_of(photo))
    assert not torch.allclose(other.norms, once.norms, atol=1e-2)


@torch.inference_mode()
def test_measure_whole_leaves_the_generator_as_it_was() -> None:
    generator = make_generator("fast")
    photo = torch.rand(1, 3, 64, 64)
    before = generator.paint(photo, None)
    measure_whole(generator, photo, torch.ones(1))
    assert torch.equal(generator.paint(photo, None), before)
    broken = partial(measure_whole, generator, torch.rand(1, 5, 64, 64), torch.ones(1))
    with pytest.raises(RuntimeError):
        broken()
    assert torch.equal(generator.paint(photo, None), before)


@torch.inference_mode()
def test_measure_whole_when_nothing_is_normalized_by_instance_then_is_empty() -> None:
    generator = GENERATORS["johnson_half"](normalization="batch").eval()
    assert not any(isinstance(module, InstanceNorm) for module in generator.modules())
    photo = torch.rand(1, 3, 64, 64)
    statistics = measure_whole(generator, photo, torch.ones(1))
    assert not len(statistics.norms)
    with as_part_of(generator, statistics, at(0), at(0)):
        assert torch.equal(generator.paint(photo, None), generator.paint(photo, None))
