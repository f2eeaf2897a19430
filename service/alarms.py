"""Alarm: a timer that is started and stopped again and again."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


class Alarm:
    """A timer that is started and stopped again and again."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, after_s: float, ring: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._after_s = after_s
        self._ring = ring
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Ring after the time from now, unless that is running already."""
        if self._handle is None:
            self._handle = self._loop.call_later(self._after_s, self._on_time)

    def start_again(self) -> None:
        """Ring after the time from now."""
        self.stop()
        self.start()

    def stop(self) -> None:
        """Do not ring."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _on_time(self) -> None:
        self._handle = None
        self._ring()
