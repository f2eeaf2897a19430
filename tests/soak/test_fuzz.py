"""Whatever bytes come, the answer is one of the documented refusals, and the next request works."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.load import Call, make_jpeg, saturate
from tests.soak.conftest import shipped_style
from tests.soak.mutations import mutated

if TYPE_CHECKING:
    from collections.abc import Callable

PICTURES = int(os.environ.get("SOAK_PICTURES", "5000"))
EXAMPLES = int(os.environ.get("SOAK_EXAMPLES", "400"))
REFUSALS = {400, 404, 406, 408, 413, 415, 422, 429}

HEAD = b"POST /stylize?style=starry-night HTTP/1.1\r\nHost: service\r\n"
ABUSE = {
    "no length": HEAD + b"\r\n",
    "length too short": HEAD + b"Content-Length: 4\r\n\r\n" + b"x" * 4000,
    "length too long": HEAD + b"Content-Length: 400000\r\n\r\nshort",
    "length negative": HEAD + b"Content-Length: -1\r\n\r\n",
    "length no number": HEAD + b"Content-Length: many\r\n\r\n",
    "length twice": HEAD + b"Content-Length: 3\r\nContent-Length: 5\r\n\r\nabcde",
    "length enormous": HEAD + b"Content-Length: 99999999999999999999\r\n\r\n",
    "chunks of garbage": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\ngarbage\r\n",
    "chunk size enormous": HEAD + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx",
    "chunks and length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "header of 1 MiB": HEAD + b"X-Long: " + b"a" * 2**20 + b"\r\n\r\n",
    "ten thousand headers": HEAD + b"X-One: 1\r\n" * 10_000 + b"\r\n",
    "no header ends": HEAD + b"X-Half",
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,
    "nothing but zeros": b"\x00" * 10_000,
    "line of 1 MiB": b"GET /" + b"a" * 2**20 + b" HTTP/1.1\r\nHost: service\r\n\r\n",
    "HTTP/9": b"GET /livez HTTP/9.9\r\nHost: service\r\n\r\n",
    "bare line feeds": b"GET /livez HTTP/1.1\nHost: service\n\n",
    "smuggled second": HEAD + b"Content-Length: 0\r\n\r\nGET /livez HTTP/1.1\r\nHost: s\r\n\r\n",
    "a hundred pipelined": b"GET /livez HTTP/1.1\r\nHost: service\r\n\r\n" * 100,
    "id with a line break": HEAD + b"X-Request-ID: a\r\n b: c\r\nContent-Length: 0\r\n\r\n",
    "upgrade": HEAD + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "expects an answer first": HEAD + b"Expect: 100-continue\r\nContent-Length: 10\r\n\r\n",
}


@pytest.mark.timeout(600)
def test_mutated_pictures_get_a_picture_or_a_refusal(
    start: Callable[..., Any], check: Callable[..., None]
) -> None:
    path = f"/stylize?{urlencode({'style': shipped_style(), 'max_side': 64})}"
    headers = {"Content-Type": "image/jpeg"}  # the bytes decide, whatever is said here
    calls = [Call(path, data, headers) for data in mutated(PICTURES, seed=1)]
    with start() as watched:
        tenth = len(calls) // 10
        first, _ = saturate(watched.server.url, calls[:tenth], clients=4, count=tenth)
        before = watched.server.resident_bytes
        rest, _ = saturate(watched.server.url, calls[tenth:], clients=4, count=len(calls) - tenth)
        statuses = Counter(answer.status for answer in first + rest)
        assert statuses.keys() <= {200} | REFUSALS, statuses
        check("mutated pictures answered", statuses.total(), least=PICTURES, most=PICTURES)
        check("mutated pictures painted all the same, share", statuses[200] / PICTURES, most=0.8)
        check("memory after mutated pictures", watched.server.resident_bytes / before, most=1.10)
        assert watched.settled()
        assert watched.paints()


@pytest.mark.timeout(600)
def test_sockets_that_speak_no_proper_http_harm_nobody(
    start: Callable[..., Any], check: Callable[..., None]
) -> None:
    with start() as watched:
        url = urlsplit(watched.server.url)
        descriptors = watched.descriptors()
        faults = 0
        for name, data in ABUSE.items():
            with socket.create_connection((url.hostname, url.port), timeout=5) as connection:
                answer = _talk(connection, data)
            assert not answer.startswith(b"HTTP/1.1 5"), (name, answer[:200])
            faults += answer.startswith(b"HTTP/1.1 4")
            assert watched.paints(), name
        check("abusive connections", len(ABUSE), least=20)
        check("of them refused in words", faults, least=5)
        assert watched.settled()
        check("open files after abuse", watched.descriptors() - descriptors, least=-9, most=3)


def _talk(connection: socket.socket, data: bytes) -> bytes:
    """Send what the other side takes, and read what it says within a second."""
    connection.settimeout(1)
    received = b""
    try:
        connection.sendall(data)
        while part := connection.recv(65536):
            received += part
    except OSError:
        pass  # closed in the middle, or it waits for more
    return received


WORDS = st.one_of(
    st.text(max_size=40),
    st.sampled_from(["", "0", "-1", "1e999", "nan", "true", "jpeg", "9" * 400, "../../etc", "%00"]),
    st.integers().map(str),
    st.floats().map(str),
)
NAMES = st.sampled_from(
    ["style", "max_side", "keep_colors", "strength", "seed", "format", "quality", "other"]
)


@pytest.mark.timeout(600)
def test_parameters_of_any_kind_are_taken_or_refused(
    start: Callable[..., Any], check: Callable[..., None]
) -> None:
    photo = make_jpeg(48, 32)
    statuses: Counter[int] = Counter()
    with start() as watched, httpx.Client(base_url=watched.server.url, timeout=30) as client:

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.dictionaries(NAMES, WORDS, max_size=5), st.booleans(), st.booleans())
        def ask(fields: dict[str, str], known: bool, as_form: bool) -> None:
            parameters = ({"style": shipped_style()} if known else {}) | {
                name: value.encode("utf-8", "replace").decode() for name, value in fields.items()
            }
            if as_form:
                form = {"image": ("photo", photo)}
                answer = client.post("/stylize", files=form, data=parameters)
            else:
                headers = {"Content-Type": "image/jpeg"}
                answer = client.post("/stylize", content=photo, params=parameters, headers=headers)
            statuses[answer.status_code] += 1
            assert answer.status_code in {200} | REFUSALS, answer.text
            if answer.status_code != 200:
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.json()["detail"]

        ask()
        check("parameter sets tried", statuses.total(), least=EXAMPLES)
        check("of them painted", statuses[200], least=1)
        assert watched.settled()
        assert watched.paints()


@pytest.mark.timeout(900)
def test_schemathesis_finds_nothing(
    start: Callable[..., Any], check: Callable[..., None], tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    with start() as watched:
        command = [
            str(Path(sys.executable).with_name("schemathesis")),
            *("--config-file", str(Path(__file__).with_name("schemathesis.toml"))),
            *("run", f"{watched.server.url}/openapi.json", "--checks", "all", "--seed", "1"),
            *("--max-examples", str(max(5, EXAMPLES // 10)), "--max-time", "150"),
            *("--report", "json", "--report-json-path", str(report), "--no-color"),
        ]
        # It leaves a folder behind, and would start from it the next time.
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=800, check=False, cwd=tmp_path
        )
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        check("bytes that schemathesis reports", report.stat().st_size, least=1000)
        assert watched.settled()
        assert watched.paints()
