"""The end of the server: no connection that the kernel has made is lost."""

from __future__ import annotations

import asyncio
import socket
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
import uvloop

from service.answers import PictureResponse
from service.connections import LAST_CALL_S, limited_connections
from service.server import Server

if TYPE_CHECKING:
    from collections.abc import Callable

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LOOPS = pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])


async def answer_ok(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/slow":
        await asyncio.sleep(60)
    await PictureResponse(b"ok", 200)(scope, receive, send)


class Ending:
    """A server on a socket, and what is connected to it when its end begins."""

    def __init__(self) -> None:
        self.cuts: list[str] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        http = limited_connections(
            head_timeout_s=10,
            send_timeout_s=10,
            max_connections=100,
            on_cut=self.cuts.append,
            is_leaving=lambda: self.server.should_exit,
        )
        config = uvicorn.Config(
            answer_ok,
            http=http,
            log_config=None,
            access_log=False,
            ws="none",
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
        config.load()
        self.lifecycle = SimpleNamespace(unfinished=False)
        self.server = Server(
            config,
            self.lifecycle,  # type: ignore[arg-type]
            drain_s=0,
            exit_when_lost=False,
            greeting="",
        )
        self.server.lifespan = config.lifespan_class(config)

    async def end(self) -> None:
        self.server.should_exit = True
        await self.server.shutdown([self.listener])

    def connect(self) -> socket.socket:
        connection = socket.create_connection(self.listener.getsockname(), timeout=10)
        connection.setblocking(False)
        return connection

    async def read(self, connection: socket.socket) -> bytes:
        received = b""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(10):
            with connection:
                while part := await loop.sock_recv(connection, 1000):
                    received += part
        return received


def run(new_loop: Callable[[], Any], story: Any) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(story)


@LOOPS
def test_requests_that_wait_in_the_backlog_are_answered(new_loop: Callable[[], Any]) -> None:
    async def story() -> None:
        ending = Ending()
        await ending.server.startup([ending.listener])
        address = ending.listener.getsockname()
        connections = [ending.connect() for _ in range(20)]
        for connection in connections:  # nothing is awaited: the server cannot have seen them
            connection.send(GET)
        await ending.end()
        for connection in connections:
            answer = await ending.read(connection)
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b"connection: close" in answer.lower()
        with pytest.raises(OSError):  # noqa: PT011  # refused or reset, as the system has it
            socket.create_connection(address, timeout=1).recv(1)

    run(new_loop, story())


@LOOPS
@pytest.mark.parametrize("first_part", [b"", GET[:10], GET])
def test_request_that_comes_while_the_server_ends_is_answered(
    new_loop: Callable[[], Any], first_part: bytes
) -> None:
    """On a connection that is new, in the middle of a head, or kept alive."""

    async def story() -> None:
        ending = Ending()
        await ending.server.startup([ending.listener])
        connection = ending.connect()
        connection.send(first_part)
        await asyncio.sleep(0.1)
        end = asyncio.create_task(ending.end())
        await asyncio.sleep(LAST_CALL_S / 2)
        connection.send(GET if first_part == GET else GET[len(first_part) :])
        answer = await ending.read(connection)
        await end
        assert answer.count(b"HTTP/1.1 200 ") == 1 + (first_part == GET)
        assert answer.lower().count(b"connection: close") == 1

    run(new_loop, story())


@LOOPS
def test_request_that_takes_its_time_to_come_whole_ends_its_connection(
    new_loop: Callable[[], Any],
) -> None:
    """Also where the server ends for another reason than a signal, and the last call is over."""

    async def story() -> None:
        ending = Ending()
        await ending.server.startup([ending.listener])
        connection = ending.connect()
        connection.send(GET[:10])
        await asyncio.sleep(0.1)
        end = asyncio.create_task(ending.server.shutdown([ending.listener]))
        await asyncio.sleep(LAST_CALL_S + 0.2)
        connection.send(GET[10:])
        answer = await ending.read(connection)
        await end
        assert b"connection: close" in answer.lower()
        assert not ending.lifecycle.unfinished

    run(new_loop, story())


@LOOPS
def test_connections_without_a_request_are_closed_in_time(new_loop: Callable[[], Any]) -> None:
    async def story() -> None:
        ending = Ending()
        await ending.server.startup([ending.listener])
        connection = ending.connect()
        await asyncio.sleep(0.1)
        async with asyncio.timeout(LAST_CALL_S + 2):
            await ending.end()
        assert await ending.read(connection) == b""

    run(new_loop, story())


@pytest.mark.parametrize(("path", "unfinished"), [("/", False), ("/slow", True)])
def test_end_that_cuts_a_request_is_no_success(
    path: str, *, unfinished: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        ending = Ending()
        await ending.server.startup([ending.listener])
        connection = ending.connect()
        connection.send(GET.replace(b"/", path.encode(), 1))
        await asyncio.sleep(0.1)
        await ending.end()
        await ending.read(connection)
        assert ending.lifecycle.unfinished is unfinished

    run(asyncio.new_event_loop, story())
    assert ("shutdown_unfinished" in caplog.text) is unfinished
