"""Folders: which photographs are meant, and what the painting of each is called. Opens none."""

from __future__ import annotations

import os
import stat
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from service.formats import FORMATS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

# Those that cannot be read are tried, too: whoever has some should hear of it.
_OTHER_SUFFIXES = ("jpeg", "jpe", "jfif", "heic", "heif", "jxl", "jp2", "tif", "tiff", "bmp")
PICTURE_SUFFIXES = frozenset({*(row.suffix for row in FORMATS.values()), *_OTHER_SUFFIXES})
"""What a file in a folder must be called to be taken for a photograph, in any case."""


class NamesError(Exception):
    """Two photographs would be painted into one file."""


@dataclass(frozen=True, slots=True)
class Photograph:
    """A file to paint; ``stem`` is where its painting belongs in the folder of all, no suffix."""

    path: Path
    stem: str


def find_photographs(
    paths: Sequence[Path], out: Path, on_unreadable: Callable[[Path, OSError], None]
) -> Iterator[Photograph]:
    """Find the photographs of files and, one folder after the other, of all folders below.

    A folder that is alone is mirrored into ``out``; of several paths each folder keeps its name.
    Nothing hidden is looked at, no link to a folder followed, and not what is in ``out``.

    Args:
        paths: files, whatever they are called, and folders.
        out: the folder of the paintings.
        on_unreadable: told of folders that cannot be listed.

    Raises:
        NamesError: two paths have the same name.
    """
    folders = [path for path in paths if is_folder(path)]
    files = [path for path in paths if path not in folders]
    _check_names([path.name for path in files])
    _check_names([path.resolve().name for path in folders])
    stems = stems_of([path.name for path in files])
    yield from (Photograph(path, stems[path.name]) for path in files)
    for folder in folders:
        prefix = PurePath() if len(paths) == 1 else PurePath(folder.resolve().name)
        yield from _walk(folder, prefix, os.path.realpath(out), on_unreadable)


def is_folder(path: str | Path) -> bool:
    """Whether it is one; what cannot be looked at is none, and says why when it is read."""
    return os.path.isdir(path)  # noqa: PTH112  # Path.is_dir raises where a name is too long


def stems_of(names: Collection[str]) -> Mapping[str, str]:
    """What the paintings of photographs in one folder are called, before the format's suffix.

    A photograph's name without its own suffix; where that would be of two, the whole name of each.
    """
    stems = {name: PurePath(name).stem for name in names}
    # As a file system compares names that knows no case.
    times = Counter(stem.casefold() for stem in stems.values())
    whole = {name.casefold() for name in names}
    return {
        name: stem if times[stem.casefold()] == 1 and stem.casefold() not in whole else name
        for name, stem in stems.items()
    }


def _check_names(names: Sequence[str]) -> None:
    for name, times in Counter(names).items():
        if times > 1:
            raise NamesError(f"{times} of what is to be painted are called {name}; run them apart")


def _walk(
    root: Path, prefix: PurePath, out: str, on_unreadable: Callable[[Path, OSError], None]
) -> Iterator[Photograph]:
    waiting = [(root, prefix)]
    while waiting:
        folder, place = waiting.pop()
        if os.path.realpath(folder) == out:
            continue
        try:
            files, subfolders = _list(folder)
        except OSError as error:
            on_unreadable(folder, error)
            continue
        for name, stem in stems_of(files).items():
            yield Photograph(folder / name, (place / stem).as_posix())
        waiting += [(folder / name, place / name) for name in reversed(subfolders)]


def _list(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the photographs and of the folders in ``folder``, sorted."""
    files, subfolders = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                subfolders.append(entry.name)
            elif PurePath(entry.name).suffix[1:].lower() not in PICTURE_SUFFIXES:
                continue
            elif not _waits_for_a_writer(entry):
                files.append(entry.name)
    return sorted(files), sorted(subfolders)


def _waits_for_a_writer(entry: os.DirEntry[str]) -> bool:
    """Whether to read it could take for ever, as of a named pipe."""
    try:
        return stat.S_ISFIFO(entry.stat().st_mode)
    except OSError:  # of which whoever reads it will hear
        return False
