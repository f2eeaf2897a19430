"""LimitedConnection: cuts off connections that take without giving, which uvicorn does not."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.alarms import Alarm

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

MAX_HEAD_BYTES = 64 * 2**10
LAST_CALL_S = 0.5
"""How long a connection without a request stays when the server ends; one may be on its way."""


class LimitedConnection(HttpToolsProtocol):
    """An HTTP connection that is always either served, or has a limited time to move on.

    uvicorn's one timer runs between requests and ends with the first byte of the next. Here a
    head has to be complete ``head_timeout_s`` after the connection is made or its first byte
    comes, and so has the rest of a body that goes on after its answer. A client that takes longer
    than ``send_timeout_s`` for what it was sent is cut off.

    Nor does it lose a request to the end of the server, as uvicorn does that closes a connection
    whose request has not arrived yet: while the server leaves, each answer closes its connection,
    and the others are closed when nothing has come for ``LAST_CALL_S``.

    Args:
        head_timeout_s: for a whole head, or the rest of a refused body.
        send_timeout_s: for what was written at once.
        max_connections: at once; those that come then are cut off, before open files run out.
        on_cut: told the reason of each cut: ``slow-sender``, ``large-head``, ``slow-reader`` or
            ``too-many``.
        is_leaving: whether the server takes leave of its clients.
        **options: uvicorn's own.
    """

    def __init__(
        self,
        *,
        head_timeout_s: float,
        send_timeout_s: float,
        max_connections: int,
        on_cut: Callable[[str], None],
        is_leaving: Callable[[], bool],
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._max_connections = max_connections
        self._on_cut = on_cut
        self._is_leaving = is_leaving
        self._patience = Alarm(self.loop, head_timeout_s, lambda: self._cut("slow-sender"))
        self._reader_patience = Alarm(self.loop, send_timeout_s, self._cut_slow_reader)
        self._last_call = Alarm(self.loop, LAST_CALL_S, self._leave_if_idle)
        self._shutting_down = False
        self._handed_over = False
        self._in_head = False
        self._head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self._patience.start()
        if len(self.connections) > self._max_connections:
            self._cut("too-many")

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers, lest they keep the connection in memory."""
        self._stop_timers()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, and see that something is waited for afterwards."""
        super().data_received(data)
        if self.transport.is_closing() or self._handed_over:
            return
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:  # which llhttp would collect without end
                self._cut("large-head")
        elif self._is_idle() and self.timeout_keep_alive_task is None:
            self._patience.start()  # blank lines stop uvicorn's timer and begin no request

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0
        self._patience.start()

    def on_headers_complete(self) -> None:
        """A head is complete, and its body may follow."""
        self._in_head = False
        self._patience.stop()
        super().on_headers_complete()
        cycle: RequestResponseCycle | None = self.cycle  # none where a WebSocket begins
        if cycle is not None and (self._shutting_down or self._is_leaving()):
            cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """A body is complete, maybe after its answer."""
        super().on_message_complete()
        self._patience.stop()
        if self._is_idle() and self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over to what speaks WebSocket, and watch it no longer."""
        self._handed_over = True
        self._stop_timers()
        super().handle_websocket_upgrade()

    def on_response_complete(self) -> None:
        """An answer is written, if not yet taken."""
        super().on_response_complete()
        if not self.flow.write_paused:
            self._reader_patience.start_again()

    def shutdown(self) -> None:
        """Finish what has begun, and leave the client a moment to begin."""
        self._shutting_down = True
        if self._is_idle():
            self._last_call.start()
        else:
            super().shutdown()

    def pause_writing(self) -> None:
        """More is written than the client takes at once."""
        super().pause_writing()
        self._reader_patience.start_again()

    def resume_writing(self) -> None:
        """The client has taken most of it."""
        super().resume_writing()
        self._reader_patience.stop()

    def _stop_timers(self) -> None:
        self._patience.stop()
        self._reader_patience.stop()
        self._last_call.stop()
        self._unset_keepalive_if_required()

    def _is_idle(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or cycle.response_complete

    def _leave_if_idle(self) -> None:
        if self._is_idle() and not self._in_head:
            self.transport.close()

    def _cut_slow_reader(self) -> None:
        if self.transport.get_write_buffer_size() and (self.flow.write_paused or self._is_idle()):
            self._cut("slow-reader")

    def _cut(self, reason: str) -> None:
        self._on_cut(reason)
        self.transport.abort()  # to close is to wait until all is sent


def limited_connections(
    *,
    head_timeout_s: float,
    send_timeout_s: float,
    max_connections: int,
    on_cut: Callable[[str], None],
    is_leaving: Callable[[], bool] = lambda: False,
) -> Any:
    """What uvicorn calls for each connection."""
    return functools.partial(
        LimitedConnection,
        head_timeout_s=head_timeout_s,
        send_timeout_s=send_timeout_s,
        max_connections=max_connections,
        on_cut=on_cut,
        is_leaving=is_leaving,
    )
