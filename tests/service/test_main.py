"""The process: starts that fail, and what only a real socket shows."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import torch
import uvicorn
from PIL import Image

from service.__main__ import _listen, _serve, main
from service.app import create_app

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def start_in_process(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tiny_zoo: Path
) -> Iterator[Callable[..., tuple[int, str]]]:
    """Call main() for a start that fails; gives exit status and standard error."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def start(**variables: str) -> tuple[int, str]:
        for name, value in ({"ATELIER_ZOO": str(tiny_zoo)} | variables).items():
            monkeypatch.setenv(name, value)
        status = main([])
        return status, capfd.readouterr().err

    yield start
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


def test_start_when_settings_are_wrong_then_one_line_for_each(
    start_in_process: Callable[..., tuple[int, str]],
) -> None:
    status, errors = start_in_process(ATELIER_PROT="1", ATELIER_MAX_IN_FLIGHT="0")
    assert status == 2
    lines = errors.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("atelier: ATELIER_PROT is not a setting")
    assert lines[1].startswith("atelier: ATELIER_MAX_IN_FLIGHT=0: ")


def test_start_when_the_port_is_in_use_then_says_what_to_do(
    start_in_process: Callable[..., tuple[int, str]],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        status, errors = start_in_process(ATELIER_PORT=str(port))
    assert status == 1
    assert errors == (
        f"atelier: port {port} on 127.0.0.1 is in use; stop what uses it or set ATELIER_PORT\n"
    )


def test_start_when_the_host_is_no_address_of_ours_then_says_so(
    start_in_process: Callable[..., tuple[int, str]],
) -> None:
    status, errors = start_in_process(ATELIER_HOST="192.0.2.1", ATELIER_PORT="0")
    assert status == 1
    assert errors.startswith("atelier: cannot listen on 192.0.2.1")
    assert errors.endswith("set ATELIER_HOST to an address of this machine\n")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_start_when_the_device_is_missing_then_names_the_setting(
    start_in_process: Callable[..., tuple[int, str]],
) -> None:
    status, errors = start_in_process(ATELIER_DEVICE="cuda")
    assert status == 1
    assert len(errors.splitlines()) == 1
    assert errors.endswith(
        "with ATELIER_DEVICE and ATELIER_RUNTIME at auto it takes what is there\n"
    )


def spoil_weights(zoo: Path) -> None:
    (zoo / "wash.safetensors").write_bytes(b"other")


def remove_manifest(zoo: Path) -> None:
    (zoo / "manifest.toml").unlink()


def empty_manifest(zoo: Path) -> None:
    (zoo / "manifest.toml").write_text("")


def break_manifest(zoo: Path) -> None:
    (zoo / "manifest.toml").write_text("[[style")


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (spoil_weights, "wash.safetensors: sha256 is"),
        (remove_manifest, "manifest.toml: cannot be read"),
        (empty_manifest, "manifest.toml: holds no style"),
        (break_manifest, "manifest.toml: is not valid TOML"),
    ],
)
def test_start_when_the_zoo_is_damaged_then_one_line_names_the_file(
    start_in_process: Callable[..., tuple[int, str]],
    make_zoo: Callable[[Path], Path],
    tmp_path: Path,
    spoil: Callable[[Path], None],
    complaint: str,
) -> None:
    spoil(make_zoo(tmp_path))
    status, errors = start_in_process(ATELIER_ZOO=str(tmp_path))
    assert status == 1
    assert len(errors.splitlines()) == 1
    assert complaint in errors


def test_serve_when_warm_up_fails_then_ends_with_one_line(
    make_settings: Callable[..., Any], stub_engine: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    stub_engine.fault = RuntimeError("no kernel for this device")
    settings = make_settings()
    status = _serve(create_app(settings, stub_engine), settings, _listen("127.0.0.1", 0))
    assert status == 1
    assert "atelier: warm-up failed: no kernel for this device\n" in capfd.readouterr().err


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_options_print_and_exit(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([option])
    assert caught.value.code == 0
    expected = {"--help": "ATELIER_MAX_BODY_BYTES", "--version": "atelier "}[option]
    assert expected in capsys.readouterr().out


def test_process_when_a_start_fails_then_exits_without_a_traceback(
    run_service: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    finished = run_service(ATELIER_DEVICE="abacus")
    assert finished.returncode == 2
    assert finished.stdout == ""
    assert finished.stderr.startswith("atelier: ATELIER_DEVICE=abacus: ")
    assert len(finished.stderr.splitlines()) == 1


def test_process_when_ready_then_prints_a_command_to_try(server: Any) -> None:
    assert server.greeting == (
        "ready: curl -F image=@photo.jpg -F style=ink -o out.jpg "
        f"http://127.0.0.1:{server.port}/stylize\n"
    )


def test_process_paints(server: Any, photo_jpeg: bytes) -> None:
    response = httpx.post(
        f"{server.url}/stylize", files={"image": photo_jpeg}, data={"style": "wash"}
    )
    assert Image.open(io.BytesIO(response.content)).size == (96, 64)
    assert "server" not in response.headers


def exchange(port: int, *chunks: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send raw bytes over one connection; give status, headers and body of the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        for chunk in chunks:
            connection.sendall(chunk)
        with connection.makefile("rb") as stream:
            status = int(stream.readline().split()[1])
            headers = {}
            while line := stream.readline().strip():
                name, _, value = line.decode().partition(": ")
                headers[name.lower()] = value
            return status, headers, stream.read(int(headers["content-length"]))


def head(*headers: str) -> bytes:
    lines = ("POST /stylize?style=ink HTTP/1.1", "Host: a", "Content-Type: image/jpeg", *headers)
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def test_body_when_content_length_is_too_large_then_413_before_any_byte(server: Any) -> None:
    status, headers, body = exchange(server.port, head(f"Content-Length: {21 * 2**20}"))
    assert status == 413
    assert headers["content-type"] == "application/problem+json"
    assert json.loads(body)["detail"] == "21.0 MiB exceeds the limit of 20.0 MiB"


def test_body_when_chunks_never_end_then_413_at_the_limit(server: Any) -> None:
    chunk = b"100000\r\n" + bytes(2**20) + b"\r\n"
    status, _, body = exchange(server.port, head("Transfer-Encoding: chunked"), *[chunk] * 21)
    assert status == 413
    assert "limit of 20.0 MiB" in json.loads(body)["detail"]


def test_body_when_chunked_then_is_read(server: Any, photo_jpeg: bytes) -> None:
    chunks = [f"{len(photo_jpeg):x}\r\n".encode(), photo_jpeg, b"\r\n0\r\n\r\n"]
    assert exchange(server.port, head("Transfer-Encoding: chunked"), *chunks)[0] == 200


def test_body_when_the_client_leaves_in_the_middle_then_the_service_goes_on(server: Any) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(head("Content-Length: 1000") + b"half")
    deadline = time.monotonic() + 10
    while 'status="499"' not in httpx.get(f"{server.url}/metrics").text:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert httpx.get(f"{server.url}/readyz").status_code == 200


@contextlib.contextmanager
def serving(app: Any) -> Iterator[int]:
    """Run ``app`` under uvicorn in a thread; gives its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(20)


def test_hang_up_cancels_the_job_before_it_is_painted(
    make_settings: Callable[..., Any], stub_engine: Any, photo_jpeg: bytes
) -> None:
    app = create_app(make_settings(), stub_engine)
    pipeline = app.state.pipeline

    def wait_until(holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 10
        while not holds():
            assert time.monotonic() < deadline
            time.sleep(0.005)

    request = head(f"Content-Length: {len(photo_jpeg)}") + photo_jpeg
    with serving(app) as port:
        wait_until(lambda: app.state.lifecycle.is_ready)
        stub_engine.gate.clear()
        with socket.create_connection(("127.0.0.1", port)) as painted:
            painted.sendall(request)
            wait_until(lambda: stub_engine.batches == [1])
            with socket.create_connection(("127.0.0.1", port)) as leaver:
                leaver.sendall(request)
                wait_until(lambda: len(pipeline._batcher) == 1)
                assert pipeline.gate.in_flight == 2
            wait_until(lambda: pipeline.gate.in_flight == 1)
            assert len(pipeline._batcher) == 0
            stub_engine.gate.set()
            assert painted.recv(12) == b"HTTP/1.1 200"
        wait_until(lambda: pipeline.gate.in_flight == 0)
        metrics = httpx.get(f"http://127.0.0.1:{port}/metrics").text
        assert 'route="/stylize",status="499",style="ink"} 1.0' in metrics
        assert "atelier_in_flight_requests 0.0" in metrics
    assert stub_engine.batches == [1]


@pytest.mark.slow
def test_process_when_terminated_then_drains_finishes_and_exits_0(
    start_service: Callable[..., contextlib.AbstractContextManager[Any]], photo_jpeg: bytes
) -> None:
    with start_service(ATELIER_DRAIN_S="1.5") as server:
        assert httpx.get(f"{server.url}/readyz").status_code == 200
        server.process.terminate()
        deadline = time.monotonic() + 1
        while (readiness := httpx.get(f"{server.url}/readyz")).status_code == 200:
            assert time.monotonic() < deadline
        assert readiness.json()["detail"] == "the service is draining; send requests elsewhere"
        painted = httpx.post(
            f"{server.url}/stylize",
            files={"image": photo_jpeg},
            data={"style": "ink"},
            headers={"X-Request-ID": "last-one"},
        )
        assert painted.status_code == 200
        assert painted.headers["connection"] == "close"
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(b"no http at all\r\n\r\n")  # which uvicorn itself complains of
            assert b"400" in connection.recv(20)
        _, errors = server.process.communicate(timeout=20)
    assert server.process.returncode == 0
    lines = [json.loads(line) for line in errors.splitlines()]
    assert "uvicorn.error" in {line["logger"] for line in lines}
    assert [line["event"] for line in lines if line["logger"] == "service.app"] == [
        "service_started",
        "service_stopped",
    ]
    (finished,) = [line for line in lines if line.get("request_id") == "last-one"]
    assert finished["event"] == "request_finished"


@pytest.mark.slow
def test_process_when_terminated_then_every_request_in_flight_gets_its_answer(
    start_service: Callable[..., contextlib.AbstractContextManager[Any]],
    photograph: Callable[..., Image.Image],
    encode: Callable[..., bytes],
) -> None:
    picture = encode(photograph(640, 640))
    with start_service() as server, ThreadPoolExecutor(4) as clients:

        def stylize() -> int:
            url = f"{server.url}/stylize?style=ink"
            return httpx.post(url, content=picture, timeout=60).status_code

        answers = [clients.submit(stylize) for _ in range(4)]
        deadline = time.monotonic() + 10
        while "in_flight_requests 4.0" not in httpx.get(f"{server.url}/metrics").text:
            assert time.monotonic() < deadline
        status, _ = server.stop()
        assert [answer.result() for answer in answers] == [200] * 4
    assert status == 0


@pytest.mark.slow
def test_process_when_interrupted_then_exits_0_at_once(
    start_service: Callable[..., contextlib.AbstractContextManager[Any]],
) -> None:
    with start_service() as server:
        status, errors = server.stop()
    assert status == 0
    assert "Traceback" not in errors


@pytest.mark.slow
def test_process_when_a_proxy_strips_a_prefix_then_links_carry_it(
    start_service: Callable[..., contextlib.AbstractContextManager[Any]],
) -> None:
    with start_service(ATELIER_ROOT_PATH="/atelier") as server:
        style = httpx.get(f"{server.url}/styles/ink").json()
        assert style["preview_url"] == "/atelier/styles/ink/preview"
        document = httpx.get(f"{server.url}/openapi.json").json()
        assert document["servers"] == [{"url": "/atelier"}]
        assert 'route="/styles/{style_id}"' in httpx.get(f"{server.url}/metrics").text
        server.stop()


HANGING_SERVICE = """
import sys, threading
import numpy as np
from service.__main__ import _listen, _serve
from service.app import create_app
from service.logs import configure_logging
from service.settings import Settings

class Engine:
    device, runtime, styles_loaded = "cpu", "none", 2
    passes_at_once, crowd = 1, 0
    def load(self, manifest): pass
    def keep(self, networks): pass
    def warm_up(self, cards, side_px): pass
    def most_px(self, card): return 10**9
    def layout(self, card): return None
    def device_memory_bytes(self): return 0
    def overlaps(self, job): return True
    def run(self, jobs): threading.Event().wait()

settings = Settings.from_environment()
configure_logging("info")
sys.exit(_serve(create_app(settings, Engine()), settings, _listen("127.0.0.1", 0)))
"""


@pytest.mark.slow
def test_process_when_the_device_hangs_then_answers_503_and_exits_3_with_one_line(
    start_service: Callable[..., contextlib.AbstractContextManager[Any]], photo_jpeg: bytes
) -> None:
    with start_service(code=HANGING_SERVICE, ATELIER_STALL_TIMEOUT_S="0.5") as server:
        answer = httpx.post(f"{server.url}/stylize?style=ink", content=photo_jpeg, timeout=20)
        assert answer.status_code == 503
        assert answer.json()["type"] == "urn:atelier:error:device-lost"
        _, errors = server.process.communicate(timeout=20)
    assert server.process.returncode == 3
    lines = [json.loads(line) for line in errors.splitlines()]
    (lost,) = [line for line in lines if line["event"] == "device_lost"]
    assert lost["level"] == "critical"
    assert "longer than 0.5 s" in lost["reason"]


@pytest.mark.slow
def test_process_when_the_device_hangs_and_may_not_end_then_liveness_says_so(
    start_service: Callable[..., contextlib.AbstractContextManager[Any]], photo_jpeg: bytes
) -> None:
    variables = {"ATELIER_STALL_TIMEOUT_S": "0.5", "ATELIER_EXIT_WHEN_LOST": "false"}
    with start_service(code=HANGING_SERVICE, **variables) as server:
        httpx.post(f"{server.url}/stylize?style=ink", content=photo_jpeg, timeout=20)
        time.sleep(1.5)  # longer than an end would take
        for path in ("/livez", "/readyz"):
            assert httpx.get(server.url + path).status_code == 503


@pytest.mark.slow
def test_process_when_terminated_while_the_device_hangs_then_exits_4_in_bounded_time(
    start_service: Callable[..., contextlib.AbstractContextManager[Any]], photo_jpeg: bytes
) -> None:
    with start_service(code=HANGING_SERVICE, ATELIER_REQUEST_TIMEOUT_S="0.5") as server:
        answer = httpx.post(f"{server.url}/stylize?style=ink", content=photo_jpeg, timeout=20)
        assert answer.status_code == 504
        status, errors = server.stop()
    assert status == 4
    events = [json.loads(line)["event"] for line in errors.splitlines()]
    assert events.count("shutdown_unfinished") == 1


@pytest.mark.slow
def test_process_when_terminated_twice_then_ends_at_once(
    start_service: Callable[..., contextlib.AbstractContextManager[Any]],
) -> None:
    with start_service(ATELIER_DRAIN_S="3600") as server:
        server.process.terminate()
        deadline = time.monotonic() + 10
        while httpx.get(f"{server.url}/readyz").status_code == 200:
            assert time.monotonic() < deadline
        assert httpx.get(f"{server.url}/livez").status_code == 200
        status, errors = server.stop()
    assert status == 128 + signal.SIGTERM
    assert json.loads(errors.splitlines()[-1]) | {"time": ""} == {
        "time": "",
        "level": "warning",
        "logger": "service.server",
        "event": "shutdown_forced",
        "signal": signal.SIGTERM,
    }


def closed(connection: socket.socket) -> bool:
    """Whether the other side has ended it, by a close or a reset."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.slow
def test_process_cuts_clients_by_its_own_time_limits(
    start_service: Callable[..., contextlib.AbstractContextManager[Any]],
) -> None:
    limits = {"ATELIER_HEAD_TIMEOUT_S": "0.2", "ATELIER_BODY_TIMEOUT_S": "0.2"}
    limits["ATELIER_MAX_CONNECTIONS"] = "1"
    with start_service(**limits) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as silent:
            assert silent.recv(1) == b""
        status, headers, body = exchange(server.port, head("Content-Length: 1000") + b"half")
        assert status == 408
        assert headers["connection"] == "close"
        assert "KiB/s" in json.loads(body)["detail"]
        with httpx.Client(base_url=server.url) as client:
            assert client.get("/livez").status_code == 200  # and keeps its connection
            with socket.create_connection(("127.0.0.1", server.port), timeout=20) as second:
                assert closed(second)
            metrics = client.get("/metrics").text
        assert 'atelier_cut_connections_total{reason="slow-sender"} 1.0' in metrics
        assert 'atelier_cut_connections_total{reason="too-many"} 1.0' in metrics
        server.stop()
