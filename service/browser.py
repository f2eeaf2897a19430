"""What browsers are told that they may not do with answers, and the page of the API."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import TYPE_CHECKING

from fastapi.openapi.docs import get_swagger_ui_html
from starlette.datastructures import MutableHeaders
from starlette.middleware.cors import CORSMiddleware

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_POLICY = "Content-Security-Policy"
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    # No answer is a page that loads anything, whatever a picture may hold.
    _POLICY: "default-src 'none'; frame-ancestors 'none'",
}
"""What every answer has that does not bring its own."""

_SCRIPTS = "https://cdn.jsdelivr.net"
_INLINE_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)
_READABLE = ("X-Request-ID", "Server-Timing", "Retry-After", "RateLimit", "RateLimit-Policy")
_SENDABLE = ("Authorization", "Content-Type", "X-API-Key", "X-Request-ID")


class BrowserHeadersMiddleware:
    """Sets the headers on every answer that does not bring its own."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, send_with_headers)


def allow_origins(app: FastAPI, origins: Sequence[str]) -> None:
    """Let pages of ``origins`` call the service; they have to send a key, cookies do not count."""
    app.add_middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=("GET", "POST"),
        allow_headers=(*_SENDABLE, "X-Request-Timeout-Seconds"),
        expose_headers=_READABLE,
    )


def add_docs(app: FastAPI) -> None:
    """Serve Swagger UI under /docs, allowed nothing but its own files and this service."""

    async def show_docs(request: Request) -> Response:
        prefix = request.scope.get("root_path", "").rstrip("/")
        page = get_swagger_ui_html(
            openapi_url=f"{prefix}{app.openapi_url}", title=app.title, swagger_favicon_url="data:,"
        )
        page.headers[_POLICY] = _docs_policy(bytes(page.body).decode())
        return page

    app.add_route("/docs", show_docs, include_in_schema=False)


def _docs_policy(page: str) -> str:
    digests = [hashlib.sha256(s.encode()).digest() for s in _INLINE_SCRIPT.findall(page)]
    inline = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {_SCRIPTS} {inline}; "
        f"style-src {_SCRIPTS} 'unsafe-inline'; img-src 'self' data: blob:; connect-src 'self'; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )
