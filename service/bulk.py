"""Bulk: many photographs, several painted at once, each put in its place as soon as it is done."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from service.formats import ENCODABLE, FORMATS, detect_format
from service.ledger import OutputLostError, claim_of, write_whole
from service.workshops import CannotPaintError, WorkshopLostError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from service.folders import Photograph
    from service.ledger import Ledger
    from service.schemas import StylizeParameters
    from service.workshops import Workshop

logger = logging.getLogger(__name__)

_MIB = 2**20
_IN_THE_WAY = "urn:atelier:command-line:in-the-way"
# What the next picture would meet as well.
_FOR_ALL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})


@dataclass(frozen=True, slots=True)
class Errand:
    """A photograph, how to paint it, and where that belongs in the folder of all."""

    photograph: Photograph
    parameters: StylizeParameters
    stem: str


class Report(Protocol):
    """Is told what became of each errand."""

    def painted(self, photo: Path, style: str, out: Path | None) -> None: ...

    def present(self, photo: Path, style: str, out: Path) -> None: ...

    def failed(self, photo: Path, style: str, error: CannotPaintError) -> None: ...


def unreadable(error: OSError) -> CannotPaintError:
    """Say of a photograph, or a folder of such, what the system says of it."""
    return CannotPaintError(
        f"cannot be read: {error.strerror or error}", type="urn:atelier:command-line:unreadable"
    )


def in_the_way(path: Path) -> CannotPaintError:
    """Say that a painting's place is taken."""
    return CannotPaintError(
        f"{path} is there already, painted otherwise or by someone else; --overwrite replaces it",
        type=_IN_THE_WAY,
    )


def read_photograph(path: Path | None, max_bytes: int) -> bytes:
    """Read a file, or standard input, as far as it is not too large to be a photograph.

    Raises:
        CannotPaintError: it is, or cannot be read.
    """
    try:
        with nullcontext(sys.stdin.buffer) if path is None else path.open("rb") as file:
            image: bytes = file.read(max_bytes + 1)
    except OSError as error:
        raise unreadable(error) from error
    if len(image) > max_bytes:
        raise CannotPaintError(
            f"it is larger than the limit of {max_bytes / _MIB:.1f} MiB",
            type="urn:atelier:error:body-too-large",
        )
    return image


async def paint_all(
    errands: Iterable[Errand],
    workshop: Workshop,
    ledger: Ledger,
    report: Report,
    *,
    overwrite: bool,
) -> None:
    """Carry out errands, those whose paintings are not there yet; cancel this to stop.

    Whatever is wrong with one picture is reported, and the next one comes.

    Args:
        errands: taken one by one, no faster than they are carried out.
        workshop: paints.
        ledger: of the folder of all paintings.
        report: told what became of each.
        overwrite: whether to replace what is not known to be the painting that is asked for.

    Raises:
        WorkshopLostError: nothing more can be painted.
        OutputLostError: nothing more can be written.
    """
    places = asyncio.Semaphore(workshop.jobs)
    lost: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as group:
            for errand in errands:
                await places.acquire()
                task = group.create_task(_carry_out(errand, workshop, ledger, report, overwrite))
                task.add_done_callback(lambda _: places.release())
    except* (WorkshopLostError, OutputLostError) as losses:
        lost = losses.exceptions[0]
    if lost is not None:
        raise lost


async def paint_one(
    photo: Path | None,
    out: Path | None,
    parameters: StylizeParameters,
    workshop: Workshop,
    report: Report,
    *,
    overwrite: bool,
) -> None:
    """Paint ``photo`` into ``out``; None are standard input and output.

    Raises:
        WorkshopLostError: nothing can be painted.
        OutputLostError: nothing can be written.
        OSError: standard output is closed or full.
    """
    named = photo or Path("-")
    try:
        if out is not None and not overwrite:
            _check_free(out)
        image = await asyncio.to_thread(read_photograph, photo, workshop.max_bytes)
        painting = await workshop.paint(image, parameters)
        if out is None:
            sys.stdout.buffer.write(painting.data)
            sys.stdout.buffer.flush()
        else:
            _put(out, photo, partial(write_whole, out, painting.data))
    except CannotPaintError as error:
        report.failed(named, parameters.style, error)
    else:
        report.painted(named, parameters.style, out)


async def _carry_out(
    errand: Errand, workshop: Workshop, ledger: Ledger, report: Report, overwrite: bool
) -> None:
    path, style = errand.photograph.path, errand.parameters.style
    try:
        claim = claim_of(path.stat(), workshop.describe(errand.parameters))
        suffixes = _possible_suffixes(errand.parameters)
        if there := ledger.find(errand.stem, suffixes, claim):
            report.present(path, style, there)
            return
        image = await asyncio.to_thread(read_photograph, path, workshop.max_bytes)
        if not overwrite and (suffix := _probable_suffix(errand.parameters, image)):
            _check_free(ledger.path(errand.stem, suffix))
        painting = await workshop.paint(image, errand.parameters)
        out = ledger.path(errand.stem, painting.suffix)
        if not overwrite:
            _check_free(out)
        place = partial(ledger.place, out, claim, painting.data)
        await asyncio.to_thread(_put, out, path, place)
    except CannotPaintError as error:
        report.failed(path, style, error)
    except OSError as error:
        report.failed(path, style, unreadable(error))
    except (WorkshopLostError, OutputLostError):
        raise
    except Exception as error:
        logger.exception("picture_failed")
        report.failed(path, style, CannotPaintError(f"{type(error).__name__}: {error}"))
    else:
        report.painted(path, style, out)


def _possible_suffixes(parameters: StylizeParameters) -> tuple[str, ...]:
    rows = (FORMATS[parameters.format],) if parameters.format else ENCODABLE
    return tuple(row.suffix for row in rows)


def _probable_suffix(parameters: StylizeParameters, image: bytes) -> str | None:
    row = FORMATS[parameters.format] if parameters.format else detect_format(image)
    return row.suffix if row and row.can_encode else None


def _check_free(path: Path) -> None:
    # Path.exists raises where a name is too long; so does writing, with better words.
    if os.path.exists(path):  # noqa: PTH110
        raise in_the_way(path)


def _put(out: Path, photo: Path | None, write: Callable[[], None]) -> None:
    """Write a painting, but never over its photograph, and say what is wrong if it does not go."""
    try:
        if photo is not None and out.exists() and out.samefile(photo):
            raise CannotPaintError(f"{out} is the photograph itself", type=_IN_THE_WAY)
        write()
    except OSError as error:
        if error.errno in _FOR_ALL:
            raise OutputLostError(f"{out}: {error.strerror}") from error
        raise CannotPaintError(
            f"{out} cannot be written: {error.strerror or error}",
            type="urn:atelier:command-line:unwritable",
        ) from error
