"""/live on real sockets: a real process, its tiny zoo, and clients that behave or do not."""

from __future__ import annotations

import io
import json
import re
import shutil
import socket
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
from PIL import Image
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from service.keys import hash_key, make_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

pytestmark = pytest.mark.slow


class Camera:
    """A client with an open session, or one that waits to be let in."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    def say(self, **message: Any) -> None:
        self.socket.send(json.dumps(message))

    def hear(self, kind: str) -> dict[str, Any]:
        """The next message of a kind, whatever comes before it."""
        while True:
            message = self.socket.recv(timeout=20)
            if isinstance(message, str):
                said: dict[str, Any] = json.loads(message)
                if said["type"] == kind:
                    return said

    def paint(self, frame: bytes) -> tuple[int, NDArray[np.uint8]]:
        """Send a frame; give the number and the picture of the next answer."""
        self.socket.send(frame)
        return self.see()

    def see(self) -> tuple[int, NDArray[np.uint8]]:
        while True:
            message = self.socket.recv(timeout=20)
            if isinstance(message, bytes):
                picture = Image.open(io.BytesIO(message[4:]))
                assert picture.format == "JPEG"
                return int.from_bytes(message[:4], "big"), np.asarray(picture)
            assert json.loads(message)["type"] != "error", message

    def end(self) -> tuple[str, int, str]:
        """Type of the last error, if any, close code and text."""
        slug = ""
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                message = self.socket.recv(timeout=20)
                if isinstance(message, str) and (said := json.loads(message))["type"] == "error":
                    slug = said["problem"]["type"].rpartition(":")[2]
        close = closed.value.rcvd
        assert close is not None
        return slug, close.code, close.reason


@contextmanager
def visit(server: Any, **options: Any) -> Iterator[Camera]:
    """Connect, and say nothing yet."""
    with connect(f"ws://127.0.0.1:{server.port}/live", max_size=None, **options) as socket:
        yield Camera(socket)


@contextmanager
def go_live(
    server: Any, headers: dict[str, str] | None = None, **parameters: Any
) -> Iterator[Camera]:
    with visit(server, additional_headers=headers) as camera:
        camera.say(**{"type": "start", "style": "ink", "frames_per_second": 30} | parameters)
        camera.hear("ready")
        yield camera


@pytest.fixture(scope="module")
def frame(photograph: Callable[..., Image.Image], encode: Callable[..., bytes]) -> bytes:
    return encode(photograph(96, 64), quality=95)


@pytest.fixture(scope="module")
def live_server(start_service: Callable[..., Any]) -> Iterator[Any]:
    """One process for the tests that leave it as it was."""
    with start_service(
        ATELIER_LIVE_SESSIONS="3",
        ATELIER_LIVE_SESSIONS_PER_CLIENT="2",
        ATELIER_LIVE_MAX_FRAME_BYTES="65536",
        ATELIER_HEAD_TIMEOUT_S="1",
        ATELIER_KEEP_ALIVE_S="1",
        ATELIER_CORS_ORIGINS="https://friend.example",
    ) as server:
        yield server


def finished(errors: str) -> list[dict[str, Any]]:
    """Log lines of sessions, from a process's standard error."""
    lines = [json.loads(line) for line in errors.splitlines() if line.startswith("{")]
    assert [line for line in lines if line["level"] == "error"] == []
    return [line for line in lines if line["event"] == "live_session_finished"]


def metric(server: Any, name: str) -> float:
    text = httpx.get(f"{server.url}/metrics").text
    (value,) = re.findall(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(value)


def until(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


# --- frames


def test_frame_is_painted_as_a_request_paints_it_and_answered_with_its_number(
    live_server: Any, frame: bytes
) -> None:
    answer = httpx.post(
        f"{live_server.url}/stylize?style=ink&format=png",
        content=frame,
        headers={"Content-Type": "image/jpeg"},
    )
    wanted = np.asarray(Image.open(io.BytesIO(answer.content)))
    with go_live(live_server, quality=100) as camera:
        for expected in (1, 2, 3):
            number, painted = camera.paint(frame)
            assert number == expected
            assert painted.shape == (64, 96, 3)
            assert np.abs(painted.astype(int) - wanted).mean() < 3


@pytest.mark.parametrize("file_format", ["jpeg", "png", "webp"])
def test_frame_of_each_format_is_painted(
    file_format: str,
    live_server: Any,
    photograph: Callable[..., Image.Image],
    encode: Callable[..., bytes],
) -> None:
    with go_live(live_server) as camera:
        assert camera.paint(encode(photograph(48, 32), file_format))[1].shape == (32, 48, 3)


def test_max_side_bounds_the_painted_frame(live_server: Any, frame: bytes) -> None:
    with go_live(live_server, max_side=48) as camera:
        assert camera.paint(frame)[1].shape == (32, 48, 3)
        camera.say(type="change", max_side=96)
        camera.hear("ready")
        assert camera.paint(frame)[1].shape == (64, 96, 3)


def test_style_changes_without_another_connection(live_server: Any, frame: bytes) -> None:
    with go_live(live_server) as camera, go_live(live_server, style="wash") as other:
        ink = camera.paint(frame)[1].astype(int)
        wash = other.paint(frame)[1].astype(int)
        camera.say(type="change", style="wash")
        assert camera.hear("ready")["from_frame"] == 2
        number, changed = camera.paint(frame)
    assert number == 2
    # As a session of its own paints it: nothing is kept of the other style's statistics.
    assert np.abs(changed - wash).mean() < 1
    assert np.abs(ink - wash).mean() > 10


def test_strength_and_colours_mix_with_the_frame(live_server: Any, frame: bytes) -> None:
    photo = np.asarray(Image.open(io.BytesIO(frame))).astype(int)
    with go_live(live_server, strength=0, quality=100) as camera:
        assert np.abs(camera.paint(frame)[1] - photo).mean() < 3
        camera.say(type="change", strength=1, keep_colors=True)
        camera.hear("ready")
        kept = Image.fromarray(camera.paint(frame)[1]).convert("YCbCr")
    chroma = np.asarray(kept)[..., 1:].astype(int)
    wanted = np.asarray(Image.fromarray(photo.astype(np.uint8)).convert("YCbCr"))[..., 1:]
    assert np.abs(chroma - wanted).mean() < 5


def test_steadiness_carries_statistics_from_frame_to_frame(
    live_server: Any, photograph: Callable[..., Image.Image], encode: Callable[..., bytes]
) -> None:
    picture = photograph(96, 64)
    darker = encode(picture.point(lambda value: int(value * 0.92)), "png")
    alone, steady = [], []
    for steadiness, painted in ((0.0, alone), (1.0, steady)):
        with go_live(live_server, steadiness=steadiness, quality=100) as camera:
            camera.paint(encode(picture, "png"))
            painted.append(camera.paint(darker)[1].astype(int))
    # By itself the frame is normalized to the brightness that the one before had.
    assert np.abs(alone[0] - steady[0]).mean() > 2


@pytest.mark.parametrize(
    ("data", "slug"),
    [
        (b"", "unsupported-media-type"),
        (b"GIF89a" + bytes(100), "unsupported-media-type"),
        (b"\xff\xd8\xff" + bytes(100), "corrupt-image"),
        (None, "image-too-small"),
    ],
    ids=["empty", "GIF", "corrupt", "small"],
)
def test_frame_that_cannot_be_painted_is_an_error_and_the_session_goes_on(
    data: bytes | None,
    slug: str,
    live_server: Any,
    frame: bytes,
    photograph: Callable[..., Image.Image],
    encode: Callable[..., bytes],
) -> None:
    with go_live(live_server) as camera:
        camera.socket.send(encode(photograph(15, 15)) if data is None else data)
        said = camera.hear("error")
        assert said["frame"] == 1
        assert said["problem"]["type"] == f"urn:atelier:error:{slug}"
        assert camera.paint(frame)[0] == 2


def test_message_that_is_too_large_ends_the_session(live_server: Any) -> None:
    with go_live(live_server) as camera:
        camera.socket.send(bytes(65537))
        assert camera.end()[1] == 1009


# --- who may come in


def test_first_message_that_is_not_valid_ends_the_session(live_server: Any, frame: bytes) -> None:
    for message, slug in (
        (frame, "malformed-request"),
        ("{", "malformed-request"),
        ('{"type": "start", "style": "cubism"}', "style-not-found"),
        ('{"type": "start", "style": "ink", "max_side": 100000}', "invalid-parameter"),
    ):
        with visit(live_server) as camera:
            camera.socket.send(message)
            assert camera.end()[:2] == (slug, 1008)


def test_client_that_says_nothing_is_let_go(live_server: Any) -> None:
    began_s = time.monotonic()
    with visit(live_server) as camera:
        assert camera.end()[:2] == ("upload-too-slow", 1008)
    assert 0.9 < time.monotonic() - began_s < 10


def test_session_outlives_the_times_of_http(live_server: Any, frame: bytes) -> None:
    with go_live(live_server) as camera:
        time.sleep(2.5)  # head and keep-alive have a second each
        assert camera.paint(frame)[0] == 1


def test_client_with_as_many_sessions_as_one_may_have_is_told_when_to_come_back(
    live_server: Any, frame: bytes
) -> None:
    with ExitStack() as sessions:
        cameras = [sessions.enter_context(go_live(live_server)) for _ in range(2)]
        until(lambda: metric(live_server, "atelier_live_sessions") == 2)
        with visit(live_server) as refused:
            refused.say(type="start", style="ink")
            problem = refused.hear("error")["problem"]
            assert (problem["status"], problem["retry_after_s"]) == (429, 10)
            assert refused.end()[1] == 1013
        for camera in cameras:
            assert camera.paint(frame)[0] == 1
    until(lambda: metric(live_server, "atelier_live_sessions") == 0)
    with go_live(live_server) as camera:
        assert camera.paint(frame)[0] == 1


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1", "http://"])
def test_page_of_another_site_is_refused_before_the_handshake(
    origin: str, live_server: Any
) -> None:
    with pytest.raises(InvalidStatus) as raised, visit(live_server, origin=origin):
        pass
    response = raised.value.response
    assert response.status_code == 403
    assert response.headers["Content-Type"] == "application/problem+json"
    problem = json.loads(response.body or b"")
    assert problem["type"] == "urn:atelier:error:forbidden"
    assert problem["request_id"] == response.headers["X-Request-ID"]


def test_own_page_and_those_of_friends_are_let_in(live_server: Any) -> None:
    for origin in (f"http://127.0.0.1:{live_server.port}", "https://friend.example"):
        with visit(live_server, origin=origin) as camera:
            camera.say(type="start", style="ink")
            assert camera.hear("ready")


def test_pictures_are_not_compressed_again_and_pings_are_answered(live_server: Any) -> None:
    with go_live(live_server) as camera:
        assert camera.socket.protocol.extensions == []
        assert camera.socket.ping().wait(5)


def test_metrics_count_frames_and_the_time_until_their_answers(
    live_server: Any, frame: bytes
) -> None:
    names = [f'atelier_live_frames_total{{outcome="{it}"}}' for it in ("painted", "refused")]
    names.append("atelier_live_frame_seconds_count")
    before = [metric(live_server, name) for name in names]
    with go_live(live_server) as camera:
        camera.paint(frame)
        camera.socket.send(b"no picture")
        camera.hear("error")
    after = [metric(live_server, name) for name in names]
    assert [new - old for old, new in zip(before, after, strict=True)] == [1, 1, 1]


def test_keys_are_asked_for_and_name_the_caller_in_the_log(
    start_service: Callable[..., Any], frame: bytes
) -> None:
    key = make_key()
    # Of a year, since windows end by the clock: an hour's may do so while the test runs.
    with start_service(
        ATELIER_API_KEYS=f"alice={hash_key(key)}", ATELIER_RATE_LIMIT="3/year"
    ) as server:
        for said in ({}, {"key": "wrong"}):
            with visit(server) as camera:
                camera.say(type="start", style="ink", **said)
                assert camera.end()[:2] == ("unauthorized", 1008)
        with go_live(server, key=key) as camera:
            assert camera.paint(frame)[0] == 1
        for name, value in (("X-API-Key", key), ("Authorization", f"Bearer {key}")):
            with go_live(server, {name: value, "X-Request-ID": "order-66"}) as camera:
                assert camera.socket.response is not None
                assert camera.socket.response.headers["X-Request-ID"] == "order-66"
        with visit(server) as camera:
            camera.say(type="start", style="ink", key=key)
            problem = camera.hear("error")["problem"]
            assert problem["type"] == "urn:atelier:error:rate-limited"
            assert problem["retry_after_s"] > 60
            assert camera.end()[1] == 1013
        status, errors = server.stop()
    assert status == 0
    lines = finished(errors)
    assert [line["caller"] for line in lines] == ["", "", *["alice"] * 4]
    assert key not in errors
    painted = lines[2]
    assert (painted["frames"], painted["painted"], painted["style"]) == (1, 1, "ink")
    assert (painted["reason"], painted["code"], painted["problem"]) == ("client-left", 1000, "")
    assert painted["bytes_in"] == len(frame)
    assert painted["bytes_out"] > 1000
    assert lines[3]["request_id"] == lines[4]["request_id"] == "order-66"
    assert lines[5]["problem"] == "rate-limited"


def test_live_that_is_switched_off_is_not_there(start_service: Callable[..., Any]) -> None:
    with (
        start_service(ATELIER_LIVE_SESSIONS="0") as server,
        pytest.raises(InvalidStatus) as raised,
        visit(server),
    ):
        pass
    assert raised.value.response.status_code == 404


def test_client_that_sends_thousands_of_empty_frames_leaves_others_their_turns(
    live_server: Any,
) -> None:
    key, answers = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", 0
    start = json.dumps({"type": "start", "style": "ink"}).encode()
    flood, at = 20_000 * (b"\x82\x80" + bytes(4)), 0
    with socket.create_connection(("127.0.0.1", live_server.port)) as raw:
        raw.sendall(
            b"GET /live HTTP/1.1\r\nHost: live\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            + f"Sec-WebSocket-Version: 13\r\n{key}\r\n\r\n".encode()
        )
        assert b" 101 " in raw.recv(4096)
        raw.sendall(bytes((0x81, 0x80 | len(start))) + bytes(4) + start)
        raw.setblocking(False)
        with httpx.Client(base_url=live_server.url) as http:
            until_s = time.monotonic() + 3
            while time.monotonic() < until_s:
                for _ in range(100):
                    with suppress(BlockingIOError):
                        at = (at + raw.send(flood[at:])) % len(flood)
                    with suppress(BlockingIOError):
                        raw.recv(2**20)
                http.get("/readyz")
                answers += 1

    assert answers > 15


# --- the end


def test_server_that_leaves_lets_no_one_in_and_closes_sessions_with_1001(
    start_service: Callable[..., Any], frame: bytes
) -> None:
    with start_service(ATELIER_DRAIN_S="1.5") as server, go_live(server) as camera:
        assert camera.paint(frame)[0] == 1
        server.process.terminate()
        until(lambda: httpx.get(f"{server.url}/readyz").status_code == 503)
        assert camera.paint(frame)[0] == 2
        with visit(server) as late:
            assert late.end()[:2] == ("not-ready", 1013)
        began_s = time.monotonic()
        assert camera.end() == ("", 1001, "the server goes away; connect again")
        _, errors = server.process.communicate(timeout=30)
    assert time.monotonic() - began_s < 10
    assert server.process.returncode == 0
    assert [line["reason"] for line in finished(errors)] == ["not-ready", "server-left"]


def test_client_that_reads_nothing_costs_no_memory_and_is_cut_off(
    start_service: Callable[..., Any],
    photograph: Callable[..., Image.Image],
    encode: Callable[..., bytes],
) -> None:
    frame = encode(photograph(320, 240), quality=95)
    with start_service(ATELIER_SEND_TIMEOUT_S="2") as server:
        with go_live(server) as first:  # loads what frames need
            for _ in range(5):
                first.paint(frame)
        with socket.socket() as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.connect(("127.0.0.1", server.port))
            with connect(f"ws://127.0.0.1:{server.port}/live", sock=raw, max_queue=1) as client:
                client.send('{"type": "start", "style": "ink", "quality": 100}')
                before = resident_bytes(server.process.pid)
                began_s = time.monotonic()
                with pytest.raises((ConnectionClosed, TimeoutError)):
                    for _ in range(3000):
                        client.send(frame)
                        time.sleep(0.005)
                took_s = time.monotonic() - began_s
                assert resident_bytes(server.process.pid) - before < 60 * 2**20
        name = 'atelier_live_frames_total{outcome="dropped"}'
        assert metric(server, name) > 100
        until(lambda: metric(server, "atelier_live_sessions") == 0)
        status, errors = server.stop()
    assert status == 0
    assert finished(errors)[-1]["reason"] == "slow-reader"
    assert took_s < 10


def resident_bytes(pid: int) -> int:
    pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * 4096


def test_zoo_that_is_replaced_is_moved_to_without_a_break(
    start_service: Callable[..., Any],
    make_zoo: Callable[[Path], Path],
    tmp_path: Path,
    frame: bytes,
) -> None:
    zoo = make_zoo(tmp_path)
    manifest = zoo / "manifest.toml"
    both = manifest.read_text()
    only_ink, _, wash = both.rpartition("[[style]]")
    with start_service(ATELIER_ZOO=str(zoo), ATELIER_ZOO_POLL_SECONDS="0.2") as server:
        with go_live(server) as camera:
            ink = camera.paint(frame)[1].astype(int)
            shutil.copy(manifest, tmp_path / "before.toml")
            manifest.write_text(only_ink + "[[style]]" + wash.replace('"wash"', '"tint"'))
            until(lambda: "tint" in httpx.get(f"{server.url}/styles").text)
            assert np.abs(camera.paint(frame)[1] - ink).mean() < 1
            camera.say(type="change", style="tint")
            camera.hear("ready")
            assert np.abs(camera.paint(frame)[1] - ink).mean() > 10
            manifest.write_text(both)  # the style of the session is gone
            until(lambda: "tint" not in httpx.get(f"{server.url}/styles").text)
            camera.socket.send(frame)
            problem = camera.hear("error")["problem"]
            assert problem["type"] == "urn:atelier:error:style-not-found"
            camera.say(type="change", style="ink")
            camera.hear("ready")
            assert np.abs(camera.paint(frame)[1] - ink).mean() < 1
        status, errors = server.stop()
    assert (status, len(finished(errors))) == (0, 1)
