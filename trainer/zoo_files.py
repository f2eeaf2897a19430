"""The files of a zoo as the trainer changes them: one writer at a time, nothing left behind."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from model_zoo.cards import Manifest, StyleCard, ZooError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path


@contextmanager
def locked_zoo(zoo: Path) -> Iterator[None]:
    """One process at a time writes to a zoo; its folder is made where there is none.

    Raises:
        ZooError: the folder cannot be opened.
    """
    try:
        zoo.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(zoo, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise ZooError(f"zoo {zoo} cannot be opened: {error.strerror or error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def open_zoo(zoo: Path) -> Manifest:
    """The manifest of a zoo that is about to be changed, with no card where it is new.

    Raises:
        ZooError: its folders cannot be written, or the manifest is not valid.
    """
    try:
        for folder in ("weights", "previews"):
            (zoo / folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ZooError(f"zoo {zoo} cannot be written: {error.strerror or error}") from error
    if not (zoo / "manifest.toml").exists():
        return Manifest(zoo, ())
    return Manifest.read(zoo)


def with_card(manifest: Manifest, card: StyleCard) -> Manifest:
    """``manifest`` with ``card`` in the place of the one of the same id, or as its last.

    What stands for the old one in mixtures stands for the new one, too.
    """
    cards = list(manifest.cards)
    for position, old in enumerate(cards):
        if old.style_id == card.style_id:
            cards[position] = replace(card, mixes_as=card.mixes_as or old.mixes_as)
            break
    else:
        cards.append(card)
    return Manifest(manifest.zoo, tuple(cards))


def with_network(
    manifest: Manifest, old_sha256: str, weights: str, sha256: str, arguments: Mapping[str, Any]
) -> Manifest:
    """``manifest`` with new weights in all cards that had those of ``old_sha256``."""
    cards = (
        replace(card, weights=weights, sha256=sha256, arguments=arguments)
        if card.sha256 == old_sha256
        else card
        for card in manifest
    )
    return Manifest(manifest.zoo, tuple(cards))


def with_mixes(manifest: Manifest, stands_for: Mapping[str, str]) -> Manifest:
    """``manifest`` with what stands for styles in mixtures, ids of the former -> of the latter."""
    mixes_as = {other: style_id for style_id, other in stands_for.items()}
    cards = (
        replace(card, mixes_as=mixes_as.get(card.style_id, card.mixes_as)) for card in manifest
    )
    return Manifest(manifest.zoo, tuple(cards))


def files_of(manifest: Manifest, style_id: str) -> list[Path]:
    """Paths of the weights and the preview of a style, none where there is no such style."""
    return [
        path
        for card in manifest
        if card.style_id == style_id
        for path in (manifest.weights_path(card), manifest.preview_path(card))
    ]


def remove_unnamed(zoo: Path, paths: Sequence[Path]) -> None:
    """Remove those of ``paths`` that no card of the manifest, as it now is, needs."""
    try:
        manifest = open_zoo(zoo)
    except ZooError:
        return  # without a manifest to ask, nothing is known to be superfluous
    named = {path for card in manifest for path in files_of(manifest, card.style_id)}
    for path in paths:
        if path not in named:
            path.unlink(missing_ok=True)
