from dataclasses import replace

import pytest
import torch

from tests.trainer.conftest import vgg_tensors
from tests.trainer.test_optimize import WEIGHTS
from trainer.loss_network import CAFFE, LossNetwork
from trainer.losses import PerceptualLoss
from trainer.style_distance import style_distance, style_distances

NETWORK = LossNetwork(vgg_tensors(), CAFFE)
SCALES = replace(WEIGHTS, style_scales=(1.0, 0.5))


def picture(seed: int, power: float = 1.0) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(1, 3, 72, 80, generator=rng) ** power


@pytest.mark.parametrize("weights", [WEIGHTS, SCALES])
def test_style_distance_is_the_style_loss_of_each_painting(weights: object) -> None:
    seen = picture(1)
    losses = [PerceptualLoss(NETWORK, picture(seed, seed), weights) for seed in (2, 3)]

    distances = style_distance(seen, losses)

    expected = [loss(seen, loss.content_targets(seen)).style.item() for loss in losses]
    assert distances == pytest.approx(expected, rel=1e-4)


def test_style_distance_counts_the_layers_and_scales_of_each_painting() -> None:
    seen, painting = picture(1), picture(2, 3)
    one = PerceptualLoss(NETWORK, painting, WEIGHTS)
    other = PerceptualLoss(NETWORK, painting, replace(SCALES, style_layers=("relu2_1",)))

    assert style_distance(seen, [one, other]) == pytest.approx(
        style_distance(seen, [one]) + style_distance(seen, [other])
    )
    assert style_distance(painting, [one, other]) == pytest.approx([0, 0], abs=1e-9)


def test_style_distances_know_the_own_painting_from_the_others() -> None:
    own, near, far = picture(1, 1), picture(2, 2), picture(3, 6)
    paintings = {
        name: PerceptualLoss(NETWORK, painting, WEIGHTS)
        for name, painting in (("far", far), ("own", own), ("near", near))
    }
    photos = [far, near]

    found = style_distances(photos, [own.flip(3), own.flip(2)], "own", paintings)

    assert found.nearest_other == "near"
    assert found.own < 0.1 * found.other
    assert found.times_nearer > 4
    unchanged = style_distances(photos, photos, "own", paintings)
    assert unchanged.times_nearer == pytest.approx(1)
    assert unchanged.own > unchanged.other


def test_one_photograph_that_stays_as_it_was_is_what_counts() -> None:
    own, photo = picture(1), picture(3, 6)
    paintings = {"own": PerceptualLoss(NETWORK, own, WEIGHTS)}

    found = style_distances([photo, photo], [own, photo], "own", paintings)

    assert found.times_nearer == pytest.approx(1)
    assert found.nearest_other == ""
