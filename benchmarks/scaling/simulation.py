"""simulate: one workload through one fleet, and what came of it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import simpy

from benchmarks.scaling.machines import Core, Line, Thread
from benchmarks.scaling.replica import Counts, Limits, Replica, on_a_core, on_a_gpu
from benchmarks.scaling.routing import ROUTERS

if TYPE_CHECKING:
    from collections.abc import Generator

    from benchmarks.scaling.times import ServiceTimes
    from benchmarks.scaling.workload import Kind, Workload

TRIES = 2
"""As ``proxy_next_upstream_tries`` in deploy/nginx/nginx.conf."""
_WARM_UP = 0.1
# Many times the weight of a thread: what has slept goes first when it wakes.
_WOKEN_WEIGHT = 100 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Replicas of one kind behind one balancer.

    Attributes:
        replicas: how many processes.
        per_gpu: how many of them share a GPU; 0: each has a core of its own, and no GPU.
        spare_cores: cores beside those of the replicas, for what runs outside of them.
    """

    times: ServiceTimes
    replicas: int
    limits: Limits = field(default_factory=Limits)
    per_gpu: int = 0
    routing: str = "least connections"
    spare_cores: int = 0


@dataclass(slots=True)
class Outcome:
    """What became of the requests that came after the warm-up.

    Attributes:
        latencies_s: of those answered.
        refused: how many got 429.
        window_s: from the end of the warm-up to the last arrival.
        arrived: all requests, with those of the warm-up.
        answered: all that were answered, with those of the warm-up.
        turned_away: all that were refused, with those of the warm-up.
        in_flight: neither; 0 where the run went on until all was done.
        counts: what each replica did.
        busy: share of the time in which the mean core, or GPU, worked.
    """

    latencies_s: np.ndarray
    refused: int
    window_s: float
    arrived: int
    answered: int
    turned_away: int
    in_flight: int
    counts: list[Counts]
    busy: float

    @property
    def rate(self) -> float:
        """Answered requests a second."""
        return len(self.latencies_s) / self.window_s

    @property
    def refused_share(self) -> float:
        return self.refused / max(1, self.refused + len(self.latencies_s))

    @property
    def mean_batch(self) -> float:
        return sum(c.jobs for c in self.counts) / max(1, sum(c.passes for c in self.counts))

    @property
    def mean_pass_s(self) -> float:
        return sum(c.passes_s for c in self.counts) / max(1, sum(c.passes for c in self.counts))

    @property
    def loads_share(self) -> float:
        """Networks loaded for each request."""
        return sum(c.loads for c in self.counts) / max(1, self.answered)

    @property
    def unevenness(self) -> float:
        """Requests of the busiest replica over those of the mean one."""
        taken = [c.taken for c in self.counts]
        return max(taken) * len(taken) / max(1, sum(taken))

    def percentile_s(self, percent: float) -> float:
        """Of the latencies; infinite where nothing was answered."""
        return float(np.percentile(self.latencies_s, percent)) if len(self.latencies_s) else np.inf


def simulate(
    fleet: Fleet, workload: Workload, *, seed: int, until_s: float | None = None
) -> Outcome:
    """Let ``workload`` come to ``fleet``; goes on until all is answered, or ``until_s``."""
    run = _Run(fleet, seed)
    run.env.process(run.send(workload))
    run.env.run(until_s)
    warm_s = workload.at_s[int(_WARM_UP * len(workload))]
    answered = [latency for came_s, latency in run.answered if came_s >= warm_s]
    end_s = min(workload.at_s[-1], until_s or np.inf)
    return run.outcome(answered, warm_s, end_s)


def closed_loop(
    fleet: Fleet, kind: Kind, *, clients: int, until_s: float, seed: int = 0
) -> Outcome:
    """Let ``clients`` send one request after another, as the benchmarks of the service do."""
    run = _Run(fleet, seed)

    def work() -> Generator[simpy.Event, object, None]:
        while True:
            yield run.env.process(run.request(kind, 0))

    for _ in range(clients):
        run.env.process(work())
    run.env.run(until_s)
    warm_s = _WARM_UP * until_s
    answered = [latency for came_s, latency in run.answered if came_s + latency >= warm_s]
    return run.outcome(answered, warm_s, until_s)


class _Run:
    """One simulation in progress."""

    def __init__(self, fleet: Fleet, seed: int) -> None:
        self.env = simpy.Environment()
        self.arrived = 0
        self.answered: list[tuple[float, float]] = []
        self.refused: list[float] = []
        self._chance = random.Random(seed)  # noqa: S311  # noise, not secrets
        self._times = fleet.times
        self.replicas = self._build(fleet)
        self._outside = [Thread(self.env, core, _WOKEN_WEIGHT) for core in self._cores]
        self._router = ROUTERS[fleet.routing](self.replicas, seed)

    def _build(self, fleet: Fleet) -> list[Replica]:
        if fleet.per_gpu:
            self._gpus = [Line(self.env) for _ in range(-(-fleet.replicas // fleet.per_gpu))]
            self._cores: list[Core] = []
            workers = [
                on_a_gpu(self.env, self._gpus[n // fleet.per_gpu]) for n in range(fleet.replicas)
            ]
        else:
            self._gpus = []
            self._cores = [Core(self.env) for _ in range(fleet.replicas + fleet.spare_cores)]
            workers = [on_a_core(self.env, core) for core in self._cores[: fleet.replicas]]
        return [Replica(self.env, fleet.times, fleet.limits, own) for own in workers]

    def outcome(self, latencies_s: list[float], warm_s: float, end_s: float) -> Outcome:
        """What came of it, of which ``warm_s`` to ``end_s`` counts."""
        return Outcome(
            latencies_s=np.array(latencies_s),
            refused=sum(came_s >= warm_s for came_s in self.refused),
            window_s=end_s - warm_s,
            arrived=self.arrived,
            answered=len(self.answered),
            turned_away=len(self.refused),
            in_flight=self.arrived - len(self.answered) - len(self.refused),
            counts=[replica.counts for replica in self.replicas],
            busy=self.busy_s() / self.env.now,
        )

    def busy_s(self) -> float:
        """Seconds that the mean GPU, or core, worked."""
        busy = [worker.busy_s for worker in self._gpus or self._cores]
        return sum(busy) / len(busy)

    def send(self, workload: Workload) -> Generator[simpy.Event, object, None]:
        """Let each request come at its time."""
        for at_s, kind, network in workload:
            yield self.env.timeout(at_s - self.env.now)
            self.env.process(self.request(kind, network))

    def request(self, kind: Kind, network: int) -> Generator[simpy.Event, object, None]:
        """One request, as its client sees it."""
        came_s = self.env.now
        self.arrived += 1
        noise = self._chance.choice(self._times.noise)
        if self._times.outside_s:
            yield self._on_any_core(self._times.outside_s / 2)
        refused_by = None
        for _ in range(min(TRIES, len(self.replicas))):
            replica = self._router.choose(network, refused_by)
            self._router.open(replica)
            served = yield from replica.stylize(kind, network, noise)
            self._router.close(replica)
            if served:
                if self._times.outside_s:
                    yield self._on_any_core(self._times.outside_s / 2)
                self.answered.append((came_s, self.env.now - came_s))
                return
            refused_by = replica
        self.refused.append(came_s)

    def _on_any_core(self, seconds: float) -> simpy.Event:
        """Work of client and balancer, on a core that is idle where there is one."""
        idle = [n for n, core in enumerate(self._cores) if core.is_idle]
        return self._outside[self._chance.choice(idle or range(len(self._cores)))].work(seconds)
