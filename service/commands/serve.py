"""serve: the service, as ``python -m service`` runs it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from service.commands.arguments import add_command

if TYPE_CHECKING:
    import argparse

    from service.commands.arguments import Commands


def add_to(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the command and its arguments."""
    command = add_command(
        commands,
        "serve",
        "start the service",
        "Serve over HTTP by the ATELIER_* environment variables, over which options win; "
        "`python -m service --help` lists them all. Ends with the exit codes of docs/running.md.",
        run,
    )
    add = command.add_argument
    add("--host", metavar="ADDRESS", help="address to listen on, for ATELIER_HOST")
    add("--port", type=int, metavar="N", help="TCP port, for ATELIER_PORT")
    add("--zoo", type=Path, metavar="DIR", help="folder that holds manifest.toml, for ATELIER_ZOO")


def run(options: argparse.Namespace) -> int:
    """Serve until a signal comes."""
    from service.__main__ import serve  # brings the whole service along

    given = {"host": options.host, "port": options.port, "zoo": options.zoo}
    return serve(**{name: value for name, value in given.items() if value is not None})
