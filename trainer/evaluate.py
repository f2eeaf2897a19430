"""evaluate(generator): numbers that say how good a style is, on photographs it has not seen."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from trainer.picture_metrics import (
    border_ratio,
    checkerboard_energy,
    clipped_share,
    contrast_invariance,
    flat_share,
)
from trainer.pictures import as_seen, stylized_by, to_tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from PIL import Image
    from torch import Tensor

    from model_zoo.layers import Generator
    from trainer.losses import PerceptualLoss
    from trainer.references import Reference, ReferenceCache


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoScore:
    """Figures of one photograph's painting, after clamping and rounding to 256 steps.

    ``gap`` is ln(objective) less the logarithm of what L-BFGS on the pixels reaches: 0 is as good
    as Gatys et al., 0.5 is 1.65 times their objective. The others are those of picture_metrics.
    """

    photograph: str
    objective: float
    reference: Reference
    gap: float
    content: dict[str, float]
    style: dict[str, float]
    checkerboard: float
    border: float
    clipped: float
    flat: float
    contrast_change: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The scores of all photographs."""

    scores: tuple[PhotoScore, ...]

    def summary(self) -> dict[str, Any]:
        """Means over photographs, and the worst where a mean would hide it; 3 digits each."""
        return {
            "photographs": len(self.scores),
            "mean_gap": _mean(s.gap for s in self.scores),
            "worst_gap": round(max(s.gap for s in self.scores), 3),
            "checkerboard": _mean(s.checkerboard for s in self.scores),
            "border": _mean(s.border for s in self.scores),
            "clipped": _mean(s.clipped for s in self.scores),
            "flat": _mean(s.flat for s in self.scores),
            "contrast_change": round(max(s.contrast_change for s in self.scores), 3),
        }

    def reference_means(self) -> dict[str, float]:
        """Means over photographs of what the pictures of L-BFGS have; 3 digits each."""
        return {
            name: _mean(getattr(s.reference, name) for s in self.scores)
            for name in ("checkerboard", "border", "flat")
        }

    def as_document(self) -> dict[str, Any]:
        """Everything, for a JSON file."""
        return {"summary": self.summary(), "photographs": [asdict(s) for s in self.scores]}

    def as_table(self) -> str:
        """One line a photograph, and the means."""
        columns = ("gap", "objective", "checkerboard", "border", "clipped", "flat")
        width = max(len("photograph"), *(len(s.photograph) for s in self.scores))
        head = f"{'photograph':{width}}" + "".join(f"{name:>14}" for name in columns)
        rows = [
            f"{s.photograph:{width}}" + "".join(f"{getattr(s, name):14.3f}" for name in columns)
            for s in self.scores
        ]
        means = (_mean(getattr(s, name) for s in self.scores) for name in columns)
        rows.append(f"{'mean':{width}}" + "".join(f"{mean:14.3f}" for mean in means))
        return "\n".join([head, *rows])


def evaluate(
    generator: Generator,
    loss: PerceptualLoss,
    photos: Sequence[tuple[str, Image.Image]],
    references: ReferenceCache,
    on_photo: Callable[[str], None] = lambda name: None,  # noqa: ARG005
) -> Evaluation:
    """Measure ``generator`` on named ``photos``.

    Args:
        generator: in evaluation mode.
        loss: in fp32.
        photos: at the size at which they shall be painted.
        references: what L-BFGS reaches; measured where it is not known yet, for minutes each.
        on_photo: told each name before its turn.
    """
    scores = []
    for name, image in photos:
        on_photo(name)
        scores.append(_score(generator, loss, name, to_tensor(image), references))
    return Evaluation(tuple(scores))


def _score(
    generator: Generator,
    loss: PerceptualLoss,
    name: str,
    photo: Tensor,
    references: ReferenceCache,
) -> PhotoScore:
    unclamped = stylized_by(generator, photo)
    painted = as_seen(unclamped)
    with torch.inference_mode():
        terms = loss(painted, loss.content_targets(photo))
    objective = terms.objective.item()
    reference = references.reference(photo, loss, name)
    return PhotoScore(
        photograph=name,
        objective=objective,
        reference=reference,
        gap=math.log(objective) - math.log(reference.objective),
        content={layer: value.item() for layer, value in terms.content_by_layer.items()},
        style={layer: value.item() for layer, value in terms.style_by_layer.items()},
        checkerboard=checkerboard_energy(painted),
        border=border_ratio(painted),
        clipped=clipped_share(unclamped),
        flat=flat_share(painted),
        contrast_change=contrast_invariance(lambda x: stylized_by(generator, x), photo),
    )


def _mean(values: Iterable[float]) -> float:
    of_all = list(values)
    return round(sum(of_all) / len(of_all), 3)
