"""Calibration: a CPU's times, from real replicas of one core that answer one client each."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.balancer import pinned_to
from benchmarks.generators import style_of, write_zoo
from benchmarks.load import Call, make_form, make_jpeg, saturate
from benchmarks.scaling.times import Curve, Pass, ServiceTimes
from model_zoo.cards import Manifest
from service.jobs import StyleJob
from service.stylizer import Stylizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.load import Answer
    from benchmarks.servers import Server
    from service.runtimes import RuntimeName

GENERATORS = ("fast", "johnson_half")
CORES = sorted(os.sched_getaffinity(0))
_PROBE_SIDE_PX = 96
_BUSY_SIDE_PX = 256
_RETRY_S = 0.1
_MORE = 8


@dataclass(frozen=True, slots=True)
class Plan:
    """Sides in px by generator, and for how long each is sent."""

    sides_px: dict[str, tuple[int, ...]]
    seconds: float
    repeats: int


FULL = Plan({"fast": (128, 192, 256, 384, 512, 1024), "johnson_half": (128, 192, 256, 384)}, 2.0, 5)
QUICK = Plan({"fast": (128, 256, 384, 1024), "johnson_half": (128, 256, 384)}, 0.8, 2)


def calibrate(
    servers: Sequence[Server], balancer_url: str, plan: Plan, *, in_flight: int
) -> ServiceTimes:
    """Measure all ``servers``, that admit ``in_flight`` each, at once, as they will work later."""
    samples: dict[str, dict[str, dict[int, list[float]]]] = {}
    for generator, sides_px in plan.sides_px.items():
        stages = samples[generator] = defaultdict(dict)
        for side_px in sides_px:
            answers = _ask_all(servers, [picture_call(generator, side_px, side_px)], plan.seconds)
            for stage in ("decode", "stylize", "encode"):
                stages[stage][side_px**2] = [a.stages_ms[stage] / 1000 for a in answers]
    noise = [
        seconds / statistics.median(some)
        for stages in samples.values()
        for some in stages["stylize"].values()
        for seconds in some
    ]
    http_s = measure_http(servers[0], plan.seconds)
    return ServiceTimes(
        passes={name: Pass(0.0, _curve(stages["stylize"])) for name, stages in samples.items()},
        decode=_curve(samples["fast"]["decode"]),
        encode=_curve(samples["fast"]["encode"]),
        http_s=http_s,
        refusal_s=measure_refusal(balancer_url, in_flight * len(servers), plan.seconds),
        outside_s=measure_outside(balancer_url, http_s, plan.seconds),
        noise=tuple(np.quantile(noise, np.linspace(0.005, 0.995, 100)).tolist()),
    )


def picture_call(generator: str, height: int, width: int) -> Call:
    """A request to paint a photograph of that size."""
    return make_form(make_jpeg(width, height), style=style_of(generator))


def _ask_all(servers: Sequence[Server], calls: list[Call], seconds: float) -> list[Answer]:
    """Answers to one client of each server, all at once, after a warm-up."""

    def ask(server: Server) -> list[Answer]:
        saturate(server.url, calls, clients=1, count=2)
        return saturate(server.url, calls, clients=1, seconds=seconds)[0]

    with ThreadPoolExecutor(len(servers)) as pool:
        return [answer for answers in pool.map(ask, servers) for answer in answers]


def _curve(samples: dict[int, list[float]]) -> Curve:
    pixels = sorted(samples)
    seconds = [statistics.median(samples[count]) for count in pixels]
    return Curve(tuple(map(float, pixels)), tuple(seconds))


def measure_http(server: Server, seconds: float) -> float:
    """Processor time of a request besides its stages."""
    call = picture_call("fast", _PROBE_SIDE_PX, _PROBE_SIDE_PX)
    saturate(server.url, [call], clients=1, count=20)
    before_s = processor_s(server.process.pid)
    answers, _ = saturate(server.url, [call], clients=1, seconds=2 * seconds)
    used_s = (processor_s(server.process.pid) - before_s) / len(answers)
    return max(0.0, used_s - statistics.mean(map(_stages_s, answers)))


def measure_refusal(url: str, in_flight: int, seconds: float) -> float:
    """How much painting each of two full replicas loses for a request that both refuse.

    All that refusing costs on their cores is in it, and they share that of client and balancer.
    """
    call = picture_call("fast", _BUSY_SIDE_PX, _BUSY_SIDE_PX)

    def rates(clients: int) -> tuple[float, float]:
        ends_s = time.perf_counter() + 2 * seconds

        def ask(number: int) -> list[int]:  # noqa: ARG001
            statuses = []
            while time.perf_counter() < ends_s:
                ((answer,), _) = saturate(url, [call], clients=1, count=1)
                statuses.append(answer.status)
                time.sleep(_RETRY_S if statuses[-1] == 429 else 0)
            return statuses

        started = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            statuses = [status for some in pool.map(ask, range(clients)) for status in some]
        elapsed_s = time.perf_counter() - started
        return statuses.count(200) / elapsed_s, statuses.count(429) / elapsed_s

    full, _ = rates(in_flight)
    overfull, refusals = rates(in_flight + _MORE)
    return max(0.0, 1 - overfull / full) / refusals


def measure_outside(url: str, http_s: float, seconds: float) -> float:
    """How long a request through the balancer takes besides stages and event loop."""
    call = picture_call("fast", _PROBE_SIDE_PX, _PROBE_SIDE_PX)
    saturate(url, [call], clients=1, count=20)
    answers, _ = saturate(url, [call], clients=1, seconds=seconds)
    rest_s = [answer.waited_s - _stages_s(answer) for answer in answers]
    return max(0.0, statistics.median(rest_s) - http_s)


def _stages_s(answer: Answer) -> float:
    return sum(answer.stages_ms.values()) / 1000


def processor_s(pid: int) -> float:
    """Processor time of a process so far."""
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    user, system = stat.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def measure_load(runtime: RuntimeName, repeats: int) -> float:
    """Seconds until one more ``fast`` style is resident and has painted, over a later painting."""
    with tempfile.TemporaryDirectory() as folder, pinned_to(CORES[0]):
        styles = [f"s{number}" for number in range(repeats + 1)]
        manifest = write_zoo(Path(folder), dict.fromkeys(styles, "fast"))
        photo = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
        first, *others = manifest
        stylizer = Stylizer(
            Manifest(manifest.zoo, (first,)), device="cpu", runtime=runtime, threads=1
        )
        stylizer.run([StyleJob(first, photo)])  # what is done once a process, for any style
        taken_s = []
        for card in others:
            started = time.perf_counter()
            stylizer.load(Manifest(manifest.zoo, (card,)))
            stylizer.run([StyleJob(card, photo)])
            loaded = time.perf_counter()
            stylizer.run([StyleJob(card, photo)])
            taken_s.append(2 * loaded - started - time.perf_counter())
    return statistics.median(taken_s)
