"""GET /live, a WebSocket: who may come in, and how sessions end; what they do is service.live's."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect, WebSocketState

from service.access import Access, client_name, keys_in
from service.errors import (
    ForbiddenError,
    MalformedRequestError,
    ServiceError,
    UploadTimeoutError,
)
from service.live import LiveSession, Tally
from service.live_channel import SessionEnd
from service.live_connections import CUT_OFF
from service.live_messages import GOING_AWAY, NORMAL_CLOSURE, error_message, read_start
from service.logs import accept_request_id, continue_request
from service.problems import ProblemResponse, problem_document

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.lifecycle import Lifecycle
    from service.live_hall import LiveHall
    from service.live_messages import LiveParameters
    from service.live_painter import LivePainter
    from service.metrics import Metrics
    from service.settings import Settings

logger = logging.getLogger(__name__)

_LAST_WORDS_S = 2.0
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}

router = APIRouter()


@router.websocket("/live")
async def live(websocket: WebSocket) -> None:
    """Paint a camera's frames; docs/live.md has the protocol."""
    request_id = accept_request_id(websocket.headers)
    ids = {"x-request-id": request_id, "traceparent": websocket.headers.get("traceparent", "")}
    with continue_request(ids):
        visit = _Visit(websocket, request_id)
        try:
            check_origin(websocket, websocket.app.state.settings.origins)
        except ForbiddenError as error:
            document = problem_document(error, instance="/live", request_id=request_id)
            headers = {"X-Request-ID": request_id}
            refusal = ProblemResponse(document, status_code=error.status, headers=headers)
            await websocket.send_denial_response(refusal)
            visit.end = SessionEnd.of(error)
        else:
            await websocket.accept(headers=[(b"x-request-id", request_id.encode())])
            await visit.run()
        finally:
            visit.record()


def check_origin(websocket: WebSocket, origins: Sequence[str]) -> None:
    """See that no page of another site makes a browser connect, unless it is one of ``origins``.

    Raises:
        ForbiddenError: one does.
    """
    origin = websocket.headers.get("origin")
    if origin is None or "*" in origins or origin in origins:  # none: it is no browser
        return
    scheme, netloc = urlsplit(origin)[:2]
    own = websocket.headers.get("host", "").lower()
    if own and own.removesuffix(_DEFAULT_PORTS.get(scheme, "")) == netloc.lower():
        return
    raise ForbiddenError(
        f"pages of {origin} may not connect; ATELIER_CORS_ORIGINS names those that may"
    )


class WebSocketChannel:
    """A client's connection, as a session knows it."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket

    async def receive(self) -> str | bytes:
        """Give the next message; raises SessionEnd when there is none."""
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            code = message.get("code") or NORMAL_CLOSURE
            raise SessionEnd(self._reason(code), code)
        text: str | None = message.get("text")
        data: bytes | None = message.get("bytes")
        return text if text is not None else data or b""

    async def send(self, message: str | bytes) -> None:
        """Send ``message``; raises SessionEnd where the client has gone."""
        send: Any = (
            self._websocket.send_text if isinstance(message, str) else self._websocket.send_bytes
        )
        try:
            await send(message)
        except WebSocketDisconnect as error:
            raise SessionEnd(self._reason(error.code), error.code) from error

    def _reason(self, code: int) -> str:
        # A browser, too, sends GOING_AWAY when its page is left.
        if code == GOING_AWAY and self._websocket.app.state.lifecycle.is_leaving:
            return "server-left"
        return "slow-reader" if code == CUT_OFF else "client-left"


@dataclass(slots=True)
class _Visit:
    """One connection, from the handshake to its log line."""

    websocket: WebSocket
    request_id: str
    end: SessionEnd = field(default_factory=lambda: SessionEnd("cut-off", GOING_AWAY))
    caller: str = ""
    style: str = ""
    tally: Tally = field(default_factory=Tally)
    began_s: float = field(default_factory=time.monotonic)

    async def run(self) -> None:
        """Let the client in, keep its session until that ends, and see the client off."""
        channel = WebSocketChannel(self.websocket)
        try:
            self.end = await self._keep_session(channel)
        except ServiceError as error:
            self.end = SessionEnd.of(error)
        except SessionEnd as end:
            self.end = end
        if self.websocket.application_state is not WebSocketState.CONNECTED:
            return  # the client has gone
        with contextlib.suppress(SessionEnd, TimeoutError, WebSocketDisconnect):
            async with asyncio.timeout(_LAST_WORDS_S):
                if self.end.error is not None:
                    await channel.send(error_message(self.end.error, request_id=self.request_id))
                await self.websocket.close(self.end.code, self.end.text)

    async def _keep_session(self, channel: WebSocketChannel) -> SessionEnd:
        state = self.websocket.app.state
        lifecycle: Lifecycle = state.lifecycle
        hall: LiveHall = state.live_hall
        painter: LivePainter = state.live_painter
        metrics: Metrics = state.metrics
        settings: Settings = state.settings
        lifecycle.check_ready()
        host = self.websocket.client.host if self.websocket.client else ""
        with hall.wait_at_door(client_name("", host)):
            parameters = await self._greet(channel, settings)
        client = client_name(self.caller, host)
        self.style = painter.label(parameters)
        with hall.enter(client):
            session = LiveSession(
                channel,
                painter,
                settings,
                parameters,
                owner=self.caller,
                request_id=self.request_id,
                on_frame=metrics.count_live_frame,
            )
            state.access.count(client)
            self.tally = session.tally
            try:
                return await session.run()
            finally:
                self.style = painter.label(session.parameters)

    async def _greet(self, channel: WebSocketChannel, settings: Settings) -> LiveParameters:
        """Read the first message, and know the caller by it."""
        access: Access = self.websocket.app.state.access
        try:
            async with asyncio.timeout(settings.head_timeout_s):
                message = await channel.receive()
        except TimeoutError as error:
            raise UploadTimeoutError(
                f"no first message came in {settings.head_timeout_s:g} s; send what to paint"
            ) from error
        if isinstance(message, bytes):
            raise MalformedRequestError("the first message is no text; send what to paint, as JSON")
        key, parameters = read_start(message)
        own = (key,) if key else ()
        self.caller = access.caller((*own, *keys_in(self.websocket.headers)))
        return parameters

    def record(self) -> None:
        """Write the one line of this session, and count what it ended for."""
        slug = self.end.error.slug if self.end.error is not None else ""
        if slug:
            self.websocket.app.state.metrics.count_problem(slug)
        fields = {
            "caller": self.caller,
            "style": self.style,
            "reason": self.end.reason,
            "code": self.end.code,
            "problem": slug,
            "duration_ms": round((time.monotonic() - self.began_s) * 1000, 1),
            "frames": self.tally.received,
            "painted": self.tally.painted,
            "dropped": self.tally.dropped,
            "refused": self.tally.refused,
            "bytes_in": self.tally.bytes_in,
            "bytes_out": self.tally.bytes_out,
        }
        logger.info("live_session_finished", extra={"fields": fields})
