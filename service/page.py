"""The page at / for people: files of service/static, and what a browser may do with them."""

from __future__ import annotations

import hashlib
import html
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI
    from starlette.requests import Request

    from service.settings import Settings

STATIC = Path(__file__).parent / "static"
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "media-src 'self' blob:",
        "connect-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        # Nothing that came from elsewhere can become markup or script.
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_INDEX = "index.html"
_LIVE = "live.js"  # the page's part for moving pictures
_FACTS = "{{facts}}"
_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HEADERS = {
    # Files refer to each other by name: a browser asks each time whether it holds the same ones.
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
}
_OF_THE_PAGE = {
    "Content-Security-Policy": POLICY,
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
}


@dataclass(frozen=True, slots=True, eq=False)
class _File:
    body: bytes
    headers: Mapping[str, str]

    @classmethod
    def of(cls, body: bytes, suffix: str, **headers: str) -> _File:
        etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        own = {"Content-Type": _MEDIA_TYPES[suffix], "ETag": etag}
        return cls(body, {**_HEADERS, **own, **headers})

    async def show(self, request: Request) -> Response:
        """Answer with the file, or 304 where the client holds the same already."""
        held = request.headers.get("if-none-match", "")
        tags = {tag.strip().removeprefix("W/") for tag in held.split(",")}
        if tags & {self.headers["ETag"], "*"}:
            return Response(status_code=304, headers=self.headers)
        return Response(self.body, headers=self.headers)


def add_page(app: FastAPI, settings: Settings, *, live: bool) -> None:
    """Serve the page under / and its files under /static, all held in memory.

    They refer to each other, and to the service, by relative URLs alone: whatever path prefix a
    proxy puts before them, they need not know it.

    Args:
        app: where to.
        settings: every knob.
        live: whether the application paints moving pictures, too.
    """
    index = (STATIC / _INDEX).read_text(encoding="utf-8")
    facts = html.escape(json.dumps(page_facts(settings, live=live)))
    page = _File.of(index.replace(_FACTS, facts).encode(), ".html", **_OF_THE_PAGE)
    app.add_route("/", page.show, include_in_schema=False)
    for path in STATIC.iterdir():
        if path.name != _INDEX and path.suffix in _MEDIA_TYPES:
            file = _File.of(path.read_bytes(), path.suffix)
            app.add_route(f"/static/{path.name}", file.show, include_in_schema=False)


def page_facts(settings: Settings, *, live: bool) -> dict[str, int | bool]:
    """What the page has to know of this service before anyone asks it anything."""
    return {
        "default_max_side_px": settings.default_max_side_px,
        "max_side_px": settings.max_side_px,
        "max_body_bytes": settings.max_body_bytes,
        "live": live and (STATIC / _LIVE).exists(),
    }
