"""Exchange: one call of a client, from HTTP to exceptions; it sends nothing itself."""

from __future__ import annotations

import email.utils
import math
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

# Worth sending again: both say that the service, not the request, is at fault.
_AGAIN = (429, 503)
_FIRST_PAUSE_S = 0.5
_SHORTEST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 60.0
# What is added to a request's own time before its connection is given up.
_GRACE_S = 5.0


class AtelierError(Exception):
    """The service cannot be asked, or does not give what it was asked for."""


class UnreachableError(AtelierError):
    """No answer came: the address is wrong, nothing listens there, or the network failed."""


class BrokenOffError(AtelierError):
    """The connection was lost while the service had the request."""


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


@dataclass(frozen=True, slots=True)
class Pause:
    """Asks whoever drives an exchange to wait."""

    seconds: float


Reply = httpx.Response | httpx.RequestError | None
"""What became of a request; None of a pause."""


class Exchange:
    """What to send, when to send it again, and what an answer means.

    Args:
        request: to send.
        attempts: how often at most, but for those that the service itself asks to repeat.
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

    def steps(self) -> Generator[httpx.Request | Pause, Reply, httpx.Response]:
        """Yield requests to send and pauses to make; take answers or errors of transport back.

        Raises:
            AtelierError: no good answer came.
        """
        ends_s = math.inf if self._allowed_s is None else self._clock() + self._allowed_s
        failures = 0
        while True:
            self._limit(ends_s)
            answer = yield self._request
            if isinstance(answer, httpx.Response) and answer.is_success:
                return answer
            error = self._error(answer)
            pause_s = _pause_asked_s(error)
            if pause_s is None:
                failures += 1
                pause_s = _pause_s(failures)
            if failures == self._attempts or self._clock() + pause_s >= ends_s:
                raise error
            yield Pause(pause_s)

    def _error(self, answer: Reply) -> AtelierError:
        """What is worth another attempt.

        Raises:
            AtelierError: none would help.
        """
        if isinstance(answer, httpx.Response):
            problem = _problem(answer)
            if answer.status_code not in _AGAIN:
                raise problem
            return problem
        assert answer is not None  # noqa: S101  # a request was sent
        error = _no_answer(self._request, answer)
        error.__cause__ = answer
        if not isinstance(answer, httpx.NetworkError | httpx.RemoteProtocolError):
            raise error
        return error

    def _limit(self, ends_s: float) -> None:
        """Tell the service, and the connection, how much time is left."""
        if ends_s == math.inf:
            return
        left_s = ends_s - self._clock()
        self._request.headers["X-Request-Timeout-Seconds"] = f"{max(left_s, 0.001):.3f}"
        self._request.extensions["timeout"] = httpx.Timeout(left_s + _GRACE_S).as_dict()


def _pause_asked_s(error: AtelierError) -> float | None:
    """How long the service asks to wait; None where it does not."""
    if not isinstance(error, ProblemError) or error.retry_after_s is None:
        return None
    return min(max(error.retry_after_s, _SHORTEST_PAUSE_S), _LONGEST_PAUSE_S)


def _pause_s(failures: int) -> float:
    """Twice as long each time, unlike other clients."""
    longest_s = min(_FIRST_PAUSE_S * 2.0 ** (failures - 1), _LONGEST_PAUSE_S)
    return random.uniform(longest_s / 2, longest_s)  # noqa: S311  # no secret


def _no_answer(request: httpx.Request, error: httpx.RequestError) -> AtelierError:
    place = f"{request.url.scheme}://{request.url.netloc.decode()}"
    cause = str(error) or type(error).__name__
    if isinstance(error, httpx.TimeoutException):
        return OutOfTimeError(f"{place} did not answer in time; allow more, or send less")
    if isinstance(error, httpx.ConnectError | httpx.UnsupportedProtocol | httpx.ProxyError):
        return UnreachableError(
            f"{place} cannot be reached ({cause}); is the service running there?"
        )
    return BrokenOffError(f"{place} broke off ({cause})")


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
    if text.strip().isdecimal():
        return float(text)
    try:
        return max(email.utils.parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    except ValueError:
        return None
