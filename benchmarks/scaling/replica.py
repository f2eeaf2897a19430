"""A replica of the model: the service's gate, batcher and threads, without the pictures."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.scaling.machines import STEPPED_BACK_WEIGHT, Core, Line, Thread

if TYPE_CHECKING:
    from collections.abc import Generator, Hashable

    import simpy

    from benchmarks.scaling.machines import Worker
    from benchmarks.scaling.times import ServiceTimes
    from benchmarks.scaling.workload import Kind

    Steps = Generator[simpy.Event, object, bool]


@dataclass(frozen=True, slots=True)
class Limits:
    """The service's own settings; by default those that it has by default on a CPU."""

    max_in_flight: int = 32
    max_in_flight_pixels: int = 64 * 2**20
    max_batch_jobs: int = 1
    max_batch_pixels: int = 4 * 2**20
    passes_at_once: int = 1
    resident_networks: int | None = None


ON_CUDA = Limits(max_batch_jobs=8, passes_at_once=2)


@dataclass(slots=True, eq=False)
class Job:
    """A picture that waits for its pass."""

    kind: Kind
    network: int
    noise: float
    painted: simpy.Event

    @property
    def key(self) -> Hashable:
        return self.network, self.kind.height, self.kind.width


@dataclass(slots=True)
class Workers:
    """What a replica works with; some may be the same, or shared with other replicas.

    ``wakes`` is what a pass has to have for a moment before and after, though it does no work.
    """

    loop: Worker
    codec: Worker
    painter: Worker
    loader: Worker
    wakes: Worker | None = None


def on_a_core(env: simpy.Environment, core: Core) -> Workers:
    """One core, one model thread, one codec thread that steps back, and the event loop."""
    painter = Thread(env, core)
    codec = Thread(env, core, STEPPED_BACK_WEIGHT)
    return Workers(Thread(env, core), codec, painter, loader=painter)


def on_a_gpu(env: simpy.Environment, gpu: Line) -> Workers:
    """A process whose host work is done under the interpreter's lock, on a GPU that it shares."""
    lock = Line(env)
    return Workers(lock, lock, gpu, loader=lock, wakes=lock)


@dataclass(slots=True)
class Counts:
    """What a replica did: requests taken and refused, passes and the jobs in them, networks loaded.

    ``passes_s`` is how long all passes took, with what they waited for.
    """

    taken: int = 0
    refused: int = 0
    passes: int = 0
    jobs: int = 0
    loads: int = 0
    passes_s: float = 0.0


@dataclass(slots=True, eq=False)
class Replica:
    """Takes one request after another through what the service does with it.

    ``connections`` is the balancer's: how many requests it has sent here that are not answered.
    """

    env: simpy.Environment
    times: ServiceTimes
    limits: Limits
    workers: Workers
    connections: int = 0
    in_flight: int = 0
    pixels: int = 0
    counts: Counts = field(default_factory=Counts)
    _waiting: list[Job] = field(default_factory=list)
    _running: int = 0
    _resident: OrderedDict[int, None] = field(default_factory=OrderedDict)

    def stylize(self, kind: Kind, network: int, noise: float) -> Steps:
        """One request, in the pipeline's order; gives whether it was admitted."""
        if not self._has_room(kind.pixels):
            self.counts.refused += 1
            yield self.workers.loop.work(self.times.refusal_s)
            return False
        self.counts.taken += 1
        self.in_flight += 1
        self.pixels += kind.pixels
        yield self.workers.loop.work(self.times.http_s / 2)
        yield self.workers.codec.work(self.times.decode(kind.pixels))
        job = Job(kind, network, noise, self.env.event())
        self._waiting.append(job)
        self._start_passes()
        yield job.painted
        yield self.workers.codec.work(self.times.encode(kind.pixels))
        self.in_flight -= 1
        self.pixels -= kind.pixels
        yield self.workers.loop.work(self.times.http_s / 2)
        return True

    def _has_room(self, pixels: int) -> bool:
        fits = not self.pixels or self.pixels + pixels <= self.limits.max_in_flight_pixels
        return fits and self.in_flight < self.limits.max_in_flight

    def _start_passes(self) -> None:
        while self._waiting and self._running < self.limits.passes_at_once:
            batch, is_full = self._next_batch()
            if self._running and not is_full:
                return
            mates = set(map(id, batch))
            self._waiting = [job for job in self._waiting if id(job) not in mates]
            self._running += 1
            self.env.process(self._paint(batch))

    def _next_batch(self) -> tuple[list[Job], bool]:
        """The oldest job and those behind it that may share its pass; whether more never could."""
        key, most_px = self._waiting[0].key, self.limits.max_batch_pixels
        alike = [job for job in self._waiting if job.key == key]
        each_px = alike[0].kind.pixels
        most = max(1, min(self.limits.max_batch_jobs, most_px // each_px))
        is_full = len(alike) >= self.limits.max_batch_jobs or len(alike) * each_px >= most_px
        return alike[:most], is_full

    def _paint(self, batch: list[Job]) -> Generator[simpy.Event, object, None]:
        first, started_s = batch[0], self.env.now
        self.counts.passes += 1
        self.counts.jobs += len(batch)
        if self._load(first.network):
            yield self.workers.loader.work(self.times.load_s)
        if self.workers.wakes:
            yield self.workers.wakes.work(0.0)
        pass_s = self.times.passes[first.kind.generator](first.kind.pixels, len(batch))
        yield self.workers.painter.work(pass_s * first.noise)
        if self.workers.wakes:
            yield self.workers.wakes.work(0.0)
        self.counts.passes_s += self.env.now - started_s
        self._running -= 1
        for job in batch:
            job.painted.succeed()
        self._start_passes()

    def _load(self, network: int) -> bool:
        """Make ``network`` the last used; whether it has to be loaded for that."""
        most = self.limits.resident_networks
        if most is None:
            return False
        is_new = network not in self._resident
        self._resident[network] = None
        self._resident.move_to_end(network)
        if is_new:
            self.counts.loads += 1
            if len(self._resident) > most:
                self._resident.popitem(last=False)
        return is_new
