"""Validation: the same requests, at the same moments, to real replicas and to the model."""

from __future__ import annotations

import http.client
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import numpy as np

from benchmarks.balancer import pinned_to
from benchmarks.generators import style_of, write_zoo
from benchmarks.load import saturate
from benchmarks.nginx import run_nginx
from benchmarks.scaling.calibration import CORES, GENERATORS, picture_call, processor_s
from benchmarks.scaling.replica import Limits
from benchmarks.scaling.simulation import Fleet, simulate
from benchmarks.scaling.workload import Kind, draw
from benchmarks.servers import ServerError, run_service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.nginx import Balancer
    from benchmarks.scaling.times import ServiceTimes
    from benchmarks.scaling.workload import Workload
    from benchmarks.servers import Server

KINDS = tuple(
    Kind(generator, height, width)
    for generator in GENERATORS
    for height, width in ((192, 144), (144, 192), (256, 256), (256, 192), (384, 288), (288, 384))
)
IN_FLIGHT = 6
"""Of each replica; few, so that a short overload is refused."""
CLIENTS = 48
MODEL_SEEDS = 8
MAX_OTHERS = 0.04
"""Share of the machine that others may have in a measurement, or it is done again."""
_TRIES = 3
_SETTLE_S = 0.3

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Case:
    """How many replicas, and how many times what they can do is asked of them."""

    replicas: int
    load: float


@contextmanager
def run_replicas(folder: Path, count: int) -> Iterator[tuple[list[Server], Balancer]]:
    """Run ``count`` replicas, each with a core of its own, behind nginx."""
    zoo, nginx = folder / "zoo", folder / "nginx"
    zoo.mkdir()
    nginx.mkdir()
    write_zoo(zoo, {style_of(name): name for name in GENERATORS})
    with ExitStack() as stack:
        servers = []
        for core in CORES[:count]:
            with pinned_to(core):
                limit = {"ATELIER_MAX_IN_FLIGHT": str(IN_FLIGHT)}
                servers.append(stack.enter_context(run_service(zoo, 1, **limit)))
        addresses = [urlsplit(server.url).netloc for server in servers]
        yield servers, stack.enter_context(run_nginx(addresses, nginx))


def warm_up(servers: list[Server]) -> None:
    """Let every server paint every kind twice: the first time of a size makes its kernels."""
    calls = [picture_call(kind.generator, kind.height, kind.width) for kind in KINDS]
    for server in servers:
        saturate(server.url, calls, clients=1, count=2 * len(calls))


def capacity(times: ServiceTimes, replicas: int) -> float:
    """Requests a second that replicas can do of KINDS, by the times alone."""
    each_s = [
        times.host_s(kind.pixels) + times.passes[kind.generator](kind.pixels, 1) for kind in KINDS
    ]
    return replicas / float(np.mean(each_s))


def compare(
    case: Case, times: ServiceTimes, servers: list[Server], balancer: Balancer, *, seconds: float
) -> dict[str, Any]:
    """Send one workload to the real replicas, and then to the model of them.

    Where others took part of the machine meanwhile, the real replicas are asked once more.
    """
    rate = case.load * capacity(times, case.replicas)
    workload = draw(KINDS, rate=rate, count=round(rate * seconds), seed=1)
    for _ in range(_TRIES):
        real, others = others_share(servers, balancer, lambda: replay(balancer.url, workload))
        if others <= MAX_OTHERS:
            break
    fleet = Fleet(
        times=times,
        replicas=case.replicas,
        limits=Limits(max_in_flight=IN_FLIGHT),
        spare_cores=len(CORES) - case.replicas,
    )
    runs = [simulate(fleet, workload, seed=number) for number in range(MODEL_SEEDS)]
    modelled = {
        "images_per_s": float(np.mean([run.rate for run in runs])),
        "p50_ms": float(np.mean([run.percentile_s(50) for run in runs])) * 1000,
        "p99_ms": float(np.mean([run.percentile_s(99) for run in runs])) * 1000,
        "refused": float(np.mean([run.refused_share for run in runs])),
    }
    row: dict[str, Any] = {
        "replicas": case.replicas,
        "load": case.load,
        "requests": len(workload),
        "others": round(others, 4),
        "real": {key: round(value, 4) for key, value in real.items()},
        "model": {key: round(value, 4) for key, value in modelled.items()},
        "refused_off": round(abs(modelled["refused"] - real["refused"]), 4),
    }
    for key in ("images_per_s", "p50_ms", "p99_ms"):
        row[f"{key}_off"] = round(abs(modelled[key] / real[key] - 1), 4)
    return row


def others_share(
    servers: list[Server], balancer: Balancer, work: Callable[[], T]
) -> tuple[T, float]:
    """Do ``work``; also give the share of the machine's time that went to none of its own."""
    before, started = _processor_times(servers, balancer), time.perf_counter()
    result = work()
    elapsed_s, after = time.perf_counter() - started, _processor_times(servers, balancer)
    busy_s, own_s = (b - a for a, b in zip(before, after, strict=True))
    return result, max(0.0, busy_s - own_s) / elapsed_s / (os.cpu_count() or 1)


def _processor_times(servers: list[Server], balancer: Balancer) -> tuple[float, float]:
    """Seconds of the machine's processors in use so far; of this process, nginx and the servers."""
    fields = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]
    user, nice, system, _, _, irq, softirq, steal = map(int, fields)
    busy_s = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    own = [server.process.pid for server in servers]
    children = Path(f"/proc/{balancer.process.pid}/task/{balancer.process.pid}/children")
    own += map(int, children.read_text(encoding="ascii").split())
    return busy_s, time.process_time() + sum(map(processor_s, own))


def replay(url: str, workload: Workload) -> dict[str, float]:
    """Send every request at its moment, whether or not others are answered, and time the answers.

    Raises:
        ServerError: an answer is neither a painting nor a refusal.
    """
    calls = {kind: picture_call(kind.generator, kind.height, kind.width) for kind in KINDS}
    address, order, lock = urlsplit(url).netloc, iter(list(workload)), threading.Lock()
    started = time.perf_counter() + _SETTLE_S

    def work(connection: http.client.HTTPConnection) -> list[tuple[float, int, float]]:
        answers: list[tuple[float, int, float]] = []
        while True:
            with lock:
                request = next(order, None)
            if request is None:
                return answers
            at_s, kind, _ = request
            time.sleep(max(0.0, started + at_s - time.perf_counter()))
            call = calls[kind]
            connection.request("POST", call.path, call.body, call.headers)
            response = connection.getresponse()
            response.read()
            answers.append((at_s, response.status, time.perf_counter() - started - at_s))

    with ThreadPoolExecutor(CLIENTS) as pool, ExitStack() as stack:
        connections = [
            stack.enter_context(closing(http.client.HTTPConnection(address, timeout=60)))
            for _ in range(CLIENTS)
        ]
        answers = [answer for some in pool.map(work, connections) for answer in some]
    strange = {status for _, status, _ in answers} - {200, 429}
    if strange:
        raise ServerError(f"the replicas answered {strange}")
    # The same cut as in the model.
    warm_s = workload.at_s[len(workload) // 10]
    late = [answer for answer in answers if answer[0] >= warm_s]
    taken_s = [taken for _, status, taken in late if status == 200]
    p50, p99 = np.percentile(taken_s, (50, 99)) * 1000
    return {
        "images_per_s": len(taken_s) / float(workload.at_s[-1] - warm_s),
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "refused": 1 - len(taken_s) / len(late),
    }
