"""Changes to the cards of a zoo that is there: measured figures, and previews painted again."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from model_zoo.cards import Manifest
from model_zoo.checkpoints import load_style, write_file
from trainer.manifest_writer import write_manifest
from trainer.previews import paint_preview
from trainer.zoo_files import files_of, locked_zoo, open_zoo, remove_unnamed, with_card

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from PIL import Image


def write_quality(zoo: Path, quality: Mapping[str, Mapping[str, Any]]) -> None:
    """Put the figures of each style id into its card, in place of those that it had.

    Raises:
        ZooError: a style is not there any more, or the manifest cannot be written.
    """
    with locked_zoo(zoo):
        manifest = Manifest.read(zoo)
        for style_id, figures in quality.items():
            manifest = with_card(manifest, replace(manifest.card(style_id), quality=figures))
        write_manifest(manifest)


def repaint_previews(zoo: Path, photo: Image.Image) -> None:
    """Paint the preview of every style from ``photo``, all or none.

    Raises:
        ZooError: weights cannot be loaded, or the zoo cannot be written.
    """
    with locked_zoo(zoo):
        manifest = changed = open_zoo(zoo)
        paths = [path for card in manifest for path in files_of(manifest, card.style_id)]
        try:
            for card in manifest:
                preview = paint_preview(load_style(manifest, card), photo)
                checksum = hashlib.sha256(preview).hexdigest()
                name = f"previews/{card.style_id}-{checksum[:8]}.jpg"
                paths.append(zoo / name)
                write_file(preview, zoo / name)
                changed = with_card(changed, replace(card, preview=name))
            write_manifest(changed)
        finally:
            remove_unnamed(zoo, paths)
