"""import: a checkpoint of another project becomes a style of a zoo."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from model_zoo.cards import SHIPPED_ZOO
from trainer.commands.arguments import PREVIEW_PHOTO_HELP, add_command, words
from trainer.importers import IMPORTERS, UNKNOWN, ImportOptions, import_style

if TYPE_CHECKING:
    import argparse

    from trainer.commands.arguments import Commands


def add_to(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the command and its arguments."""
    command = add_command(
        commands,
        "import",
        "put a checkpoint of another project into a zoo",
        "Convert a checkpoint of another project; write weights (fp32), card, preview and manifest "
        "entry, all or nothing. Only tensors are read from the file: no code in it can run.",
    )
    command.set_defaults(command=run)
    add = command.add_argument
    add("checkpoint", type=Path, metavar="CHECKPOINT.pth", help="file with a network's state_dict")
    add(
        "--from",
        dest="project",
        choices=tuple(IMPORTERS),
        required=True,
        help="who made it; pytorch-examples: fast_neural_style of github.com/pytorch/examples",
    )
    add("--style-id", required=True, metavar="ID", help="lower-case words joined by hyphens")
    add("--zoo", type=Path, default=SHIPPED_ZOO, metavar="DIR", help="the zoo to write to")
    add("--preview-photo", type=Path, metavar="FILE", help=PREVIEW_PHOTO_HELP)
    add("--title", type=words, metavar="TEXT", help="of the style; else the words of its id")
    add("--artist", type=words, default=UNKNOWN, metavar="TEXT", help="who painted the picture")
    add("--year", type=words, default=UNKNOWN, metavar="TEXT", help="when it was painted")
    add("--description", type=words, default="", metavar="TEXT", help="a sentence for the card")
    add("--picture-license", type=words, default=UNKNOWN, metavar="TEXT", help="of the picture")
    add("--weights-license", type=words, default=UNKNOWN, metavar="TEXT", help="of the checkpoint")


def run(options: argparse.Namespace) -> None:
    """Import, and say what was written."""
    card = import_style(
        ImportOptions(
            checkpoint=options.checkpoint,
            project=options.project,
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
