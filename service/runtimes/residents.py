"""Residents: the painters of a zoo, and the memory that they may hold together."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.runtimes import Painter


class Residents:
    """Painters by style, within a budget of memory.

    A painter that keeps the memory of its last pass is faster at its next, so each keeps it until
    another needs room; then that which has painted longest ago gives its back first.

    Args:
        painters: by style id.
        budget_bytes: what all passes together may hold; a single pass may exceed it.
    """

    def __init__(self, painters: dict[str, Painter], budget_bytes: int) -> None:
        self._painters = painters
        self._budget_bytes = budget_bytes
        self._held_bytes: OrderedDict[str, float] = OrderedDict()  # the last used stands last

    def __len__(self) -> int:
        return len(self._painters)

    def __getitem__(self, style_id: str) -> Painter:
        return self._painters[style_id]

    def make_room(self, style_id: str, needed_bytes: float) -> Painter:
        """Give the painter of ``style_id``, for a pass that needs so much."""
        needed_bytes = max(needed_bytes, self._held_bytes.pop(style_id, 0.0))
        while (
            self._held_bytes and sum(self._held_bytes.values()) + needed_bytes > self._budget_bytes
        ):
            oldest, _ = self._held_bytes.popitem(last=False)
            self._painters[oldest].release_memory()
        self._held_bytes[style_id] = needed_bytes
        return self._painters[style_id]

    def release_all(self) -> None:
        """Give all back that passes have left behind."""
        for style_id in self._held_bytes:
            self._painters[style_id].release_memory()
        self._held_bytes.clear()
