import pytest
import torch

from model_zoo.generators import GENERATORS
from trainer.droplets import DropletPenalty, excess_energy


def test_a_strong_spot_costs_and_an_even_map_does_not() -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 64, 32, 32)
    spotted = features.clone()
    spotted[:, :, 10:14, 10:16] *= 10

    assert excess_energy(features) == 0
    assert excess_energy(spotted) > 1


def test_the_cost_does_not_depend_on_the_scale() -> None:
    features = torch.rand(1, 8, 16, 16) ** 8

    assert excess_energy(features) > 0
    assert excess_energy(1000 * features) == pytest.approx(float(excess_energy(features)), rel=1e-4)


def test_penalty_sees_every_block_in_training_only_and_reaches_the_weights() -> None:
    generator = GENERATORS["johnson_half"]().train()
    penalty = DropletPenalty(generator)
    photo = torch.full((1, 3, 64, 64), 0.5)
    photo[..., 28:36, 28:36] = torch.rand(3, 8, 8)  # all that there is to see, in one spot

    generator(photo)
    found = penalty.take()
    assert found is not None
    found.backward()  # type: ignore[no-untyped-call]
    assert generator.encoder[0][0].weight.grad.abs().sum() > 0
    assert penalty.take() is None

    generator.eval()(photo)
    assert penalty.take() is None


def test_a_generator_without_residual_blocks_has_none() -> None:
    generator = GENERATORS["texture_net"]().train()
    penalty = DropletPenalty(generator)

    generator(torch.rand(1, 3, 64, 64))

    assert penalty.take() is None
