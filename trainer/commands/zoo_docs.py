"""zoo-docs: the page of all styles, their contact sheets and the gallery."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from model_zoo.cards import SHIPPED_ZOO, Manifest
from model_zoo.checkpoints import load_style, write_file
from trainer.card_updates import repaint_previews
from trainer.commands.arguments import add_command, positive, processes
from trainer.devices import keep_freed_memory
from trainer.errors import TrainerError
from trainer.pictures import jpeg_of_at_most
from trainer.sample_photos import astronaut
from trainer.sheets import contact_sheet, sheet_photos
from trainer.style_sheets import gallery, opening, sample_sheet, style_sheet
from trainer.styles_page import styles_page

if TYPE_CHECKING:
    import argparse

    from trainer.commands.arguments import Commands

LOCAL_SHEET_MAX_BYTES = 4 * 2**20


def add_to(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the command and its arguments."""
    command = add_command(
        commands,
        "zoo-docs",
        "write the page of all styles, with its pictures",
        "Write styles.md, a contact sheet of each style and the gallery, from the manifest of a "
        "zoo and photographs that scikit-image ships. With --photos, write contact sheets of your "
        "own photographs to --out instead, to look at.",
    )
    command.set_defaults(command=run)
    add = command.add_argument
    add("--zoo", type=Path, default=SHIPPED_ZOO, metavar="DIR", help="whose styles")
    add("--docs", type=Path, default=Path("docs"), metavar="DIR", help="where to write")
    add("--previews", action="store_true", help="paint all previews of the zoo again, too")
    add("--photos", type=Path, metavar="DIR", help="photographs of sheets to look at")
    add("--out", type=Path, metavar="DIR", help="of the sheets of --photos")
    add("--size-px", type=positive, default=512, metavar="PX", help="longer side of --photos")
    add("--threads", type=processes, default=0, metavar="N", help="CPU threads; 0: all cores")


def run(options: argparse.Namespace) -> None:
    """Write page and pictures, or sheets of other photographs."""
    if (options.photos is None) != (options.out is None):
        raise TrainerError("--photos and --out belong together: photographs, and where sheets go")
    keep_freed_memory()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.photos is not None:
        _write_local_sheets(options)
        return
    manifest = Manifest.read(options.zoo)
    if options.previews:
        repaint_previews(options.zoo, astronaut())
        manifest = Manifest.read(options.zoo)
    _write_docs(manifest, options.docs)


def _write_docs(manifest: Manifest, docs: Path) -> None:
    sheets, images = docs / "styles", docs / "images"
    _make_folders(sheets, images)
    write_file(sample_sheet(), sheets / "photographs.jpg")
    generators = []
    for card in manifest:
        generators.append(load_style(manifest, card))
        write_file(style_sheet(card, generators[-1]), sheets / f"{card.style_id}.jpg")
        print(sheets / f"{card.style_id}.jpg")
    write_file(gallery(manifest, generators), images / "gallery.jpg")
    write_file(opening(manifest, generators), images / "opening.jpg")
    write_file(styles_page(manifest, docs).encode(), docs / "styles.md")
    print(docs / "styles.md")


def _write_local_sheets(options: argparse.Namespace) -> None:
    manifest = Manifest.read(options.zoo)
    photos = sheet_photos(options.photos, size_px=options.size_px)
    _make_folders(options.out)
    for card in manifest:
        sheet = contact_sheet(load_style(manifest, card), photos)
        path = options.out / f"{card.style_id}.jpg"
        write_file(jpeg_of_at_most(sheet, LOCAL_SHEET_MAX_BYTES), path)
        print(path)


def _make_folders(*folders: Path) -> None:
    try:
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainerError(f"{error.filename} cannot be made: {error.strerror}") from error
