"""python -m trainer: the command line of the trainer."""

from __future__ import annotations

import argparse
import logging
import sys
from typing import TYPE_CHECKING

from model_zoo.cards import ZooError
from trainer.commands import (
    evaluate,
    export,
    import_,
    loss_network,
    optimize,
    reproduce,
    train,
    zoo_check,
    zoo_docs,
)
from trainer.errors import TrainerError, TrainingFailedError

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = (
    train,
    export,
    evaluate,
    optimize,
    reproduce,
    import_,
    loss_network,
    zoo_check,
    zoo_docs,
)

EXTRAS = {
    "tqdm": "train",
    "tensorboard": "train",
    "matplotlib": "figures,train",
    "skimage": "sheets",
}
"""Which extra brings a package that only some commands need."""

BAD_INPUT = 2  # what argparse exits with, too
FAILED = 1
INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 1 (failed), 2 (bad input), 130 (interrupted)."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    try:
        options.command(options)
    except (TrainerError, ZooError) as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        print(
            f"error: this command needs {error.name}, which is not installed; "
            f"pip install 'atelier[{EXTRAS[error.name]}]'",
            file=sys.stderr,
        )
        return BAD_INPUT
    except TrainingFailedError as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("interrupted; `--resume` goes on from the last checkpoint", file=sys.stderr)
        return INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer",
        description="Train generators for the model zoo: a style picture becomes a served style.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_to(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
