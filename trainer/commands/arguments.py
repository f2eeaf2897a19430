"""What the commands' arguments share: types, defaults, where development keeps its pictures."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.errors import TrainerError
from trainer.recipe import RECIPES, TrainingRecipe, read_recipe

if TYPE_CHECKING:
    from model_zoo.cards import StyleCard

ASSETS = Path("../shared/assets")
"""Where development keeps paintings and photographs; used only where it exists."""

MOST_PROCESSES = 1024
"""More workers or threads than this are a slip of the hand."""

PREVIEW_PHOTO_HELP = (
    "photograph that the preview paints; default: the astronaut that scikit-image ships, as for "
    "all shipped styles, or a drawn one where that is not installed"
)

Commands = argparse._SubParsersAction  # argparse names the type nowhere else


def add_command(
    commands: Commands[argparse.ArgumentParser], name: str, help_text: str, description: str
) -> argparse.ArgumentParser:
    """Add a command whose ``--help`` shows every default."""
    return commands.add_parser(
        name,
        help=help_text,
        description=description,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )


def add_measuring(command: argparse.ArgumentParser) -> None:
    """Add what every command that measures styles against L-BFGS takes."""
    add = command.add_argument
    add("--photos", type=Path, default=ASSETS / "photos/eval", metavar="DIR", help="held out")
    add("--loss-network", type=Path, required=True, metavar="FILE", help="VGG weights")
    add(
        "--paintings",
        type=Path,
        default=ASSETS / "paintings",
        metavar="DIR",
        help="where recipes' pictures are looked for",
    )
    add("--size-px", type=positive, default=256, metavar="PX", help="longer side of photographs")
    add("--evaluations", type=positive, default=300, metavar="N", help="of L-BFGS, each photo")
    add("--references", type=Path, default=Path("runs/references"), metavar="DIR", help="kept")
    add("--threads", type=processes, default=0, metavar="N", help="CPU threads; 0: all cores")


def asset(path: str) -> Path | None:
    """A file or folder of development's pictures, or None where there are none."""
    return ASSETS / path if (ASSETS / path).exists() else None


def find_style_picture(
    given: Path | None, recipe_file: Path, picture: str, paintings: Path
) -> Path:
    """The style picture: as given, or the recipe's, beside it or in the folder of paintings.

    Raises:
        TrainerError: the recipe is a preset and none is given.
    """
    if given is not None:
        return given
    if not picture:
        raise TrainerError(f"{recipe_file.name} names no picture; give one with --style-picture")
    beside = recipe_file.parent / picture
    # Unlike Path.exists, this takes a name that no file could have.
    return beside if os.path.exists(beside) else paintings / picture  # noqa: PTH110


def recipe_of(card: StyleCard) -> tuple[TrainingRecipe, Path]:
    """The recipe that a card names, and its file.

    Raises:
        TrainerError: the card names none of ours, or one of other styles.
    """
    file = RECIPES / card.recipe
    if not card.recipe or not file.is_file():
        raise TrainerError(
            f"style {card.style_id!r} names no recipe of {RECIPES}, so its losses are not known; "
            "evaluate the run that it came from"
        )
    return read_recipe(file).of_style(card.style_id), file


def positive(text: str) -> int:
    """A whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} must be at least 1")
    return value


def processes(text: str) -> int:
    """A number of processes or threads; 0 stands for none, or for as many as there are cores."""
    value = int(text)
    if not 0 <= value <= MOST_PROCESSES:
        raise argparse.ArgumentTypeError(f"{value} must be between 0 and {MOST_PROCESSES}")
    return value


def words(text: str) -> str:
    """Text for a card."""
    try:
        text.encode()
    except UnicodeEncodeError as error:  # bytes of a terminal that is not set to UTF-8
        raise argparse.ArgumentTypeError(f"{text!r} is not UTF-8") from error
    return text
