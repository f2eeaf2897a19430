"""Mixtures: what the parameter ``style`` means, one style or several with their shares."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from model_zoo.cards import UnknownStyleError
from model_zoo.generators.conditional import IDENTITY_ROW
from service.errors import InvalidParameterError, StyleNotFoundError

if TYPE_CHECKING:
    from model_zoo.cards import Manifest, StyleCard
    from service.jobs import Mix

_RULE = "write style=ID, or style=ID:SHARE,ID:SHARE with shares from 0 to 1 whose sum is 1"
_TOLERANCE = 1e-3  # thirds written with three digits


@dataclass(frozen=True, slots=True)
class Choice:
    """What to paint in: a network, by one of its cards, and where it has rows, how much of each."""

    card: StyleCard
    mix: Mix = ()

    def weaker(self, strength: float) -> Choice:
        """The same towards the identity, which is what strength 0 gives."""
        shares = tuple((row, share * strength) for row, share in self.mix)
        return replace(self, mix=((IDENTITY_ROW, 1 - strength), *shares))


def choose_style(text: str, manifest: Manifest) -> Choice:
    """Read the parameter ``style``.

    Raises:
        StyleNotFoundError: a style is not in the zoo.
        InvalidParameterError: the shares break the rule, or the styles cannot be mixed.
    """
    if ":" not in text and "," not in text:
        card = find_card(text, manifest)
        return Choice(card, ((card.style_row, 1.0),) if card.style_row else ())
    shares: dict[str, float] = {}
    for part in text.split(","):
        style_id, _, share = (word.strip() for word in part.partition(":"))
        if style_id in shares:
            raise InvalidParameterError(f"style: {style_id!r} is named twice; {_RULE}")
        shares[style_id] = _share(share, part)
    cards = [_row_card(find_card(style_id, manifest), manifest) for style_id in shares]
    total = math.fsum(shares.values())
    if abs(total - 1) > _TOLERANCE:
        raise InvalidParameterError(f"style: the shares add up to {total:g}; {_RULE}")
    if len({card.network for card in cards}) > 1:
        raise InvalidParameterError(
            "style: these styles are rows of different networks and cannot be mixed with each other"
        )
    mix = tuple(
        (card.style_row, share / total) for card, share in zip(cards, shares.values(), strict=True)
    )
    return Choice(cards[0], mix)


def partners_of(card: StyleCard, manifest: Manifest) -> list[str]:
    """Ids of the styles that ``card`` can be mixed with, the first listed of each row."""
    rows: dict[int, str] = {}
    own = _row_card_of(card, manifest)
    for other in manifest if own else ():
        row = _row_card_of(other, manifest)
        if row and own and row.network == own.network and row.style_row != own.style_row:
            rows.setdefault(row.style_row, other.style_id)
    return list(rows.values())


def label_of(text: str, manifest: Manifest) -> str:
    """A word for logs and metrics: the style, ``mixture``, or ``unknown``."""
    known = {card.style_id for card in manifest}
    if text in known:
        return text
    named = {part.partition(":")[0].strip() for part in text.split(",")}
    return "mixture" if named <= known else "unknown"


def _share(text: str, part: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:  # which NaN is not, either
        raise InvalidParameterError(f"style: {part.strip()!r} has no share from 0 to 1; {_RULE}")
    return share


def find_card(style_id: str, manifest: Manifest) -> StyleCard:
    """The card of one style.

    Raises:
        StyleNotFoundError: the zoo has no such style.
    """
    try:
        return manifest.card(style_id)
    except UnknownStyleError as error:
        known = ", ".join(card.style_id for card in manifest)
        raise StyleNotFoundError(f"no style {style_id!r}; there are {known}") from error


def _row_card_of(card: StyleCard, manifest: Manifest) -> StyleCard | None:
    if card.style_row:
        return card
    return manifest.card(card.mixes_as) if card.mixes_as else None


def _row_card(card: StyleCard, manifest: Manifest) -> StyleCard:
    """The card that stands for ``card`` in mixtures.

    Raises:
        InvalidParameterError: there is none.
    """
    if row_card := _row_card_of(card, manifest):
        return row_card
    able = [other.style_id for other in manifest if other.style_row or other.mixes_as]
    raise InvalidParameterError(
        f"style: {card.style_id!r} has a network of its own and cannot be mixed; "
        f"those that can: {', '.join(able) or 'none of this zoo'}"
    )
