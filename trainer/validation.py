"""Validation: the objective of a generator on photographs that it was not trained with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from model_zoo.generators.conditional import mixed
from trainer.pictures import as_seen, stylized_by, to_tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

    from model_zoo.layers import Generator
    from trainer.lessons import Lesson


def mean_log_objective(
    generator: Generator, lessons: Sequence[Lesson], photos: Sequence[Image.Image]
) -> float:
    """Mean of ln(objective) over the styles of ``lessons`` and ``photos``.

    Each is painted, clamped and rounded as users get it.

    The gap to the L-BFGS optimum is this less a number that does not depend on the generator, so
    the generator with the least of it is the one with the least mean gap.
    """
    device = next(generator.parameters()).device
    logarithms = []
    for photo in photos:
        content = to_tensor(photo).to(device)
        for lesson in lessons:
            if not lesson.is_style:
                continue
            measure = lesson.objective
            with torch.inference_mode(), mixed(generator, lesson.mixes):
                painted = as_seen(stylized_by(generator, content))
                terms = measure(painted, measure.content_targets(content))
            logarithms.append(terms.objective.log().item())
    return sum(logarithms) / len(logarithms)
