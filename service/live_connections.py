"""LiveConnection: a WebSocket that ends when the server does, and that no client can hold open."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from service.alarms import Alarm

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from uvicorn._types import ASGIReceiveEvent, ASGISendEvent

CUT_OFF = 1006
"""The code that the application then gets; no client can send it."""

GOING_AWAY = 1001
SERVER_LEAVES = "the server goes away; connect again"
"""What the application gets with that code in place of a message, and the client with the close."""

_LAST_WORDS_S = 2.0
"""How long a client has to take what was sent last, once its connection ends."""

# A read brings up to 256 KiB, which may be one frame, or forty thousand without anything in them.
_PIECE_BYTES = 8 * 2**10
_REST = 9
"""How many times as long its connection rests as a piece took: a tenth of the time is its."""


class LiveConnection(WebSocketsSansIOProtocol):
    """A WebSocket of uvicorn's that is cut off where its client does not read.

    uvicorn closes a connection only once all is sent, which a client that does not read can put
    off for ever. Here one that takes longer than ``send_timeout_s`` for most of what waits is cut
    off, and one that ends has ``_LAST_WORDS_S`` for the rest. When the server ends, clients are
    told so (1001) rather than that it begins again (1012).

    Nor does it let a client that sends thousands of small messages hold up all others: what came is
    taken in pieces, and after each the connection rests in proportion to what that took.

    Args:
        send_timeout_s: for what waits to be sent.
        on_cut: told ``slow-reader`` at each cut.
        **options: uvicorn's own.
    """

    def __init__(
        self, *, send_timeout_s: float, on_cut: Callable[[str], None], **options: Any
    ) -> None:
        super().__init__(**options)
        self._on_cut = on_cut
        self._reader_patience = Alarm(self.loop, send_timeout_s, self._cut)
        self._last_words = Alarm(self.loop, _LAST_WORDS_S, self._cut)
        self._unread = bytearray()
        self._rest: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers, lest they keep the connection in memory."""
        self._reader_patience.stop()
        self._last_words.stop()
        if self._rest is not None:
            self._rest.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came, now or after what came before."""
        self._unread += data
        if self._rest is None:
            self._take_piece()
        else:
            self._stop_reading()

    async def receive(self) -> ASGIReceiveEvent:
        """Give the next message, and read on once there is none left."""
        message = await self.queue.get()
        self._read_on()
        return message

    def pause_writing(self) -> None:
        """More is written than the client takes at once."""
        super().pause_writing()
        self._reader_patience.start()

    def resume_writing(self) -> None:
        """The client has taken most of it."""
        super().resume_writing()
        self._reader_patience.stop()

    def keepalive_timeout(self) -> None:
        """A client does not answer pings: close the connection."""
        super().keepalive_timeout()
        self._last_words.start()

    async def send(self, message: ASGISendEvent) -> None:
        """Send a message, or say that it is too late, which uvicorn takes for a fault."""
        await self.writable.wait()
        if self.close_sent and self.initial_response is None:
            raise ClientDisconnected
        await super().send(message)

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        """The application has nothing more to say."""
        super().on_task_complete(task)
        if self in self.connections:
            self._last_words.start()

    def shutdown(self) -> None:
        """Take leave of the client, and tell the application."""
        if self.handshake_complete and not self.close_sent:
            self.stop_keepalive()
            self.queue.put_nowait(
                {"type": "websocket.disconnect", "code": GOING_AWAY, "reason": SERVER_LEAVES}
            )
            self.conn.send_close(GOING_AWAY, SERVER_LEAVES)
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.close_sent = True
            self.transport.close()
        else:
            super().shutdown()
        self._last_words.start()

    def _take_piece(self) -> None:
        piece = bytes(self._unread[:_PIECE_BYTES])
        del self._unread[:_PIECE_BYTES]
        self._rest = None
        began_s = time.thread_time()  # other threads' turns are not this client's fault
        super().data_received(piece)
        if self._unread and not self.transport.is_closing():
            self._stop_reading()
            rest_s = _REST * (time.thread_time() - began_s)
            self._rest = self.loop.call_later(rest_s, self._take_piece)
        else:
            self._read_on()

    def _stop_reading(self) -> None:
        if not self.read_paused and not self.transport.is_closing():
            self.read_paused = True
            self.transport.pause_reading()

    def _read_on(self) -> None:
        if self.read_paused and self._rest is None and self.queue.empty():
            self.read_paused = False
            self.transport.resume_reading()

    def _cut(self) -> None:
        if self.transport.get_write_buffer_size():
            self._on_cut("slow-reader")
        self.queue.put_nowait({"type": "websocket.disconnect", "code": CUT_OFF})
        self.transport.abort()  # to close is to wait until all is sent


def live_connections(*, send_timeout_s: float, on_cut: Callable[[str], None]) -> Any:
    """What uvicorn calls for each connection that becomes a WebSocket."""
    return functools.partial(LiveConnection, send_timeout_s=send_timeout_s, on_cut=on_cut)
