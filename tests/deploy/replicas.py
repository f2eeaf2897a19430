"""Replicas that end and start again on the same port, and load that goes on meanwhile."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from benchmarks.balancer import pinned_to
from benchmarks.load import make_form, make_jpeg, saturate
from benchmarks.nginx import free_port
from benchmarks.servers import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from benchmarks.load import Answer, Call

WITHIN_S = 90.0


class Replica:
    """``python -m service`` with one thread on one core, at an address that stays the same."""

    def __init__(self, zoo: Path, log: Path, core: int, **variables: str) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.url = f"http://{self.address}"
        self._log = log
        self._core = core
        self._variables = {
            "ATELIER_ZOO": str(zoo),
            "ATELIER_PORT": self.address.rpartition(":")[2],
            "ATELIER_DEVICE": "cpu",
            "ATELIER_MODEL_THREADS": "1",
            "ATELIER_CODEC_THREADS": "1",
            "FORWARDED_ALLOW_IPS": "*",
        } | variables
        self._process: subprocess.Popen[str] | None = None

    @property
    def process(self) -> subprocess.Popen[str]:
        assert self._process is not None, "it was never started"
        return self._process

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, **variables: str) -> None:
        """Start it, with other settings for this time; does not wait until it is ready."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("ATELIER_")}
        with self._log.open("ab") as log, pinned_to(self._core):
            self._process = subprocess.Popen(
                [sys.executable, "-m", "service"],
                env=own | self._variables | variables,
                stdout=subprocess.DEVNULL,
                stderr=log,
                text=True,
            )

    def is_ready(self) -> bool:
        assert self.is_running, self._log.read_text(encoding="utf-8")
        try:
            return fetch(self.url, "/readyz").status == 200
        except OSError:
            return False

    def end(self, sent: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, wait for the end and give the exit status."""
        self.process.send_signal(sent)
        return self.process.wait(WITHIN_S)

    def metric(self, name: str) -> float:
        """The sum over all series of a metric."""
        return Server(self.process, self.url).read_metric(name)

    @property
    def in_flight(self) -> int:
        return int(self.metric("atelier_in_flight_requests"))

    @property
    def painted(self) -> int:
        """Pictures painted since it was started."""
        return int(self.metric("atelier_batch_size_sum"))

    def events(self, name: str = "request_finished") -> list[dict[str, Any]]:
        """Its log lines of one event, over all its starts."""
        lines = map(json.loads, self._log.read_text(encoding="utf-8").splitlines())
        return [line for line in lines if line["event"] == name]


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer with all that it came with."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def problem(self) -> dict[str, Any]:
        assert self.headers["Content-Type"] == "application/problem+json", self
        problem: dict[str, Any] = json.loads(self.body)
        assert problem["status"] == self.status
        return problem


def fetch(
    url: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] = {},
) -> Fetched:
    """Send one request on a connection of its own; ``path`` goes as it is."""
    with closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=WITHIN_S)) as connection:
        connection.request("POST" if body is not None else "GET", path, body, dict(headers))
        answer = connection.getresponse()
        return Fetched(answer.status, answer.headers, answer.read())


def post(url: str, call: Call, **headers: str) -> Fetched:
    """Send ``call``, with more headers, whose names have _ for -."""
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return fetch(url, call.path, call.body, call.headers | more)


def picture(style: str, side_px: int, **fields: str) -> Call:
    """A photograph to be painted in its own size."""
    return make_form(make_jpeg(side_px, side_px), style=style, max_side="4096", **fields)


def wait_until(is_true: Callable[[], object], within_s: float = WITHIN_S) -> None:
    """Ask again and again."""
    ends_s = time.monotonic() + within_s
    while not is_true():
        assert time.monotonic() < ends_s, "it did not happen in time"
        time.sleep(0.05)


@contextmanager
def under_load(url: str, call: Call, *, clients: int = 6) -> Iterator[list[Answer]]:
    """Let clients send one call after another for the length of the block.

    Each has a connection that it keeps for a second. What one of them meets beside an answer, as a
    connection that breaks off, is raised at the end of the block.
    """
    answers: list[Answer] = []
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            answers.extend(saturate(url, [call], clients=clients, seconds=1.0)[0])

    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(work)
        try:
            yield answers
        finally:
            over.set()
    load.result()


@contextmanager
def held(call: Call, *replicas: Replica) -> Iterator[None]:
    """Keep a place in flight taken in each by ``call``, which is good and outlasts the block."""
    with ThreadPoolExecutor(len(replicas)) as pool:
        paintings = [pool.submit(post, replica.url, call) for replica in replicas]
        wait_until(lambda: all(replica.in_flight == 1 for replica in replicas))
        yield
        assert not any(it.done() for it in paintings), "a picture was painted too soon"
        assert [it.result().status for it in paintings] == [200] * len(replicas)
