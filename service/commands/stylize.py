"""stylize: photographs become paintings, here or by a service."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from service.bulk import Errand, paint_all, paint_one, unreadable
from service.commands.arguments import (
    UsageError,
    add_command,
    add_painting,
    add_server,
    at_least_1,
    quality,
    some_path,
)
from service.commands.choosing import open_workshop
from service.commands.reports import RunReport
from service.folders import find_photographs, is_folder
from service.formats import ENCODABLE
from service.ledger import Ledger
from service.stopping import stop_on_signal

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence

    from service.commands.arguments import Commands
    from service.schemas import StylizeParameters
    from service.workshops import Workshop

EXIT_SOME_FAILED = 1

_STANDARD = "-"
_JPEG_SUFFIXES = dict.fromkeys(("jpeg", "jpe", "jfif"), "jpeg")
_FORMATS_BY_SUFFIX = {row.suffix: row.name for row in ENCODABLE} | _JPEG_SUFFIXES


def add_to(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the command and its arguments."""
    command = add_command(
        commands,
        "stylize",
        "paint photographs",
        "Paint photographs as POST /stylize does, to the byte: files, folders with all that is "
        "below them, or standard input. Started again, it does only what is missing.",
        run,
    )
    add = command.add_argument
    add(
        "photos",
        type=some_path,
        nargs="+",
        metavar="PHOTO",
        help="file or folder; -: standard input",
    )
    add(
        "-o",
        "--out",
        type=some_path,
        required=True,
        help="folder, or file for one photograph; -: standard output",
    )
    styles = command.add_mutually_exclusive_group(required=True)
    styles.add_argument(
        "-s",
        "--style",
        action="append",
        dest="styles",
        metavar="ID",
        help="style, or mixture as a:0.6,b:0.4; each of several has a folder of its own",
    )
    styles.add_argument("--all-styles", action="store_true", help="a folder for each that there is")
    add_painting(command)
    add("--format", choices=[row.name for row in ENCODABLE], help="else the photograph's own")
    add("--quality", type=quality, metavar="1..100", help="of JPEG and WebP; 90 unless said")
    add("--overwrite", action="store_true", help="replace what is there and is something else")
    add("--json", action="store_true", help="a line for each photograph, on standard output")
    add("--jobs", type=at_least_1, metavar="N", help="photographs at once")
    add("--zoo", type=Path, metavar="DIR", help="another zoo than that of ATELIER_ZOO")
    add_server(command)


def run(options: argparse.Namespace) -> int:
    """Paint, and say what became of it."""
    options.one = _is_one(options)
    _check_standard(options)
    if options.one:
        options.format = _format_of_file(options)
    else:
        _check_folders(options)
    return asyncio.run(_until_stopped(options))


async def _until_stopped(options: argparse.Namespace) -> int:
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None  # noqa: S101  # this runs in one

    with stop_on_signal(lambda: loop.call_soon_threadsafe(task.cancel)) as stop:
        try:
            async with open_workshop(options) as (workshop, wanted):
                paint = _paint_file if options.one else _paint_folder
                return await paint(options, workshop, wanted)
        except asyncio.CancelledError:
            if stop.signal is None:
                raise
            task.uncancel()
            return stop.exit_code


async def _paint_folder(
    options: argparse.Namespace, workshop: Workshop, wanted: Sequence[StylizeParameters]
) -> int:
    out = Path(options.out)
    total = None
    if sys.stderr.isatty():
        total = sum(1 for _ in _errands(options, wanted, lambda *_: None))
    with Ledger.open(out) as ledger, RunReport(json_lines=options.json, total=total) as report:

        def on_unreadable(folder: Path, error: OSError) -> None:
            report.failed(folder, "", unreadable(error))

        errands = _errands(options, wanted, on_unreadable)
        await paint_all(errands, workshop, ledger, report, overwrite=options.overwrite)
    return EXIT_SOME_FAILED if report.counts["failed"] else 0


async def _paint_file(
    options: argparse.Namespace, workshop: Workshop, wanted: Sequence[StylizeParameters]
) -> int:
    if len(wanted) > 1:
        raise UsageError(f"{options.out} is one file, and {len(wanted)} styles want one each")
    photo = None if options.photos[0] == _STANDARD else Path(options.photos[0])
    out = None if options.out == _STANDARD else Path(options.out)
    with RunReport(json_lines=options.json, quiet=out is None) as report:
        await paint_one(photo, out, wanted[0], workshop, report, overwrite=options.overwrite)
    return EXIT_SOME_FAILED if report.counts["failed"] else 0


def _errands(
    options: argparse.Namespace,
    wanted: Sequence[StylizeParameters],
    on_unreadable: Callable[[Path, OSError], None],
) -> Iterator[Errand]:
    paths = [Path(photo) for photo in options.photos]
    for photograph in find_photographs(paths, Path(options.out), on_unreadable):
        for parameters in wanted:
            # A colon is no part of a name everywhere.
            folder = parameters.style.replace(":", "=") + "/" if len(wanted) > 1 else ""
            yield Errand(photograph, parameters, folder + photograph.stem)


def _is_one(options: argparse.Namespace) -> bool:
    """Whether OUT is the file of the one photograph, not the folder of all."""
    if options.out == _STANDARD or _STANDARD in options.photos:
        if len(options.photos) > 1 or is_folder(options.photos[0]):
            raise UsageError("standard input and standard output are for one photograph")
        if _names_a_folder(options.out):
            raise UsageError("a photograph of standard input has no name; write -o FILE, or -o -")
        return True
    is_file = len(options.photos) == 1 and not is_folder(options.photos[0])
    return is_file and not _names_a_folder(options.out)


def _check_standard(options: argparse.Namespace) -> None:
    """See that pictures come from and go to where pictures can."""
    if options.out == _STANDARD and (options.json or sys.stdout is None or sys.stdout.isatty()):
        raise UsageError("-o - writes the painting itself to standard output; write -o FILE")
    if _STANDARD in options.photos and sys.stdin.isatty():
        raise UsageError("- reads a photograph from standard input; write <FILE, or its name")


def _names_a_folder(out: str) -> bool:
    if out == _STANDARD:
        return False
    return out.endswith(os.sep) or is_folder(out) or not Path(out).suffix


def _format_of_file(options: argparse.Namespace) -> str | None:
    """The format that OUT is named for; None where it has no name."""
    given: str | None = options.format
    if options.out == _STANDARD:
        return given
    suffix = Path(options.out).suffix[1:].lower()
    named = _FORMATS_BY_SUFFIX.get(suffix)
    if named is None:
        known = ", ".join(f".{row.suffix}" for row in ENCODABLE)
        raise UsageError(
            f"{options.out}: .{suffix} is none of {known}; of a folder write {options.out}/"
        )
    if given not in (None, named):
        raise UsageError(f"{options.out} is named for {named}, and --format is {given}")
    return named


def _check_folders(options: argparse.Namespace) -> None:
    """See that there is something to do, and that paintings and photographs lie apart."""
    out = Path(options.out)
    for photo in options.photos:
        if is_folder(photo) and is_folder(out) and out.samefile(photo):
            raise UsageError(f"{photo} holds the photographs; let -o be another folder")
    unreadable_folders: list[Path] = []
    paths = [Path(photo) for photo in options.photos]
    found = find_photographs(paths, out, lambda path, _: unreadable_folders.append(path))
    if next(found, None) is None and not unreadable_folders:
        raise UsageError(f"no photographs in {', '.join(options.photos)}")
