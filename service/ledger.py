"""Ledger: what was painted into a folder, and of what. Files appear there whole, or not at all."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import itertools
import json
import os
import re
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

FOLDER = ".atelier"
"""What lies beside the paintings; without it they are taken for someone else's."""

_NAME = "ledger"
_ENTRY = re.compile(r"([0-9a-f]{32}) ([0-9a-f]{32})")


class LedgerError(Exception):
    """The folder cannot be painted into; the message says why."""


class OutputLostError(Exception):
    """Nothing can be written, or nothing more; the message says where and why."""


class Ledger:
    """The paintings of one folder, each with its claim: of what it is, and how it was painted.

    Takes about 150 bytes of memory a painting. One process at a time holds it; its threads may
    place paintings at once.
    """

    def __init__(self, folder: Path, lines: IO[bytes]) -> None:
        self._folder = folder
        self._lines = lines
        self._part_numbers = itertools.count()
        self._claims: dict[bytes, bytes] = {}
        lines.seek(0)
        for line in lines:
            if entry := _ENTRY.fullmatch(line.decode("ascii", "replace").rstrip("\n")):
                self._claims[bytes.fromhex(entry[1])] = bytes.fromhex(entry[2])
        # Whoever was killed may have left half a line.
        self._append(b"\n")

    @classmethod
    @contextmanager
    def open(cls, folder: Path) -> Iterator[Ledger]:
        """Hold the ledger of ``folder``, which is made where there is none.

        Raises:
            LedgerError: it is no folder, or another process paints into it.
            OutputLostError: it cannot be written.
        """
        own = folder / FOLDER
        try:
            own.mkdir(parents=True, exist_ok=True)
            lines = (own / _NAME).open("a+b", buffering=0)
        except (FileExistsError, NotADirectoryError) as error:
            raise LedgerError(f"{error.filename} is in the way; it is no folder") from error
        except OSError as error:
            raise OutputLostError(f"{error.filename}: {error.strerror or error}") from error
        with lines:
            try:
                fcntl.flock(lines, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise LedgerError(f"{folder}: another process paints into it") from error
            try:
                for part in own.glob("*.part"):
                    part.unlink()
                ledger = cls(folder, lines)
            except OSError as error:
                raise OutputLostError(f"{own}: {error.strerror or error}") from error
            yield ledger

    def find(self, stem: str, suffixes: Iterable[str], claim: bytes) -> Path | None:
        """Where the painting of ``claim`` is, if it is there under one of ``suffixes``."""
        for suffix in suffixes:
            path = self.path(stem, suffix)
            if self._claims.get(self._key(path)) == claim and path.exists():
                return path
        return None

    def path(self, stem: str, suffix: str) -> Path:
        """Where a painting belongs."""
        return self._folder / f"{stem}.{suffix}"

    def place(self, path: Path, claim: bytes, data: bytes) -> None:
        """Put a painting in its place, or in that of another.

        Raises:
            OSError: it cannot be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        part = self._folder / FOLDER / f"{next(self._part_numbers)}.part"
        key = self._key(path)

        def note() -> None:
            # In this order, whenever it breaks off: no painting has the claim of another, and one
            # that is there without a claim is not ours.
            path.unlink(missing_ok=True)
            self._append(f"{key.hex()} {claim.hex()}\n".encode())
            self._claims[key] = claim

        _write_whole(path, part, data, note)

    def _append(self, line: bytes) -> None:
        if self._lines.write(line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _key(self, path: Path) -> bytes:
        return _digest(path.relative_to(self._folder).as_posix())


def claim_of(file: os.stat_result, how: Mapping[str, object]) -> bytes:
    """Sixteen bytes for a photograph, as its file is now, and how it is painted."""
    return _digest(json.dumps([file.st_size, file.st_mtime_ns, how], sort_keys=True))


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that is there whole or not at all, and the folders that it lies in.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_whole(path, path.with_name(f".{path.name}.part"), data)


def _write_whole(
    path: Path, part: Path, data: bytes, before_it_counts: Callable[[], None] = lambda: None
) -> None:
    try:
        part.write_bytes(data)
        before_it_counts()
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).digest()
