"""StyleDraft: what a card will say, before the files that it names are written."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from model_zoo.cards import STYLE_ID_PATTERN, StyleCard, ZooError
from trainer.errors import TrainerError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class StyleDraft:
    """The fields of a StyleCard that do not name its files."""

    style_id: str
    title: str
    artist: str
    year: str
    description: str
    generator: str
    arguments: Mapping[str, Any]
    picture_license: str
    weights_license: str
    recipe: str
    training: Mapping[str, Any]
    quality: Mapping[str, Any] = field(default_factory=dict)
    style_row: int = 0
    mixes_as: str = ""

    def __post_init__(self) -> None:
        check_style_id(self.style_id)
        for name in ("title", "artist", "year", "picture_license", "weights_license"):
            if not getattr(self, name):  # a manifest without it could not be read again
                raise TrainerError(f"the card needs text; give --{name.replace('_', '-')}")

    def card(self, weights: str, weights_sha256: str, preview_sha256: str) -> StyleCard:
        """The card; the preview carries the start of its checksum in its name."""
        return StyleCard(
            weights=weights,
            sha256=weights_sha256,
            preview=f"previews/{self.style_id}-{preview_sha256[:8]}.jpg",
            **{f.name: getattr(self, f.name) for f in fields(self)},
        )


def check_style_id(style_id: str) -> None:
    """See that an id is one, before it becomes part of a path.

    Raises:
        ZooError: it is not.
    """
    if not STYLE_ID_PATTERN.fullmatch(style_id):
        raise ZooError(
            f"style id {style_id!r} must be lower-case letters, digits and single hyphens"
        )
