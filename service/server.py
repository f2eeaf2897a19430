"""Server: uvicorn with a drain before its end, and an end when nothing can be painted any more."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import math
import os
import socket
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

    Nor are connections lost that the kernel has made and uvicorn has not taken yet.

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

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take the connections that wait in the backlog, close the socket, finish the rest."""
        # Nothing is awaited until the socket is shut: meanwhile more could come.
        waiting = [connection for listener in sockets or () for connection in _take_all(listener)]
        for server in self.servers:
            server.close()
        loop = asyncio.get_running_loop()
        for connection in waiting:
            with contextlib.suppress(OSError):  # it has left again
                await loop.connect_accepted_socket(self._make_protocol, connection)
        # Just before uvicorn cancels what then still runs, and says so to nobody.
        timeout_s = self.config.timeout_graceful_shutdown
        alarm = loop.call_later(math.inf if timeout_s is None else timeout_s, self._note_unfinished)
        await super().shutdown(sockets)
        alarm.cancel()

    def _note_unfinished(self) -> None:
        if running := len(self.server_state.tasks):
            self._lifecycle.unfinished = True
            fields = {"cut_requests": running, "waited_s": self.config.timeout_graceful_shutdown}
            logger.error("shutdown_unfinished", extra={"fields": fields})

    def _make_protocol(self) -> asyncio.Protocol:
        protocol: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol

    def _end_if_lost(self) -> None:
        if self._lifecycle.look() is None:
            self._lost_since_s = None
            return
        now = time.monotonic()
        self._lost_since_s = self._lost_since_s or now
        if self._exit_when_lost and now - self._lost_since_s >= _LAST_WORDS_S:
            os._exit(EXIT_DEVICE_LOST)


def _take_all(listener: socket.socket) -> list[socket.socket]:
    """Accept what waits at ``listener``, which does not block, and let nothing more wait."""
    taken = []
    with contextlib.suppress(OSError):  # none waits, or no more files may be opened
        while True:
            taken.append(listener.accept()[0])
    with contextlib.suppress(OSError):  # not every system shuts down what only listens
        listener.shutdown(socket.SHUT_RDWR)
    for connection in taken:
        connection.setblocking(False)
    return taken


def _log_in_signal_handler(event: str, fields: dict[str, int]) -> None:
    """Write one line past logging, whose locks and buffers the interrupted code may hold."""
    record = logger.makeRecord(logger.name, logging.WARNING, "", 0, event, (), None)
    record.fields = fields
    # In a context of its own: it is not about the request that the signal interrupted.
    line = contextvars.Context().run(JsonFormatter().format, record)
    os.write(sys.stderr.fileno(), line.encode() + b"\n")
