from pathlib import Path

import pytest
import torch

from tests.trainer.conftest import vgg_tensors
from trainer.loss_network import CAFFE, LossNetwork
from trainer.losses import LossWeights, PerceptualLoss
from trainer.optimize import optimize
from trainer.references import ReferenceCache

WEIGHTS = LossWeights(
    content_layers=("relu2_2",),
    content_weight=1.0,
    style_layers=("relu1_2", "relu2_2"),
    style_weight=5.0,
    style_scales=(1.0,),
    total_variation_weight=0.0,
)


@pytest.fixture
def loss() -> PerceptualLoss:
    torch.manual_seed(1)
    return PerceptualLoss(LossNetwork(vgg_tensors(), CAFFE), torch.rand(1, 3, 64, 64) ** 3, WEIGHTS)


@pytest.fixture
def photo() -> torch.Tensor:
    torch.manual_seed(2)
    return torch.nn.functional.interpolate(torch.rand(1, 3, 8, 10), size=(40, 50))


def test_optimize_lowers_the_objective_and_gives_a_picture_in_256_steps(
    photo: torch.Tensor, loss: PerceptualLoss
) -> None:
    told: list[int] = []

    found = optimize(photo, loss, evaluations=30, on_evaluation=lambda n, _: told.append(n))

    assert found.objective < 0.5 * found.curve[0]
    assert found.picture.shape == photo.shape
    assert found.picture.min() >= 0
    assert found.picture.max() <= 1
    torch.testing.assert_close((found.picture * 255).round() / 255, found.picture)
    assert told == list(range(1, len(found.curve) + 1))
    assert 25 <= len(found.curve) <= 30 + 25  # a line search may finish what it began


def test_optimize_starts_where_it_is_told_and_leaves_that_alone(
    photo: torch.Tensor, loss: PerceptualLoss
) -> None:
    noise = torch.rand_like(photo)
    before = noise.clone()

    found = optimize(photo, loss, start=noise, evaluations=5)

    with torch.no_grad():
        expected = loss(noise, loss.content_targets(photo)).objective.item()
    assert found.curve[0] == pytest.approx(expected, rel=1e-4)
    assert torch.equal(noise, before)


def test_references_are_found_once_for_the_same_question(
    photo: torch.Tensor, loss: PerceptualLoss, tmp_path: Path
) -> None:

    folder = tmp_path / "references"
    cache = ReferenceCache(folder, evaluations=10)
    calls: list[int] = []

    first = cache.objective(photo, loss, lambda number, _: calls.append(number))
    assert len(calls) >= 10
    calls.clear()
    assert cache.objective(photo, loss, lambda number, _: calls.append(number)) == first
    assert calls == []

    cache.objective(1 - photo, loss)
    ReferenceCache(folder, evaluations=11).objective(photo, loss)
    assert len(list(folder.iterdir())) == 3
    for path in folder.iterdir():
        path.write_text("half a")
    assert cache.objective(photo, loss) == pytest.approx(first, rel=1e-4)
