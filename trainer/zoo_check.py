"""check_style(card): figures of a style of a zoo, its gates, and whether its card is true."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainer.evaluate import evaluate
from trainer.gates import gates
from trainer.pictures import as_seen, stylized_by, to_tensor
from trainer.style_distance import style_distances

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from PIL import Image

    from model_zoo.cards import StyleCard
    from model_zoo.layers import Generator
    from trainer.gates import Gate
    from trainer.losses import PerceptualLoss
    from trainer.references import ReferenceCache

TOLERANCE = 0.02
"""Of a figure, or a hundredth of it: what another machine's floating point may change."""
TOLERANCES = {"photographs": 0.0, "size_px": 0.0, "evaluations": 0.0, "contrast_change": 1.0}
"""Of those that are counted; a change with contrast is a rounding that fell otherwise."""

COLUMNS = {
    "mean_gap": "gap",
    "worst_gap": "worst",
    "checkerboard": "grid",
    "border": "border",
    "clipped": "clipped",
    "flat": "flat",
    "contrast_change": "contrast",
    "style_distance": "style",
    "other_style_distance": "other",
    "times_nearer": "nearer",
}
"""Figures of the table and their short names."""


@dataclass(frozen=True, slots=True)
class CheckedStyle:
    """What was measured of one style.

    Attributes:
        card: as it is in the zoo.
        quality: the figures that it should have.
        reference: means of what L-BFGS makes of the same photographs.
        nearest_other: the painting that it is nearest to after its own; empty where there is none.
        gates: what the figures must reach.
    """

    card: StyleCard
    quality: dict[str, Any]
    reference: dict[str, float]
    nearest_other: str
    gates: list[Gate]

    def faults(self) -> list[str]:
        """Every gate that does not hold, and by how much."""
        return [gate.fault() for gate in self.gates if not gate.holds]

    def differences(self) -> list[str]:
        """Every figure of the card that is not what was measured."""
        return differences(self.card.quality, self.quality)

    def checks(self, *, with_card: bool) -> list[dict[str, Any]]:
        """For the JSON line; ``with_card`` adds whether the card is true."""
        found = [gate.as_check() for gate in self.gates]
        if with_card:
            differ = len(self.differences())
            bound = {"most": 0}
            found += [{"name": "card", "value": differ, "bound": bound, "holds": not differ}]
        return [check | {"name": f"{self.card.style_id}.{check['name']}"} for check in found]


def check_style(
    card: StyleCard,
    generator: Generator,
    painting: str,
    paintings: Mapping[str, PerceptualLoss],
    photos: Sequence[tuple[str, Image.Image]],
    references: ReferenceCache,
    on_photo: Callable[[str], None] = lambda name: None,  # noqa: ARG005
) -> CheckedStyle:
    """Measure a style and hold it to its gates.

    Args:
        card: of the style.
        generator: in evaluation mode.
        painting: the style's own among ``paintings``.
        paintings: the objective of each painting of the zoo, in fp32; styles of one share a name.
        photos: held out, named, at the size at which they shall be painted.
        references: what L-BFGS reaches; measured where it is not known yet, for minutes each.
        on_photo: told each name before its turn.
    """
    evaluation = evaluate(generator, paintings[painting], photos, references, on_photo)
    contents = [to_tensor(image) for _, image in photos]
    pictures = [as_seen(stylized_by(generator, content)) for content in contents]
    distances = style_distances(contents, pictures, painting, paintings)
    other = {"other_style_distance": round(distances.other, 3)} if distances.nearest_other else {}
    quality = {
        **evaluation.summary(),
        "size_px": max(max(image.size) for _, image in photos),
        "evaluations": references.evaluations,
        "style_distance": round(distances.own, 3),
        **other,
        "times_nearer": round(distances.times_nearer, 2),
    }
    reference = evaluation.reference_means()
    return CheckedStyle(
        card, quality, reference, distances.nearest_other, gates(quality, reference)
    )


def differences(said: Mapping[str, Any], measured: Mapping[str, Any]) -> list[str]:
    """What a card says that is not what was measured, beyond TOLERANCE; a line each."""
    if not said:
        return ["nothing; `--write` puts the figures into it"]
    found = [f"{name} is missing, measured {measured[name]}" for name in measured.keys() - said]
    for name, value in said.items():
        if name not in measured:
            found.append(f"{name} {value} is not measured")
            continue
        tolerance = TOLERANCES.get(name, max(TOLERANCE, abs(measured[name]) / 100))
        # Written so that what is not a number differs from everything.
        if not (isinstance(value, int | float) and abs(value - measured[name]) <= tolerance):
            found.append(f"{name} {value}, measured {measured[name]}")
    return sorted(found)


def as_table(styles: Sequence[CheckedStyle]) -> str:
    """One line a style: its figures, and the names of the gates that do not hold."""
    width = max(len("style"), *(len(style.card.style_id) for style in styles))
    lines = [f"{'style':{width}}" + "".join(f"{name:>9}" for name in COLUMNS.values()) + "  gates"]
    for style in styles:
        figures = (style.quality.get(name) for name in COLUMNS)
        cells = "".join(f"{'-' if f is None else format(f, '.3f'):>9}" for f in figures)
        fails = " ".join(COLUMNS[gate.name] for gate in style.gates if not gate.holds)
        verdict = f"FAILS: {fails}" if fails else "hold"
        lines.append(f"{style.card.style_id:{width}}{cells}  {verdict}")
    return "\n".join(lines)
