"""Residents: the painters of a zoo, and the memory that they may hold together."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from service.runtimes import Painter


class Residents:
    """Painters by network, within a budget of memory.

    A painter that keeps the memory of its last pass is faster at its next, so each keeps it until
    another needs room; then that which has painted longest ago gives its back first, of those that
    are not painting. Painters that share one pool of memory keep none of their own.

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
        self._held: OrderedDict[tuple[str, str], _Held] = OrderedDict()
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
            for key in [key for key in self._held if key[0] not in kept]:
                del self._held[key]
        return len(kept) < len(before)

    @contextmanager
    def room(self, network: str, kind: str, needed_bytes: float) -> Iterator[None]:
        """Run a pass that needs so much, of some kind of its own memory, within the budget."""
        key = network, kind
        try:
            with self._holding:
                self._running[key] += 1
                self._make_room(key, needed_bytes)
            yield
        finally:
            with self._holding:
                self._running[key] -= 1
                if not self._running[key]:
                    del self._running[key]

    def release_all(self) -> None:
        """Give all back that passes have left behind, once those that run have ended."""
        with self._holding:
            for painter in self._painters.values():
                painter.release_memory()
            # Some may have been about to run.
            for key in [key for key in self._held if key not in self._running]:
                del self._held[key]

    def _make_room(self, key: tuple[str, str], needed_bytes: float) -> None:
        network, _ = key
        painter = self._painters.get(network)  # None where another thread has let it go
        if painter is None or not painter.keeps_memory:
            return
        before = self._held.pop(key, _Held(0.0, 0))
        # Passes that run beside each other have each its own, any of which may be the largest.
        at_once = max(before.at_once, self._running[key])
        held = _Held(max(before.pass_bytes, needed_bytes), at_once)
        while held.total_bytes + self._total_bytes() > self._budget_bytes:
            oldest = self._oldest_idle(network)
            if oldest is None:
                break
            self._release(oldest)
            if oldest == network:
                held = _Held(needed_bytes, self._running[key])
        self._held[key] = held

    def _total_bytes(self) -> float:
        return sum(held.total_bytes for held in self._held.values())

    def _oldest_idle(self, network: str) -> str | None:
        """Who holds memory and runs nothing, but for the pass of ``network`` that wants room."""
        passes = Counter({network: -1})
        for (name, _), count in self._running.items():
            passes[name] += count
        return next((name for name, _ in self._held if not passes[name]), None)

    def _release(self, network: str) -> None:
        if painter := self._painters.get(network):
            painter.release_memory()  # of every kind
        for key in [key for key in self._held if key[0] == network]:
            del self._held[key]


@dataclass(frozen=True, slots=True)
class _Held:
    """What passes of one kind left: the most that one took, and the most that ran at once."""

    pass_bytes: float
    at_once: int

    @property
    def total_bytes(self) -> float:
        return self.pass_bytes * self.at_once
