"""docs/styles.md: every style of a zoo with its card, written from the manifest."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from trainer.recipe import RECIPES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from typing import Any

    from model_zoo.cards import Manifest, StyleCard

HEAD = """\
# Styles

<!-- Written by `make zoo-docs` from the manifest; changes by hand are lost. -->

![A photograph, and what each style makes of it](images/gallery.jpg)

The photographs here are those that scikit-image ships, CC0 or in the public domain (the astronaut
is Eileen Collins, by NASA), and four drawn trials. What the figures mean is in
[training.md](training.md#how-good-is-it), what they must reach in
[decision 10](decisions/0010-gates-of-the-zoo.md).

"""

SAMPLES = """\

All styles below were shown the same pictures, at 256 px:

![The sample photographs](styles/photographs.jpg)
"""

FIGURES = {
    "mean_gap": "gap, mean",
    "worst_gap": "gap, worst",
    "checkerboard": "checkerboard",
    "border": "border",
    "clipped": "clipped",
    "flat": "flat",
    "contrast_change": "contrast change",
    "style_distance": "style distance",
    "other_style_distance": "from the nearest other",
    "times_nearer": "times nearer than the photograph",
}
"""Of a card's quality, in this order, and their names on the page."""


def styles_page(manifest: Manifest, docs: Path) -> str:
    """The page, for ``docs / "styles.md"``; sheets are in ``docs / "styles"``."""
    columns = ("", "style", "title", "artist", "year", "generator", "mean gap")
    rows = [_row(card, _link(manifest.preview_path(card), docs)) for card in manifest]
    table = [_cells(columns), "|" + "---|" * len(columns), *map(_cells, rows)]
    sections = [_section(card, docs) for card in manifest]
    return HEAD + "\n".join(table) + "\n" + SAMPLES + "".join(sections)


def _row(card: StyleCard, preview: str) -> tuple[str, ...]:
    return (
        f'<img src="{preview}" width="128" alt="">',
        f"[{card.style_id}](#{card.style_id})",
        card.title,
        card.artist,
        card.year,
        f"`{card.generator}`",
        str(card.quality.get("mean_gap", "")),
    )


def _section(card: StyleCard, docs: Path) -> str:
    facts = [
        f"Licences: picture {card.picture_license}, weights {card.weights_license}.",
        *_training(card.training, _recipe(card, docs)),
    ]
    lines = [f"\n## {card.style_id}\n", f"*{card.title}* by {card.artist}, {card.year}."]
    if card.description:
        lines[-1] += f" {card.description}"
    lines += ["", *(f"- {fact}" for fact in facts)]
    figures = {FIGURES[name]: card.quality[name] for name in FIGURES if name in card.quality}
    if figures:
        lines += ["", _cells(figures), "|" + "---|" * len(figures)]
        lines += [_cells(str(figure) for figure in figures.values())]
    lines += ["", f"![{card.title}: the sample photographs](styles/{card.style_id}.jpg)", ""]
    return "\n".join(lines)


def _training(training: Mapping[str, Any], recipe: str) -> list[str]:
    """How the weights came to be, as far as the card says: a few sentences without their marks."""
    if "imported_from" in training:
        return [f"Imported from {training['imported_from']}, `{training.get('file', '')}`."]
    steps = [f"{training['steps']:,} steps"] if "steps" in training else []
    init = [f"started from {training['init']}"] if training.get("init") else []
    minutes = [f"{training['minutes']} minutes"] if "minutes" in training else []
    torch = [f"torch {training['torch']}"] if "torch" in training else []
    machine = [str(training["machine"])] if training.get("machine") else []
    return [
        f"{name}: {', '.join(facts)}."
        for name, facts in (
            ("Recipe", [*([recipe] if recipe else []), *steps, *init]),
            ("Machine", [*machine, *torch, *minutes]),
        )
        if facts
    ]


def _recipe(card: StyleCard, docs: Path) -> str:
    file = RECIPES / card.recipe
    if not card.recipe or not file.is_file():
        return card.recipe
    return f"[{card.recipe}]({_link(file, docs)})"


def _link(path: Path, docs: Path) -> str:
    return os.path.relpath(path, docs).replace(os.sep, "/")


def _cells(cells: Iterable[str]) -> str:
    """One row of a table; a bar or a line break inside a cell would end it."""
    return "| " + " | ".join(" ".join(c.split()).replace("|", "\\|") for c in cells) + " |"
