"""export: a run becomes a style of a zoo."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from model_zoo.cards import SHIPPED_ZOO
from trainer.commands.arguments import add_command, words
from trainer.export import ExportOptions, export

if TYPE_CHECKING:
    import argparse

    from trainer.commands.arguments import Commands


def add_to(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the command and its arguments."""
    command = add_command(
        commands,
        "export",
        "put a trained run into a zoo",
        "Write weights, card, preview and manifest entry of a run, all or nothing.",
    )
    command.set_defaults(command=run)
    add = command.add_argument
    add("run", type=Path, metavar="RUN", help="folder of a training run")
    add("--style-id", required=True, metavar="ID", help="lower-case words joined by hyphens")
    add("--zoo", type=Path, default=SHIPPED_ZOO, metavar="DIR", help="the zoo to write to")
    add("--preview-photo", type=Path, metavar="FILE", help="photograph that the preview paints")
    add(
        "--weights-license", type=words, default="Apache-2.0", help="licence of the trained weights"
    )
    for name in ("title", "artist", "year", "description", "picture-license"):
        add(f"--{name}", type=words, metavar="TEXT", help="instead of the recipe's", default=None)


def run(options: argparse.Namespace) -> None:
    """Export, and say what was written."""
    card = export(
        ExportOptions(
            run=options.run,
            style_id=options.style_id,
            zoo=options.zoo,
            preview_photo=options.preview_photo,
            title=options.title,
            artist=options.artist,
            year=options.year,
            description=options.description,
            picture_license=options.picture_license,
            weights_license=options.weights_license,
        )
    )
    print(f"{card.style_id}: {options.zoo / card.weights} and its entry in the manifest")
