"""Load on an HTTP server, by threads that each keep a connection open; no benchmark itself.

http.client costs a fraction of what other clients do: on a small machine the load itself is load.
"""

from __future__ import annotations

import http.client
import io
import itertools
import math
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import numpy as np
from PIL import Image
from skimage import data as skimage_data

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_BOUNDARY = "atelier-benchmark"
_TIMEOUT_S = 900.0


@dataclass(frozen=True, slots=True)
class Call:
    """One request, ready to send again and again."""

    path: str
    body: bytes
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    """How one call went: ``waited_s`` from when it was due; ``stages_ms`` by Server-Timing.

    ``body`` is empty unless it was asked for.
    """

    status: int
    waited_s: float
    stages_ms: dict[str, float] = field(default_factory=dict)
    body: bytes = b""


def make_jpeg(width: int, height: int, name: str = "astronaut") -> bytes:
    """A photograph as phones send it."""
    picture = Image.fromarray(getattr(skimage_data, name)())
    buffer = io.BytesIO()
    picture.resize((width, height), Image.Resampling.LANCZOS).save(buffer, "jpeg", quality=90)
    return buffer.getvalue()


def make_form(image: bytes, path: str = "/stylize", **fields: str) -> Call:
    """A multipart form with the file ``image``."""
    parts = [
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    head = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="photo.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    )
    body = "".join(parts).encode() + head.encode() + image + f"\r\n--{_BOUNDARY}--\r\n".encode()
    return Call(path, body, {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"})


def saturate(
    url: str,
    calls: Sequence[Call],
    *,
    clients: int,
    seconds: float = math.inf,
    count: float = math.inf,
    keep_body: bool = False,
) -> tuple[list[Answer], float]:
    """Let ``clients`` send one call after another, for so long or until ``count`` are sent.

    Returns:
        Their answers, and the seconds that all took.
    """
    numbers, ends_s = itertools.count(), time.perf_counter() + seconds

    def work(connection: http.client.HTTPConnection) -> list[Answer]:
        answers = []
        while time.perf_counter() < ends_s and (number := next(numbers)) < count:
            call = calls[number % len(calls)]
            answers.append(_send(connection, call, keep_body=keep_body))
        return answers

    started = time.perf_counter()
    answers = _in_threads(url, clients, work)
    return answers, time.perf_counter() - started


def arrive(
    url: str, calls: Sequence[Call], *, rate: float, seconds: float, clients: int = 32
) -> list[Answer]:
    """Send calls at a constant rate, whether or not earlier ones are answered.

    A call that finds all ``clients`` busy is late, and its lateness counts as waiting.
    """
    numbers, count, started = itertools.count(), round(rate * seconds), time.perf_counter()

    def work(connection: http.client.HTTPConnection) -> list[Answer]:
        answers = []
        while (number := next(numbers)) < count:
            due_s = started + number / rate
            time.sleep(max(0.0, due_s - time.perf_counter()))
            answers.append(_send(connection, calls[number % len(calls)], due_s))
        return answers

    return _in_threads(url, clients, work)


def percentiles_ms(answers: Sequence[Answer]) -> dict[str, float]:
    """Median, 95th and 99th percentile of how long answers took, in ms."""
    waited_ms = [answer.waited_s * 1000 for answer in answers]
    p50, p95, p99 = np.percentile(waited_ms, (50, 95, 99)).round(2).tolist()
    return {"p50_ms": p50, "p95_ms": p95, "p99_ms": p99}


def median_stages_ms(answers: Sequence[Answer]) -> dict[str, float]:
    """Median of each stage that the answers name, in ms."""
    stages = answers[0].stages_ms
    return {
        stage: round(float(np.median([answer.stages_ms[stage] for answer in answers])), 2)
        for stage in stages
    }


def _in_threads(
    url: str, clients: int, work: Callable[[http.client.HTTPConnection], list[Answer]]
) -> list[Answer]:
    address = urlsplit(url).netloc
    with ThreadPoolExecutor(clients) as pool, ExitStack() as open_connections:
        connections = [
            open_connections.enter_context(
                closing(http.client.HTTPConnection(address, timeout=_TIMEOUT_S))
            )
            for _ in range(clients)
        ]
        return [answer for answers in pool.map(work, connections) for answer in answers]


def _send(
    connection: http.client.HTTPConnection,
    call: Call,
    due_s: float | None = None,
    *,
    keep_body: bool = False,
) -> Answer:
    started = due_s or time.perf_counter()
    connection.request("POST", call.path, call.body, call.headers)
    response = connection.getresponse()
    body = response.read()
    waited_s = time.perf_counter() - started
    timing = response.getheader("Server-Timing", "")
    stages = (stage.partition(";dur=") for stage in timing.split(", ") if stage)
    stages_ms = {name: float(ms) for name, _, ms in stages}
    return Answer(response.status, waited_s, stages_ms, body if keep_body else b"")
