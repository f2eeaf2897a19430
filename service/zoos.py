"""Zoos: the one that is served, and those before it that requests still paint with."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model_zoo.cards import Manifest, ZooError, file_sha256

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True, eq=False)
class Zoo:
    """What was on disk at one moment, verified.

    ``manifest_sha256`` tells whether the manifest has changed since. ``previews`` are a few tens
    of kB each, and kept since an export may replace the files at any time.
    """

    manifest: Manifest
    previews: Mapping[str, bytes]
    manifest_sha256: str

    @classmethod
    def read(cls, folder: Path) -> Zoo:
        """Read a zoo and compare its files with their checksums.

        Raises:
            ZooError: it is empty or damaged; the message names the file.
        """
        # Before the manifest itself: what is written in between is then seen as a change.
        sha256 = manifest_sha256(folder)
        manifest = Manifest.read(folder)
        if not len(manifest):
            raise ZooError(f"{folder / 'manifest.toml'}: holds no style; export one first")
        try:
            manifest.verify()
            previews = {
                card.style_id: manifest.preview_path(card).read_bytes() for card in manifest
            }
        except OSError as error:
            raise ZooError(f"{error.filename}: cannot be read: {error.strerror}") from error
        return cls(manifest, previews, sha256)

    @property
    def digest(self) -> str:
        """Names what it holds: the manifest has the checksums of the weights."""
        return self.manifest_sha256[:16]

    @property
    def networks(self) -> frozenset[str]:
        """The networks that paint its styles."""
        return frozenset(card.network for card in self.manifest)


class Zoos:
    """Which zoo a request that comes now paints with, and which are in use.

    A request keeps the zoo that it began with, whatever is served since. Belongs to one event
    loop; it takes no lock.
    """

    def __init__(self, zoo: Zoo) -> None:
        self.current = zoo
        self.on_retired: Callable[[], None] = lambda: None
        """Told when the last request with a zoo of before has ended."""
        self._users: Counter[Zoo] = Counter()

    def serve(self, zoo: Zoo) -> None:
        """Give ``zoo`` to every request from now on."""
        self.current = zoo

    @contextmanager
    def use(self) -> Iterator[Zoo]:
        """Hold the present zoo for the length of the block: its networks stay loaded."""
        zoo = self.current
        self._users[zoo] += 1
        try:
            yield zoo
        finally:
            self._users[zoo] -= 1
            if not self._users[zoo]:
                del self._users[zoo]
                if zoo is not self.current:
                    self.on_retired()

    @property
    def networks(self) -> frozenset[str]:
        """The networks of every zoo in use."""
        return frozenset().union(*(zoo.networks for zoo in {self.current, *self._users}))


def manifest_sha256(folder: Path) -> str:
    """Checksum of a zoo's manifest as it is on disk.

    Raises:
        ZooError: it cannot be read.
    """
    return file_sha256(folder / "manifest.toml")
