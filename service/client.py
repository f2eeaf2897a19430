"""Client and AsyncClient: the service from Python. Needs httpx and nothing of the rest.

with Client("http://127.0.0.1:8000") as atelier:
    painted = atelier.stylize(Path("photo.jpg"), "starry-night", max_side=1024)
    Path("painted.jpg").write_bytes(painted.data)
"""

from __future__ import annotations

import asyncio
import email.utils
import math
import random
import time
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypedDict, Unpack

import httpx

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import TracebackType

# Worth sending again: both say that the service, not the request, is at fault.
_AGAIN = (429, 503)
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 60.0
# What is added to a request's own time before its connection is given up.
_GRACE_S = 5.0


class AtelierError(Exception):
    """The service cannot be asked, or does not give what it was asked for."""


class UnreachableError(AtelierError):
    """No answer came: the address is wrong, nothing listens there, or the network failed."""


class ProblemError(AtelierError):
    """The service refused or failed; the message is its own sentence on what to do.

    Attributes:
        status: of HTTP.
        type: a URN that names the kind of error and stays the same.
        title: its name in words.
        detail: what happened and what the caller can do.
        request_id: quote it in a report.
        retry_after_s: after how many seconds to try again, where the service said so.
    """

    def __init__(
        self,
        detail: str,
        *,
        status: int,
        type: str = "about:blank",  # noqa: A002  # the member's name in RFC 9457
        title: str = "",
        request_id: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(f"{detail} ({status}{f', request {request_id}' if request_id else ''})")
        self.status = status
        self.type = type
        self.title = title
        self.detail = detail
        self.request_id = request_id
        self.retry_after_s = retry_after_s


class OutOfTimeError(AtelierError):
    """The time that the caller allowed has passed."""


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


@dataclass(frozen=True, slots=True)
class Style:
    """One style of a service; ``preview_url`` is a path on it."""

    id: str
    title: str
    artist: str
    year: str
    description: str
    generator: str
    mixable: bool
    picture_license: str
    weights_license: str
    preview_url: str

    @classmethod
    def of(cls, entry: dict[str, Any]) -> Style:
        """Read an entry of ``GET /styles``; what a newer service adds to it is left out."""
        return cls(**{each.name: entry[each.name] for each in fields(cls)})


@dataclass(frozen=True, slots=True, eq=False)
class Stylized:
    """A painted picture, as a file's bytes."""

    data: bytes = field(repr=False)
    media_type: str
    request_id: str
    stages_ms: dict[str, float]

    @property
    def suffix(self) -> str:
        """What a file of it is called: ``jpg``, ``png`` or ``webp``."""
        return self.media_type.removeprefix("image/").replace("jpeg", "jpg")


@dataclass(frozen=True, slots=True)
class _Pause:
    """Asks whoever drives an exchange to wait."""

    seconds: float


class _Exchange:
    """What to send, when to send it again, and what an answer means; sends nothing itself.

    Args:
        request: to send.
        attempts: how often at most.
        allowed_s: for all of them together; None: for ever.
        clock: gives seconds.
    """

    def __init__(
        self,
        request: httpx.Request,
        *,
        attempts: int,
        allowed_s: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._request = request
        self._attempts = attempts
        self._allowed_s = allowed_s
        self._clock = clock

    def steps(self) -> Generator[httpx.Request | _Pause, Any, httpx.Response]:
        """Yield requests to send and pauses to make; take answers or transport errors back.

        Raises:
            AtelierError: no good answer came.
        """
        ends_s = math.inf if self._allowed_s is None else self._clock() + self._allowed_s
        for attempt in range(1, self._attempts + 1):
            error: AtelierError
            self._limit(ends_s)
            answer = yield self._request
            if isinstance(answer, httpx.Response):
                if answer.is_success:
                    return answer
                error = _problem(answer)
                if answer.status_code not in _AGAIN:
                    raise error
            else:
                error = _unreachable(self._request, answer)
                if not isinstance(answer, httpx.ConnectError | httpx.RemoteProtocolError):
                    raise error from answer
            pause_s = _pause_s(error, attempt)
            if attempt == self._attempts or self._clock() + pause_s >= ends_s:
                raise error
            yield _Pause(pause_s)
        raise AssertionError("attempts is at least 1")

    def _limit(self, ends_s: float) -> None:
        """Tell the service, and the connection, how much time is left."""
        if ends_s == math.inf:
            return
        left_s = ends_s - self._clock()
        self._request.headers["X-Request-Timeout-Seconds"] = f"{max(left_s, 0.001):.3f}"
        self._request.extensions["timeout"] = httpx.Timeout(left_s + _GRACE_S).as_dict()


class _Settings:
    """What both clients have in common: how requests are made and answers are read."""

    def __init__(self, url: str, key: str | None, timeout_s: float | None, attempts: int) -> None:
        if attempts < 1:
            raise ValueError(f"attempts={attempts}: at least one is needed")
        self._url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._attempts = attempts
        self._headers = {"User-Agent": "atelier-client"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"

    def _exchange(
        self, method: str, path: str, *, timeout_s: float | None = None, **content: Any
    ) -> _Exchange:
        headers = self._headers | content.pop("headers", {})
        request = httpx.Request(method, self._url + path, headers=headers, **content)
        allowed_s = self._timeout_s if timeout_s is None else timeout_s
        # For a caller who allows any time, too, silence ends at some point.
        request.extensions["timeout"] = httpx.Timeout(allowed_s or 600.0).as_dict()
        return _Exchange(request, attempts=self._attempts, allowed_s=allowed_s)

    def _stylize(
        self,
        image: bytes | Path,
        style: str,
        parameters: Parameters,
        timeout_s: float | None,
    ) -> _Exchange:
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


class Client(_Settings):
    """The service, for code that waits; safe to share between threads.

    Args:
        url: of the service, with a path prefix where it has one.
        key: an API key, where the service asks for one.
        timeout_s: for a call with all its attempts; None: as long as it takes.
        attempts: how often a call is sent where the service is busy (429, 503) or unreachable,
            after the pause that it asks for.
        transport: for tests.
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
        super().__init__(url, key, timeout_s, attempts)
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
        return _read_styles(self._carry_out(self._exchange("GET", "/styles")))

    def preview(self, style: str) -> bytes:
        """A JPEG that ``style`` painted.

        Raises:
            AtelierError: no answer, or an error.
        """
        return self._carry_out(self._exchange("GET", f"/styles/{style}/preview")).content

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
        return _read_picture(self._carry_out(self._stylize(image, style, parameters, timeout_s)))

    def _carry_out(self, exchange: _Exchange) -> httpx.Response:
        steps = exchange.steps()
        answer: Any = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as end:
                response: httpx.Response = end.value
                return response
            if isinstance(step, _Pause):
                time.sleep(step.seconds)
                answer = None
            else:
                try:
                    answer = self._http.send(step)
                except httpx.TransportError as error:
                    answer = error


class AsyncClient(_Settings):
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
        super().__init__(url, key, timeout_s, attempts)
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
        return _read_styles(await self._carry_out(self._exchange("GET", "/styles")))

    async def preview(self, style: str) -> bytes:
        """As :meth:`Client.preview`."""
        answer = await self._carry_out(self._exchange("GET", f"/styles/{style}/preview"))
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
        return _read_picture(
            await self._carry_out(self._stylize(image, style, parameters, timeout_s))
        )

    async def _carry_out(self, exchange: _Exchange) -> httpx.Response:
        steps = exchange.steps()
        answer: Any = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as end:
                response: httpx.Response = end.value
                return response
            if isinstance(step, _Pause):
                await asyncio.sleep(step.seconds)
                answer = None
            else:
                try:
                    answer = await self._http.send(step)
                except httpx.TransportError as error:
                    answer = error


def _pause_s(error: AtelierError, attempt: int) -> float:
    """As long as the service asks for; else twice as long each time, unlike other clients."""
    if isinstance(error, ProblemError) and error.retry_after_s is not None:
        return min(error.retry_after_s, _LONGEST_PAUSE_S)
    longest_s = _FIRST_PAUSE_S * 2.0 ** (attempt - 1)
    return random.uniform(longest_s / 2, longest_s)  # noqa: S311  # no secret


def _unreachable(request: httpx.Request, error: httpx.TransportError) -> AtelierError:
    place = f"{request.url.scheme}://{request.url.netloc.decode()}"
    if isinstance(error, httpx.TimeoutException):
        return OutOfTimeError(f"{place} did not answer in time; allow more, or send less")
    cause = str(error) or type(error).__name__
    return UnreachableError(f"{place} cannot be reached ({cause}); is the service running there?")


def _problem(answer: httpx.Response) -> ProblemError:
    """Read a problem document, or make one of an answer of something in between."""
    try:
        document = answer.json()
    except ValueError:
        document = {}
    if not isinstance(document, dict):
        document = {}
    detail = str(document.get("detail") or answer.reason_phrase or "no reason was given")
    return ProblemError(
        detail,
        status=answer.status_code,
        type=str(document.get("type", "about:blank")),
        title=str(document.get("title", "")),
        request_id=str(document.get("request_id") or answer.headers.get("X-Request-ID", "")),
        retry_after_s=_retry_after_s(answer.headers.get("Retry-After")),
    )


def _retry_after_s(text: str | None) -> float | None:
    """Read the header: seconds, or a date, as proxies write it; None where it makes no sense."""
    if text is None:
        return None
    try:
        return max(float(text), 0.0)
    except ValueError:
        pass
    try:
        return max(email.utils.parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    except ValueError:
        return None


def _read_styles(answer: httpx.Response) -> list[Style]:
    try:
        return [Style.of(entry) for entry in answer.json()["styles"]]
    except (ValueError, KeyError, TypeError) as error:
        raise AtelierError(f"{answer.url} is no list of styles; is this an Atelier?") from error


def _read_picture(answer: httpx.Response) -> Stylized:
    media_type = answer.headers.get("Content-Type", "")
    if not media_type.startswith("image/"):
        raise AtelierError(f"{answer.url} answers with {media_type or 'nothing'}, not a picture")
    timing = (
        part.partition(";dur=") for part in answer.headers.get("Server-Timing", "").split(",")
    )
    return Stylized(
        data=answer.content,
        media_type=media_type,
        request_id=answer.headers.get("X-Request-ID", ""),
        stages_ms={name.strip(): float(ms) for name, _, ms in timing if ms},
    )
