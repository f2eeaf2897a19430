from __future__ import annotations

import inspect
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from service.client import (
    AsyncClient,
    AtelierError,
    BrokenOffError,
    Client,
    OutOfTimeError,
    ProblemError,
    UnreachableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import ServerProcess

pytestmark = pytest.mark.anyio

PICTURE = httpx.Response(
    200,
    content=b"painted",
    headers={
        "Content-Type": "image/jpeg",
        "X-Request-ID": "abc",
        "Server-Timing": "decode;dur=1.5, queue;dur=0.0",
    },
)


def problem(status: int, **headers: str) -> httpx.Response:
    document = {
        "type": "urn:atelier:error:busy",
        "title": "Too many requests in flight",
        "status": status,
        "detail": "every place is taken; try again in 2 s",
        "request_id": "abc",
    }
    return httpx.Response(status, json=document, headers=headers)


class Service:
    """Answers what it is told to, and notes what it was asked and how long callers slept."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.slept: list[float] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Client, Service]]:
    """A client of a service that answers as it is told to; pauses take no time."""

    def make(*answers: httpx.Response | Exception, **options: Any) -> tuple[Client, Service]:
        service = Service(*answers)
        monkeypatch.setattr("service.client.time.sleep", service.slept.append)
        transport = httpx.MockTransport(service)
        return Client("http://service/prefix/", transport=transport, **options), service

    return make


def test_stylize_sends_the_bytes_with_what_was_given_and_nothing_else(
    client: Callable[..., tuple[Client, Service]], tmp_path: Path
) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"photo")
    with client(PICTURE, key="secret")[0] as atelier:
        pass
    atelier, service = client(PICTURE, key="secret")
    painted = atelier.stylize(
        tmp_path / "photo.jpg", "ink:0.5,wash:0.5", max_side=64, keep_colors=True, strength=0.5
    )
    (request,) = service.requests
    assert request.url.path == "/prefix/stylize"
    assert dict(request.url.params) == {
        "style": "ink:0.5,wash:0.5",
        "max_side": "64",
        "keep_colors": "true",
        "strength": "0.5",
    }
    assert request.content == b"photo"
    assert request.headers["Authorization"] == "Bearer secret"
    assert 59 < float(request.headers["X-Request-Timeout-Seconds"]) <= 60
    assert painted.data == b"painted"
    assert (painted.suffix, painted.request_id) == ("jpg", "abc")
    assert painted.stages_ms == {"decode": 1.5, "queue": 0.0}


def test_call_is_sent_again_after_the_pause_that_a_busy_service_asks_for(
    client: Callable[..., tuple[Client, Service]],
) -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=3), usegmt=True)
    answers = (problem(429, **{"Retry-After": "2"}), problem(503, **{"Retry-After": soon}), PICTURE)
    atelier, service = client(*answers)
    assert atelier.stylize(b"photo", "ink").data == b"painted"
    assert len(service.requests) == 3
    assert service.slept[0] == 2
    assert 1 < service.slept[1] <= 3


def test_call_without_a_pause_asked_for_waits_longer_each_time_and_gives_up(
    client: Callable[..., tuple[Client, Service]],
) -> None:
    atelier, service = client(problem(503), attempts=3)
    with pytest.raises(ProblemError, match="every place is taken") as caught:
        atelier.stylize(b"photo", "ink")
    assert len(service.requests) == 3
    assert 0.25 <= service.slept[0] <= 0.5 <= service.slept[1] <= 1
    assert caught.value.status == 503
    assert caught.value.type == "urn:atelier:error:busy"
    assert "abc" in str(caught.value)


def test_pauses_that_a_busy_service_asks_for_are_made_as_often_as_time_allows(
    client: Callable[..., tuple[Client, Service]],
) -> None:
    busy = problem(429, **{"Retry-After": "0"})
    atelier, service = client(*[busy] * 20, PICTURE, attempts=2)
    assert atelier.stylize(b"photo", "ink").data == b"painted"
    assert service.slept == [0.1] * 20, "not at once, whatever it says"


@pytest.mark.parametrize("pause", ["nan", "soon", "-1"])
def test_pause_that_makes_no_sense_is_as_good_as_none(
    client: Callable[..., tuple[Client, Service]], pause: str
) -> None:
    atelier, service = client(problem(503, **{"Retry-After": pause}), attempts=3)
    with pytest.raises(ProblemError):
        atelier.stylize(b"photo", "ink")
    assert [0.2 < pause_s <= 1 for pause_s in service.slept] == [True, True]


@pytest.mark.parametrize("status", [400, 404, 413, 415, 422, 500, 504])
def test_error_of_the_request_is_raised_at_once(
    client: Callable[..., tuple[Client, Service]], status: int
) -> None:
    atelier, service = client(problem(status, **{"Retry-After": "1"}))
    with pytest.raises(ProblemError) as caught:
        atelier.stylize(b"photo", "ink")
    assert caught.value.status == status
    assert len(service.requests) == 1


def test_pause_beyond_the_time_allowed_is_not_made(
    client: Callable[..., tuple[Client, Service]],
) -> None:
    atelier, service = client(problem(429, **{"Retry-After": "30"}))
    with pytest.raises(ProblemError) as caught:
        atelier.stylize(b"photo", "ink", timeout_s=10)
    assert caught.value.retry_after_s == 30
    assert service.slept == []


def test_service_that_cannot_be_reached_is_tried_again_and_named(
    client: Callable[..., tuple[Client, Service]],
) -> None:
    atelier, service = client(httpx.ConnectError("refused"), attempts=2)
    with pytest.raises(UnreachableError, match=r"http://service cannot be reached \(refused\)"):
        atelier.styles()
    assert len(service.requests) == 2
    atelier, service = client(httpx.ReadTimeout("slow"))
    with pytest.raises(OutOfTimeError, match="did not answer in time"):
        atelier.styles()
    assert len(service.requests) == 1, "it may be painting still"


@pytest.mark.parametrize(
    "error", [httpx.ReadError("reset"), httpx.WriteError("reset"), httpx.RemoteProtocolError("end")]
)
def test_connection_that_is_lost_on_the_way_is_tried_again_and_named(
    client: Callable[..., tuple[Client, Service]], error: Exception
) -> None:
    assert client(error, PICTURE)[0].stylize(b"photo", "ink").data == b"painted"
    atelier, service = client(error, attempts=3)
    with pytest.raises(BrokenOffError, match=r"http://service broke off \("):
        atelier.stylize(b"photo", "ink")
    assert len(service.requests) == 3


def test_answer_that_cannot_be_decoded_is_an_error_like_others(
    client: Callable[..., tuple[Client, Service]],
) -> None:
    atelier, service = client(httpx.DecodingError("incorrect header check"))
    with pytest.raises(AtelierError, match="incorrect header check"):
        atelier.styles()
    assert len(service.requests) == 1


@pytest.mark.parametrize(
    ("media_type", "suffix"),
    [("image/png", "png"), ("image/JPEG; q=1", "jpg"), ("image/../../x", None), ("image/", None)],
)
def test_suffix_of_a_picture_is_one_whatever_the_service_says(
    client: Callable[..., tuple[Client, Service]], media_type: str, suffix: str | None
) -> None:
    answer = httpx.Response(200, content=b"painted", headers={"Content-Type": media_type})
    atelier, _ = client(answer)
    if suffix is None:
        with pytest.raises(AtelierError, match="not a picture"):
            atelier.stylize(b"photo", "ink")
    else:
        assert atelier.stylize(b"photo", "ink").suffix == suffix


def test_times_that_others_on_the_way_add_are_read_as_far_as_they_are_times(
    client: Callable[..., tuple[Client, Service]],
) -> None:
    timing = 'decode;dur=1.5, cdn-cache; desc=HIT, edge;dur=2;desc="a b", origin;dur="3"'
    answer = httpx.Response(
        200, content=b"painted", headers={"Content-Type": "image/png", "Server-Timing": timing}
    )
    assert client(answer)[0].stylize(b"photo", "ink").stages_ms == {"decode": 1.5, "edge": 2}


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("127.0.0.1:8000", None),
        ("service", None),
        ("ftp://service", None),
        ("http://", None),
        ("http://service:99999", None),
        ("http://service:port", None),
        ("http://service", "kéy"),
        ("http://service", "k\ney"),
    ],
)
def test_address_or_key_that_cannot_be_is_refused_before_anything_is_sent(
    url: str, key: str | None
) -> None:
    with pytest.raises(ValueError, match=r"address|port|key") as caught:
        Client(url, key=key)
    assert key is None or key not in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json={"pictures": []}),
        httpx.Response(200, json={"styles": [{"id": "ink"}]}),
        httpx.Response(200, json=[]),
    ],
)
def test_answer_of_something_else_is_an_error_that_says_so(
    client: Callable[..., tuple[Client, Service]], answer: httpx.Response
) -> None:
    with pytest.raises(AtelierError, match="is this an Atelier"):
        client(answer)[0].styles()
    with pytest.raises(AtelierError, match="not a picture"):
        client(answer)[0].stylize(b"photo", "ink")


def test_error_page_of_a_proxy_becomes_a_problem_with_its_status(
    client: Callable[..., tuple[Client, Service]],
) -> None:
    with pytest.raises(ProblemError, match=r"Bad Gateway \(502") as caught:
        client(httpx.Response(502, text="<html>"))[0].styles()
    assert caught.value.type == "about:blank"


def test_both_clients_have_the_same_methods_with_the_same_arguments() -> None:
    for name, method in inspect.getmembers(Client, inspect.isfunction):
        if not name.startswith("_") and name != "close":
            other = getattr(AsyncClient, name)
            assert inspect.signature(other) == inspect.signature(method), name
            assert inspect.iscoroutinefunction(other)


async def test_clients_paint_with_a_real_service(server: ServerProcess, photo_jpeg: bytes) -> None:
    with Client(server.url) as atelier:
        styles = atelier.styles()
        assert [style.id for style in styles] == ["ink", "wash"]
        assert atelier.preview("ink").startswith(b"\xff\xd8")
        painted = atelier.stylize(photo_jpeg, "ink", format="png")
        assert painted.suffix == "png"
        with pytest.raises(ProblemError, match="no style 'nobody'"):
            atelier.stylize(photo_jpeg, "nobody")
    async with AsyncClient(server.url) as atelier_too:
        assert await atelier_too.styles() == styles
        assert (await atelier_too.preview("wash")).startswith(b"\xff\xd8")
        again = await atelier_too.stylize(photo_jpeg, "ink", format="png")
    assert again.data == painted.data
