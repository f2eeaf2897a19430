"""Validation: the objective of a generator on photographs that it was not trained with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from trainer.pictures import as_seen, stylized_by, to_tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

    from model_zoo.layers import Generator
    from trainer.losses import PerceptualLoss


def mean_log_objective(
    generator: Generator, loss: PerceptualLoss, photos: Sequence[Image.Image]
) -> float:
    """Mean of ln(objective) over ``photos``, each painted, clamped and rounded as users get it.

    The gap to the L-BFGS optimum is this less a number that does not depend on the generator, so
    the generator with the least of it is the one with the least mean gap.
    """
    device = next(generator.parameters()).device
    logarithms = []
    for photo in photos:
        content = to_tensor(photo).to(device)
        with torch.inference_mode():
            painted = as_seen(stylized_by(generator, content))
            terms = loss(painted, loss.content_targets(content))
        logarithms.append(terms.objective.log().item())
    return sum(logarithms) / len(logarithms)
