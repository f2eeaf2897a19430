"""atelier: the command line. Exit codes, and one line for whatever went wrong."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from model_zoo.cards import ZooError
from service.commands import serve, styles, stylize, video
from service.commands.arguments import UsageError
from service.commands.reports import drop_standard_output
from service.errors import ServiceError
from service.folders import NamesError
from service.ledger import LedgerError, OutputLostError
from service.workshops import WorkshopLostError

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = (serve, styles, stylize, video)

EXTRAS = {"av": "video", "httpx": "client"}
"""Which extra brings a package that only some commands need."""

EXIT_USAGE = 2  # what argparse exits with, too
EXIT_LOST = 3
EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; docs/command-line.md has the exit codes."""
    _replace_what_is_closed()
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        code: int = options.command(options)
        if sys.stdout is not None:
            sys.stdout.flush()
    except (UsageError, ServiceError, NamesError, LedgerError) as error:
        return _complain(str(error), EXIT_USAGE)
    except (WorkshopLostError, OutputLostError, ZooError) as error:
        return _complain(str(error), EXIT_LOST)
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        return _complain(
            f"this needs {error.name}, which is not installed; "
            f"pip install 'atelier[{EXTRAS[error.name]}]'",
            EXIT_LOST,
        )
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except OSError as error:
        # What no command knows to say better; without a name, it is that nobody reads the output.
        if error.filename is None:
            drop_standard_output()
        return _complain(": ".join(filter(None, (error.filename, error.strerror))), EXIT_LOST)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="atelier",
        description="Paint photographs and clips in the style of a painting, here or by a service.",
    )
    parser.add_argument("--version", action="version", version=f"atelier {_version()}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_to(commands)
    return parser


def _replace_what_is_closed() -> None:
    """Give an empty input and an output for nobody where the shell closed them."""
    null = Path(os.devnull)
    if sys.stdin is None:
        sys.stdin = null.open(encoding="utf-8")
    if sys.stderr is None:
        sys.stderr = null.open("w", encoding="utf-8")


def _version() -> str:
    try:
        return version("atelier")
    except PackageNotFoundError:
        return "unknown"


def _complain(message: str, code: int) -> int:
    print(f"atelier: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
