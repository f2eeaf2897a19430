"""Lessons: what a training asks of the generator at a step, one style or several in turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from model_zoo.generators.conditional import IDENTITY_ROW
from trainer.identity import IdentityLoss
from trainer.losses import PerceptualLoss, load_loss_network_for

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from trainer.losses import LossTerms
    from trainer.recipe import TrainingRecipe


class Objective(Protocol):
    """What pictures are measured by."""

    def content_targets(self, photos: Tensor) -> dict[str, Tensor]:
        """What to keep of ``photos``, RGB in [0, 1], (N, 3, H, W)."""

    def __call__(self, stylized: Tensor, content_targets: Mapping[str, Tensor]) -> LossTerms:
        """Measure ``stylized``, as ``photos``; differentiable."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """An objective, and for generators with rows how much of each it is to be met with, (1, R)."""

    objective: Objective
    mixes: Tensor | None = None
    is_style: bool = True


def make_lessons(
    recipe: TrainingRecipe,
    pictures: Sequence[Path],
    loss_network: Path,
    *,
    row: int | None = None,
    device: torch.device,
    dtype: torch.dtype,
) -> tuple[Lesson, ...]:
    """The lessons of a recipe: its style, or each of its styles and the identity.

    Args:
        recipe: names the styles.
        pictures: files of the paintings, one a style.
        loss_network: file of VGG weights.
        row: the row of a conditional generator that a single style is to become.
        device: where to compute.
        dtype: of the network's convolutions.

    Raises:
        TrainerError: a file cannot be read, or the network lacks a layer.
    """
    network = load_loss_network_for(recipe.loss, loss_network, device=device, dtype=dtype)
    losses = [
        PerceptualLoss.of_picture(network, picture, style.size_px, recipe.loss)
        for style, picture in zip(recipe.styles, pictures, strict=True)
    ]
    rows = recipe.generator.arguments.get("rows")
    if rows is None:
        return (Lesson(losses[0]),)
    each = torch.eye(rows, device=device)
    if row is not None:
        return (Lesson(losses[0], each[row, None]),)
    identity = IdentityLoss(network, recipe.loss.content_layers)
    return (
        Lesson(identity, each[IDENTITY_ROW, None], is_style=False),
        *(Lesson(loss, each[number, None]) for number, loss in enumerate(losses, 1)),
    )
