"""Server: uvicorn with a drain before its end, and an end when nothing can be painted any more."""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import TYPE_CHECKING

import uvicorn

from service.logs import JsonFormatter

if TYPE_CHECKING:
    from types import FrameType

    from service.lifecycle import Lifecycle

EXIT_DEVICE_LOST = 3
EXIT_UNFINISHED = 4
_EXIT_SIGNALLED = 128

# Long enough for those who wait to get their 503, and for a probe to see the reason.
_LAST_WORDS_S = 1.0

logger = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """Drains before it closes the socket, greets when ready, and ends when it cannot go on.

    uvicorn closes its socket the moment a signal comes, so that a load balancer which has not yet
    looked at readiness sends requests into the void. The first signal here turns readiness off;
    ``drain_s`` later uvicorn's own graceful end begins. A second signal ends the process at once.

    A thread that hangs in native code cannot be stopped, and Python would wait for it for ever:
    where ``exit_when_lost``, the process ends without, as a supervisor expects.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        lifecycle: Lifecycle,
        *,
        drain_s: float,
        exit_when_lost: bool,
        greeting: str,
    ) -> None:
        super().__init__(config)
        self._lifecycle = lifecycle
        self._drain_s = drain_s
        self._exit_when_lost = exit_when_lost
        self._drain_ends_s: float | None = None
        self._lost_since_s: float | None = None
        self._greeting: str | None = greeting

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Begin to drain; at a second signal end the process."""
        if self._drain_ends_s is not None:
            _log_in_signal_handler("shutdown_forced", {"signal": sig})
            os._exit(_EXIT_SIGNALLED + sig)
        self._lifecycle.drain()
        self._drain_ends_s = time.monotonic() + self._drain_s

    async def on_tick(self, counter: int) -> bool:
        """Look, ten times a second, whether it is time to greet or to stop."""
        if self._greeting and self._lifecycle.is_ready:
            sys.stdout.write(self._greeting)
            sys.stdout.flush()
            self._greeting = None
        self._end_if_lost()
        drained = self._drain_ends_s is not None and time.monotonic() >= self._drain_ends_s
        if drained or self._lifecycle.fault:
            self.should_exit = True
        return await super().on_tick(counter)

    def _end_if_lost(self) -> None:
        if self._lifecycle.look() is None:
            self._lost_since_s = None
            return
        now = time.monotonic()
        self._lost_since_s = self._lost_since_s or now
        if self._exit_when_lost and now - self._lost_since_s >= _LAST_WORDS_S:
            os._exit(EXIT_DEVICE_LOST)


def _log_in_signal_handler(event: str, fields: dict[str, int]) -> None:
    """Write one line past logging, whose locks and buffers the interrupted code may hold."""
    record = logger.makeRecord(logger.name, logging.WARNING, "", 0, event, (), None)
    record.fields = fields
    os.write(sys.stderr.fileno(), JsonFormatter().format(record).encode() + b"\n")
