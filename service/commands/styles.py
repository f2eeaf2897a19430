"""styles: what there is to paint in."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

from model_zoo.cards import Manifest
from service.commands.arguments import add_command, add_server, read_settings
from service.commands.choosing import remote_workshop

if TYPE_CHECKING:
    import argparse

    from service.commands.arguments import Commands

_COLUMNS = ("id", "title", "artist", "year", "generator", "mixable")


def add_to(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the command and its arguments."""
    command = add_command(
        commands,
        "styles",
        "list the styles",
        "List the styles of this machine's zoo, or of a service.",
        run,
    )
    add_server(command)
    add = command.add_argument
    add("--zoo", type=Path, metavar="DIR", help="another zoo than that of ATELIER_ZOO")
    add("--json", action="store_true", help="as GET /styles gives them, but for the previews")


def run(options: argparse.Namespace) -> int:
    """Print a table, or JSON."""
    styles = _of_service(options) if options.server else _of_zoo(options)
    if options.json:
        print(json.dumps({"styles": styles}, indent=2))
        return 0
    rows = [[_word(style[name]) for name in _COLUMNS] for style in styles]
    rows.insert(0, [name.upper() for name in _COLUMNS])
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
    return 0


def _of_zoo(options: argparse.Namespace) -> list[dict[str, object]]:
    return [
        {
            "id": card.style_id,
            "title": card.title,
            "artist": card.artist,
            "year": card.year,
            "description": card.description,
            "generator": card.generator,
            "mixable": bool(card.style_row or card.mixes_as),
            "picture_license": card.picture_license,
            "weights_license": card.weights_license,
        }
        for card in Manifest.read(read_settings(zoo=options.zoo).zoo)
    ]


def _of_service(options: argparse.Namespace) -> list[dict[str, object]]:
    async def ask() -> list[dict[str, object]]:
        async with remote_workshop(options) as workshop:
            return [dataclasses.asdict(style) for style in await workshop.styles()]

    styles = asyncio.run(ask())
    for style in styles:
        del style["preview_url"]
    return styles


def _word(value: object) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)
