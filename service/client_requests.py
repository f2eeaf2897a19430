"""Calls: how both clients ask; which address, which headers, which parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict
from urllib.parse import quote

import httpx

from service.client_exchange import Exchange

_MOST_PORT = 65_535


class Parameters(TypedDict, total=False):
    """How to paint; what is left out, or None, is the service's own choice.

    ``max_side`` is the longer side of the answer in px; ``keep_colors`` paints the brightness only;
    ``strength`` is 0 for the photograph to 1 for the painting; ``seed`` varies generators that take
    noise; ``format`` is ``jpeg``, ``png`` or ``webp``, else that of the photograph; ``quality`` is
    1 to 100, of JPEG and WebP.
    """

    max_side: int | None
    keep_colors: bool | None
    strength: float | None
    seed: int | None
    format: str | None
    quality: int | None


class Calls:
    """The calls that both clients make, ready to be carried out.

    Raises:
        ValueError: there can be no such address, key or number of attempts.
    """

    def __init__(self, url: str, key: str | None, timeout_s: float | None, attempts: int) -> None:
        if attempts < 1:
            raise ValueError(f"attempts={attempts}: at least one is needed")
        _check_address(url)
        self._url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._attempts = attempts
        self._headers = {"User-Agent": "atelier-client"}
        if key:
            if not (key.isascii() and key.isprintable()):
                raise ValueError("the API key holds characters that no key has")
            self._headers["Authorization"] = f"Bearer {key}"

    def styles(self) -> Exchange:
        return self._exchange("GET", "/styles")

    def preview(self, style: str) -> Exchange:
        return self._exchange("GET", f"/styles/{quote(style, safe='')}/preview")

    def stylize(
        self,
        image: bytes | Path,
        style: str,
        parameters: Parameters,
        timeout_s: float | None,
    ) -> Exchange:
        given = {name: value for name, value in parameters.items() if value is not None}
        query = {
            name: str(value).lower() if isinstance(value, bool) else str(value)
            for name, value in given.items()
        }
        return self._exchange(
            "POST",
            "/stylize",
            timeout_s=timeout_s,
            params={"style": style, **query},
            # The service goes by the bytes; any picture's type says that the body is one.
            headers={"Content-Type": "image/jpeg"},
            content=image.read_bytes() if isinstance(image, Path) else image,
        )

    def _exchange(
        self, method: str, path: str, *, timeout_s: float | None = None, **content: Any
    ) -> Exchange:
        headers = self._headers | content.pop("headers", {})
        request = httpx.Request(method, self._url + path, headers=headers, **content)
        allowed_s = self._timeout_s if timeout_s is None else timeout_s
        # For a caller who allows any time, too, silence ends at some point.
        request.extensions["timeout"] = httpx.Timeout(allowed_s or 600.0).as_dict()
        return Exchange(request, attempts=self._attempts, allowed_s=allowed_s)


def _check_address(url: str) -> None:
    try:
        address = httpx.URL(url)
    except httpx.InvalidURL:
        address = httpx.URL()
    if address.scheme not in ("http", "https") or not address.host:
        raise ValueError(f"{url} is no address such as http://127.0.0.1:8000")
    if (address.port or 0) > _MOST_PORT:
        raise ValueError(f"{url}: there is no port above {_MOST_PORT}")
