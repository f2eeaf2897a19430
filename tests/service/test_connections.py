"""Clients that take without giving, on real sockets: cut off, and nobody else is."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import uvicorn
from PIL import Image

from service.answers import CHUNK_BYTES, PictureResponse
from service.app import create_app
from service.connections import MAX_HEAD_BYTES, limited_connections

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Longer than a test takes that expects no cut, unless it waits for it.
NEVER_S = 60.0
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class App:
    """Answers with ``answer`` once ``gate`` is open; POST with 413 and its body unread."""

    def __init__(self) -> None:
        self.answer = b"ok"
        self.gate = threading.Event()
        self.gate.set()
        self.finished = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        while not self.gate.is_set():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        more = scope["method"] == "PUT"
        while more:
            more = (await receive()).get("more_body", False)
        status = 413 if scope["method"] == "POST" else 200
        await PictureResponse(self.answer, status)(scope, receive, send)
        self.finished += 1


class Service:
    def __init__(self, port: int, cuts: list[str], server: uvicorn.Server) -> None:
        self.port = port
        self.cuts = cuts
        self.connections = server.server_state.connections

    def connect(self, receive_bytes: int = 0) -> socket.socket:
        connection = socket.socket()
        if receive_bytes:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        connection.settimeout(20)
        connection.connect(("127.0.0.1", self.port))
        return connection


@contextlib.contextmanager
def serving(
    app: Any,
    *,
    head_timeout_s: float = NEVER_S,
    send_timeout_s: float = NEVER_S,
    max_connections: int = 100,
    **options: Any,
) -> Iterator[Service]:
    """Run ``app`` under uvicorn in a thread, with limited connections."""
    cuts: list[str] = []
    http = limited_connections(
        head_timeout_s=head_timeout_s,
        send_timeout_s=send_timeout_s,
        max_connections=max_connections,
        on_cut=cuts.append,
    )
    listener = socket.create_server(("127.0.0.1", 0))
    # Handed on to each connection: what is unread is then in the service, not in the kernel.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    config = uvicorn.Config(app, http=http, log_config=None, access_log=False, ws="none", **options)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield Service(listener.getsockname()[1], cuts, server)
    finally:
        server.should_exit = server.force_exit = True
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture
def app() -> App:
    return App()


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def is_cut(connection: socket.socket) -> bool:
    """Read to the end, which comes as a close or a reset."""
    try:
        while connection.recv(2**16):
            pass
    except ConnectionError:
        pass
    return True


def drip(connection: socket.socket, piece: bytes) -> None:
    """Send ``piece`` again and again until the other side has gone."""
    with contextlib.suppress(ConnectionError):
        for _ in range(4000):
            connection.sendall(piece)
            time.sleep(0.005)
        pytest.fail("the connection was never cut")


def test_connection_that_says_nothing_is_cut(app: App) -> None:
    with serving(app, head_timeout_s=0.1) as service, service.connect() as connection:
        assert is_cut(connection)
        assert service.cuts == ["slow-sender"]


def test_connections_above_their_number_are_cut_and_the_others_served(app: App) -> None:
    with serving(app, max_connections=2) as service:
        first, second = service.connect(), service.connect()
        wait_until(lambda: len(service.connections) == 2)
        with service.connect() as third:
            assert is_cut(third)
        assert service.cuts == ["too-many"]
        first.close()
        wait_until(lambda: len(service.connections) == 1)
        with second, service.connect() as fourth:
            for connection in (second, fourth):
                connection.sendall(GET)
                assert connection.recv(1000).endswith(b"ok")


@pytest.mark.parametrize("start", [b"", b"GET / HTTP/1.1\r\nX-Slow: "])
@pytest.mark.parametrize("after", [b"", GET], ids=["first", "second"])
def test_head_that_never_ends_is_cut_however_steadily_it_comes(
    app: App, start: bytes, after: bytes
) -> None:
    """A blank line begins no head, and still stops uvicorn's own timer."""
    with serving(app, head_timeout_s=0.1) as service, service.connect() as connection:
        if after:
            connection.sendall(after)
            assert connection.recv(15) == b"HTTP/1.1 200 OK"
        connection.sendall(start)
        drip(connection, b"a" if start else b"\r\n")
        assert service.cuts == ["slow-sender"]
    assert app.finished == bool(after)


def test_head_that_is_too_large_is_cut_at_once(app: App) -> None:
    with serving(app) as service, service.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX-Large: ")
        with contextlib.suppress(ConnectionError):
            connection.sendall(b"a" * (MAX_HEAD_BYTES + 1))
        assert is_cut(connection)
        assert service.cuts == ["large-head"]


def test_requests_that_come_whole_are_not_cut_however_long_they_take(app: App) -> None:
    with serving(app, head_timeout_s=0.1) as service, service.connect() as connection:
        for _ in range(2):
            app.gate.clear()
            connection.sendall(GET)
            time.sleep(0.3)
            app.gate.set()
            assert connection.recv(2**16).startswith(b"HTTP/1.1 200 OK")
            time.sleep(0.3)  # idle, which is uvicorn's affair
        assert service.cuts == []


def test_body_may_take_longer_than_a_head(app: App) -> None:
    """Its time is a matter of what it is for, see test_uploads."""
    head = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n"
    with serving(app, head_timeout_s=0.1) as service, service.connect() as connection:
        connection.sendall(head + b"a")
        time.sleep(0.3)
        connection.sendall(b"b")
        assert connection.recv(2**16).startswith(b"HTTP/1.1 200 OK")
        assert service.cuts == []


def test_body_that_goes_on_after_its_answer_is_cut(app: App) -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"
    with serving(app, head_timeout_s=0.1) as service, service.connect() as connection:
        connection.sendall(head)
        assert connection.recv(2**16).startswith(b"HTTP/1.1 413")
        drip(connection, b"a")
        assert service.cuts == ["slow-sender"]


def test_connection_whose_body_ends_after_its_answer_is_idle_and_closed_in_time(app: App) -> None:
    """uvicorn stops its timer when the rest of the body comes, and forgets to start it again."""
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n"
    with (
        serving(app, head_timeout_s=NEVER_S, timeout_keep_alive=1) as service,
        service.connect() as connection,
    ):
        connection.sendall(head)
        assert connection.recv(2**16).startswith(b"HTTP/1.1 413")
        connection.sendall(b"ab" + GET)
        assert connection.recv(2**16).startswith(b"HTTP/1.1 200")
        connection.sendall(head)
        assert connection.recv(2**16).startswith(b"HTTP/1.1 413")
        connection.sendall(b"ab")
        assert is_cut(connection)
        assert service.cuts == []


def test_reader_that_takes_nothing_is_cut(app: App) -> None:
    app.answer = bytes(4 * CHUNK_BYTES)
    with (
        serving(app, send_timeout_s=0.2) as service,
        service.connect(receive_bytes=4096) as connection,
    ):
        connection.sendall(GET)
        wait_until(lambda: service.cuts == ["slow-reader"])
        wait_until(lambda: app.finished == 1 and not service.connections)


@pytest.mark.parametrize("header", [b"", b"Connection: close\r\n"], ids=["keep-alive", "close"])
def test_reader_that_leaves_a_small_rest_is_cut_too(app: App, header: bytes) -> None:
    """What is below the buffer's mark holds up no answer, and would hold the connection."""
    app.answer = bytes(50_000)
    with (
        serving(app, send_timeout_s=0.2) as service,
        service.connect(receive_bytes=4096) as connection,
    ):
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n" + header + b"\r\n")
        wait_until(lambda: app.finished == 1)
        wait_until(lambda: service.cuts == ["slow-reader"])
        wait_until(lambda: not service.connections)


def test_reader_that_takes_part_after_part_gets_everything(app: App) -> None:
    app.answer = bytes(10 * CHUNK_BYTES)
    with serving(app, send_timeout_s=5) as service, service.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        received = 0
        while part := connection.recv(2**20):
            received += len(part)
        assert received > len(app.answer)
        assert service.cuts == []


def test_answer_counts_until_its_reader_has_it_or_is_cut(
    make_settings: Callable[..., Any], stub_engine: Any, encode: Callable[..., bytes]
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    photograph = encode(Image.fromarray(noise), "png", compress_level=0)
    service_app = create_app(make_settings(), stub_engine)
    gate = service_app.state.pipeline.gate
    query = "style=ink&strength=0&format=png&max_side=400"
    head = f"POST /stylize?{query} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(photograph)}\r\n\r\n"
    with (
        serving(service_app, send_timeout_s=0.5) as service,
        service.connect(receive_bytes=4096) as connection,
    ):
        wait_until(lambda: service_app.state.lifecycle.is_ready)
        connection.sendall(head.encode() + photograph)
        assert connection.recv(12) == b"HTTP/1.1 200"
        assert gate.in_flight == 0  # a slow reader takes nobody's place
        assert gate.body_bytes > 400_000
        wait_until(lambda: service.cuts == ["slow-reader"])
        wait_until(lambda: gate.body_bytes == 0)
