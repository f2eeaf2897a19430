"""Client and AsyncClient: the service from Python. Needs httpx and nothing of the rest.

with Client("http://127.0.0.1:8000") as atelier:
    painted = atelier.stylize(Path("photo.jpg"), "starry-night", max_side=1024)
    Path("painted.jpg").write_bytes(painted.data)
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Self, Unpack, cast

import httpx

from service.client_answers import Style, Stylized, read_picture, read_styles
from service.client_exchange import (
    AtelierError,
    BrokenOffError,
    OutOfTimeError,
    Pause,
    ProblemError,
    UnreachableError,
)
from service.client_requests import Calls, Parameters

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from service.client_exchange import Exchange, Reply

__all__ = [
    "AsyncClient",
    "AtelierError",
    "BrokenOffError",
    "Client",
    "OutOfTimeError",
    "Parameters",
    "ProblemError",
    "Style",
    "Stylized",
    "UnreachableError",
]


class Client:
    """The service, for code that waits; safe to share between threads.

    Args:
        url: of the service, with a path prefix where it has one.
        key: an API key, where the service asks for one.
        timeout_s: for a call with all its attempts; None: as long as it takes.
        attempts: how often a call is sent where the service is unreachable, or busy (429, 503)
            without a word on for how long; where it asks for a pause, as often as time allows.
        transport: for tests.

    Raises:
        ValueError: one of them cannot be.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        timeout_s: float | None = 60.0,
        attempts: int = 4,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._calls = Calls(url, key, timeout_s, attempts)
        self._http = httpx.Client(transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the connections go."""
        self._http.close()

    def styles(self) -> list[Style]:
        """Every style, in the service's order.

        Raises:
            AtelierError: no answer, or an error.
        """
        return read_styles(self._carry_out(self._calls.styles()))

    def preview(self, style: str) -> bytes:
        """A JPEG that ``style`` painted.

        Raises:
            AtelierError: no answer, or an error.
        """
        return self._carry_out(self._calls.preview(style)).content

    def stylize(
        self,
        image: bytes | Path,
        style: str,
        *,
        timeout_s: float | None = None,
        **parameters: Unpack[Parameters],
    ) -> Stylized:
        """Paint a photograph.

        Args:
            image: a file's bytes, or where it lies.
            style: id of a style, or a mixture as ``a:0.6,b:0.4``.
            timeout_s: for this call, in place of the client's.
            parameters: see :class:`Parameters`.

        Raises:
            AtelierError: no answer, or an error.
            OSError: the file cannot be read.
        """
        return read_picture(
            self._carry_out(self._calls.stylize(image, style, parameters, timeout_s))
        )

    def _carry_out(self, exchange: Exchange) -> httpx.Response:
        steps = exchange.steps()
        answer: Reply = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as end:
                return cast("httpx.Response", end.value)
            if isinstance(step, Pause):
                time.sleep(step.seconds)
                answer = None
            else:
                try:
                    answer = self._http.send(step)
                except httpx.RequestError as error:
                    answer = error


class AsyncClient:
    """The same for asyncio; arguments and methods are those of :class:`Client`."""

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        timeout_s: float | None = 60.0,
        attempts: int = 4,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._calls = Calls(url, key, timeout_s, attempts)
        self._http = httpx.AsyncClient(transport=transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Let the connections go."""
        await self._http.aclose()

    async def styles(self) -> list[Style]:
        """As :meth:`Client.styles`."""
        return read_styles(await self._carry_out(self._calls.styles()))

    async def preview(self, style: str) -> bytes:
        """As :meth:`Client.preview`."""
        answer = await self._carry_out(self._calls.preview(style))
        return answer.content

    async def stylize(
        self,
        image: bytes | Path,
        style: str,
        *,
        timeout_s: float | None = None,
        **parameters: Unpack[Parameters],
    ) -> Stylized:
        """As :meth:`Client.stylize`."""
        return read_picture(
            await self._carry_out(self._calls.stylize(image, style, parameters, timeout_s))
        )

    async def _carry_out(self, exchange: Exchange) -> httpx.Response:
        steps = exchange.steps()
        answer: Reply = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as end:
                return cast("httpx.Response", end.value)
            if isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
                answer = None
            else:
                try:
                    answer = await self._http.send(step)
                except httpx.RequestError as error:
                    answer = error
