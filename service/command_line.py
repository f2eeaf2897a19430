"""atelier: the command line. Exit codes, and one line for whatever went wrong."""

from __future__ import annotations

import argparse
import logging
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from model_zoo.cards import ZooError
from service.bulk import OutputLostError
from service.commands import serve, styles, stylize, video
from service.commands.arguments import UsageError
from service.errors import ServiceError
from service.folders import NamesError
from service.ledger import LedgerError
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
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        code: int = options.command(options)
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
