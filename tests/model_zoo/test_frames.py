"""Frames painted with statistics that they share with those before, for every generator."""

from __future__ import annotations

import pytest
import torch

from model_zoo.frames import as_next_frame
from model_zoo.generators import GENERATORS
from model_zoo.layers import Generator, InstanceNorm, contrast_of
from model_zoo.tiling import measure_whole, statistics_size


def make_generator(name: str) -> Generator:
    torch.manual_seed(0)
    return GENERATORS[name]().eval()


def paint_next(
    generator: Generator, photo: torch.Tensor, before: torch.Tensor, memory: float
) -> tuple[torch.Tensor, torch.Tensor]:
    with as_next_frame(generator, before, torch.tensor([memory])) as left:
        painted = generator.paint(photo, [0])
        return painted, left()


@pytest.fixture(scope="module")
def photos() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.rand(1, 3, 64, 96), torch.rand(1, 3, 64, 96) ** 3


@pytest.mark.parametrize("name", GENERATORS)
@torch.inference_mode()
def test_without_memory_a_frame_is_painted_as_a_photograph(
    name: str, photos: tuple[torch.Tensor, torch.Tensor]
) -> None:
    generator = make_generator(name)
    far_off = torch.full((statistics_size(generator),), 7.0)

    painted, left = paint_next(generator, photos[0], far_off, memory=0.0)

    assert (painted - generator.paint(photos[0], [0])).abs().max() < 1e-4
    if not generator.noise_channels:
        own = measure_whole(generator, photos[0], contrast_of(photos[0])).norms
        assert torch.allclose(left, own, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", GENERATORS)
@torch.inference_mode()
def test_with_memory_statistics_lie_between_those_of_both_frames(
    name: str, photos: tuple[torch.Tensor, torch.Tensor]
) -> None:
    generator = make_generator(name)
    first = next(m for m in generator.modules() if isinstance(m, InstanceNorm)).num_features
    nothing = torch.zeros(statistics_size(generator))
    _, before = paint_next(generator, photos[0], nothing, 0.0)
    _, own = paint_next(generator, photos[1], nothing, 0.0)

    painted, left = paint_next(generator, photos[1], before, 0.75)

    # Of the first layer to the digit; what comes behind it sees other maps already.
    expected = 0.75 * before[: 2 * first] + 0.25 * own[: 2 * first]
    assert torch.allclose(left[: 2 * first], expected, atol=1e-3, rtol=1e-3)
    assert (painted - generator.paint(photos[1], [0])).abs().max() > 1e-3


@torch.inference_mode()
def test_the_same_frame_again_and_again_is_painted_the_same_way(
    photos: tuple[torch.Tensor, torch.Tensor],
) -> None:
    generator = make_generator("fast")
    painted, left = paint_next(generator, photos[0], torch.zeros(statistics_size(generator)), 0.0)
    for _ in range(3):
        again, left = paint_next(generator, photos[0], left, 0.9)
        assert (again - painted).abs().max() < 1e-3


@torch.inference_mode()
def test_the_generator_is_left_as_it_was(photos: tuple[torch.Tensor, torch.Tensor]) -> None:
    generator = make_generator("fast")
    before = generator.paint(photos[0], None)
    paint_next(generator, photos[1], torch.zeros(statistics_size(generator)), 0.5)
    assert torch.equal(generator.paint(photos[0], None), before)
    with pytest.raises(RuntimeError):
        paint_next(generator, torch.rand(1, 5, 64, 64), torch.zeros(1), 0.5)
    assert torch.equal(generator.paint(photos[0], None), before)


@torch.inference_mode()
def test_batch_normalization_has_nothing_to_carry(
    photos: tuple[torch.Tensor, torch.Tensor],
) -> None:
    generator = GENERATORS["johnson_half"](normalization="batch").eval()
    painted, left = paint_next(generator, photos[0], torch.zeros(0), 0.5)
    assert left.shape == (0,)
    assert (painted - generator.paint(photos[0], None)).abs().max() < 1e-5
