"""Residents: the painters of a zoo, and the memory that they may hold together."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from service.runtimes import Painter


class Residents:
    """Painters by network, within a budget of memory.

    A painter that keeps the memory of its last pass is faster at its next, so each keeps it until
    another needs room; then that which has painted longest ago gives its back first. Painters that
    share one pool of memory keep none of their own.

    Any thread may ask for anything.

    Args:
        painters: by network.
        budget_bytes: what all passes together may hold; a single pass may exceed it.
    """

    def __init__(self, painters: dict[str, Painter], budget_bytes: int) -> None:
        # Never changed, only replaced: other threads look into it meanwhile.
        self._painters = painters
        self._changing = threading.Lock()
        self._budget_bytes = budget_bytes
        # By network and kind of pass, the last used last.
        self._held_bytes: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._running: Counter[tuple[str, str]] = Counter()
        self._holding = threading.Lock()

    def __len__(self) -> int:
        return len(self._painters)

    def __getitem__(self, network: str) -> Painter:
        return self._painters[network]

    def __contains__(self, network: str) -> bool:
        return network in self._painters

    def add(self, painters: Mapping[str, Painter]) -> None:
        """Take in more."""
        with self._changing:
            self._painters = {**self._painters, **painters}

    def keep(self, networks: Collection[str]) -> bool:
        """Let go of every painter but those of ``networks``.

        Returns:
            Whether any went.
        """
        with self._changing:
            before = self._painters
            kept = {name: p for name, p in before.items() if name in networks}
            self._painters = kept
        with self._holding:
            for key in [key for key in self._held_bytes if key[0] not in kept]:
                del self._held_bytes[key]
        return len(kept) < len(before)

    @contextmanager
    def room(self, network: str, kind: str, needed_bytes: float) -> Iterator[None]:
        """Run a pass that needs so much, of some kind of its own memory, within the budget."""
        key = network, kind
        with self._holding:
            self._running[key] += 1
            # Passes of one kind that run beside each other have each its own.
            self._make_room(key, needed_bytes * self._running[key])
        try:
            yield
        finally:
            with self._holding:
                self._running[key] -= 1

    def release_all(self) -> None:
        """Give all back that passes have left behind, once those that run have ended."""
        with self._holding:
            for painter in self._painters.values():
                painter.release_memory()
            self._held_bytes.clear()

    def _make_room(self, key: tuple[str, str], needed_bytes: float) -> None:
        network, _ = key
        painter = self._painters.get(network)  # None where another thread has let it go
        if painter is None or not painter.keeps_memory:
            return
        held_bytes = max(needed_bytes, self._held_bytes.pop(key, 0.0))
        while self._held_bytes and sum(self._held_bytes.values()) > self._budget_bytes - held_bytes:
            (oldest, _), _ = self._held_bytes.popitem(last=False)
            self._release(oldest)
            if oldest == network:
                held_bytes = needed_bytes
        self._held_bytes[key] = held_bytes

    def _release(self, network: str) -> None:
        if painter := self._painters.get(network):
            painter.release_memory()  # of every kind
        for key in [key for key in self._held_bytes if key[0] == network]:
            del self._held_bytes[key]
