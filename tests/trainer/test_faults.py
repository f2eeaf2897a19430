"""Penalties for what the perceptual losses do not see."""

from __future__ import annotations

import pytest
import torch

from model_zoo.generators import GENERATORS
from trainer.faults import grid_penalty, range_penalty
from trainer.learner import Learner
from trainer.lessons import Lesson
from trainer.losses import LossTerms
from trainer.picture_metrics import checkerboard_energy
from trainer.recipe import Optimization


def smooth(batch: int = 1, side: int = 128) -> torch.Tensor:
    coarse = torch.rand(batch, 3, side // 16, side // 16) * 0.6 + 0.2
    return torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic")


def with_grid(pictures: torch.Tensor, strength: float) -> torch.Tensor:
    side = pictures.shape[-1]
    wave = torch.tensor([1.0, 0.0, -1.0, 0.0]).repeat(side // 4)
    return pictures + strength * wave[:, None] * wave


def test_grid_penalty_grows_with_a_grid_as_the_measure_does() -> None:
    picture = smooth()
    penalties = [grid_penalty(with_grid(picture, s)).item() for s in (0.0, 0.02, 0.08)]
    assert penalties[0] < penalties[1] < penalties[2]
    measured = checkerboard_energy(with_grid(picture, 0.08).clamp(0, 1))
    assert penalties[2] >= measured - 0.1 > 1


def test_grid_penalty_is_that_of_each_picture() -> None:
    clean, striped = smooth(), with_grid(smooth(), 0.05)
    each = [grid_penalty(picture).item() for picture in (clean, striped)]
    both = grid_penalty(torch.cat((clean, striped))).item()
    assert both == pytest.approx(sum(each) / 2, rel=1e-4)


def test_descending_the_grid_penalty_removes_the_grid() -> None:
    picture = with_grid(smooth(), 0.05).requires_grad_()
    optimizer = torch.optim.Adam([picture], lr=2e-3)
    before = checkerboard_energy(picture.detach().clamp(0, 1))
    for _ in range(40):
        optimizer.zero_grad()
        grid_penalty(picture).backward()
        optimizer.step()
    assert checkerboard_energy(picture.detach().clamp(0, 1)) < before / 3


def test_range_penalty_is_the_mean_distance_from_the_range() -> None:
    picture = torch.tensor([0.1, 0.9, 0.5, 1.2, -0.4, 0.3]).view(1, 3, 1, 2).requires_grad_()
    penalty = range_penalty(picture)
    assert penalty.item() == pytest.approx(0.6 / 6)
    penalty.backward()
    assert picture.grad is not None
    assert picture.grad.flatten().sign().tolist() == [0, 0, 0, 1, -1, 0]


class NoObjective:
    """Asks for nothing, so that all that moves weights is what the recipe weighs beside it."""

    def content_targets(self, photos: torch.Tensor) -> dict[str, torch.Tensor]:  # noqa: ARG002
        return {}

    def __call__(self, stylized: torch.Tensor, _targets: object) -> LossTerms:
        nothing = 0 * stylized.mean((1, 2, 3))
        return LossTerms(nothing, nothing, nothing, nothing, {}, {})


@pytest.mark.parametrize("weighed", ["grid", "range", None])
def test_learner_follows_the_penalties_that_the_recipe_weighs(
    weighed: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("grid", "range"):  # an untrained picture may have neither fault
        monkeypatch.setattr(f"trainer.learner.{name}_penalty", torch.mean)
    weights = {f"{weighed}_weight": 1.0} if weighed else {}
    plan = Optimization(steps=1, learning_rate=1e-3, schedule="constant", **weights)
    lessons, cpu = [Lesson(NoObjective())], torch.device("cpu")
    learner = Learner(GENERATORS["fast"](), lessons, plan, device=cpu, dtype=torch.float32)
    result = learner.step(torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8), 0)
    assert result is not None
    assert (result.gradient_norm.item() > 0) == bool(weighed)
