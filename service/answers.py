"""PictureResponse: an answer that is written as fast as its client reads it, and no faster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import Response

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

CHUNK_BYTES = 256 * 2**10


class PictureResponse(Response):
    """Lets the server wait for the client between parts, so that no answer piles up unread."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send the body in parts, each once the client has taken most of the last."""
        start = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **start})
        body = memoryview(self.body)
        for begin in range(0, len(body), CHUNK_BYTES):
            part = bytes(body[begin : begin + CHUNK_BYTES])
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
