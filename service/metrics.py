"""Metrics: every Prometheus metric of the service, declared once, with its unit in its name."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

Job = TypeVar("Job")
Result = TypeVar("Result")

STAGES = ("read", "decode", "queue", "stylize", "encode")
FAULTS = ("device-lost", "device-out-of-memory", "stylization-failed", "internal", "stalled")
RELOADS = ("done", "failed")
CUTS = ("slow-sender", "large-head", "slow-reader", "too-many")
LIVE_FRAMES = ("painted", "dropped", "refused")

GAUGES = {
    "ready": "1 where requests should be sent here, else 0.",
    "batcher_alive": "1 while pictures that wait will be painted, else 0.",
    "in_flight_requests": "Requests admitted now.",
    "in_flight_pixels": "Pixels of the pictures admitted now.",
    "body_memory_bytes": "Request bodies and answers held now.",
    "device_up": "1, or 0 once the device hangs or is lost.",
    "queue_jobs": "Pictures, or tiles of one, that wait for the device.",
    "styles_loaded": "Styles that are ready to paint.",
    "live_sessions": "Live sessions now.",
    "model_busy_for_seconds": "How long the present forward pass has run; 0 when idle.",
    "memory_budget_bytes": "Memory that passes may hold.",
    "device_memory_bytes": "Memory that generators and their work hold on the device.",
}
"""What is read from its owner when Prometheus asks, by name without ``atelier_``."""

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_PIXELS = tuple(float(2**power) for power in range(14, 26))


class Metrics:
    """The metrics of one application, in a registry of its own.

    ``problems`` are the kinds of problem document known beforehand. A series that exists from the
    start has a rate; one that appears with its first event has none.
    """

    def __init__(self, problems: Iterable[str] = ()) -> None:
        self.registry = CollectorRegistry()
        self._requests = self._counter(
            "requests",
            "Requests answered; a route is its template, a style one of the zoo's or unknown.",
            ("route", "style", "status"),
        )
        self._request_seconds = self._histogram(
            "request_seconds",
            "Time from a request's head to the end of its answer, by class of status.",
            _SECONDS,
            ("route", "status"),
        )
        self._stage_seconds = self._histogram(
            "stage_seconds", "Time a request spent in one stage.", _SECONDS, ("stage",)
        )
        self._batch_size = self._histogram(
            "batch_size",
            "Pictures, or tiles of one, in one forward pass.",
            (1, 2, 3, 4, 6, 8, 12, 16, 32),
        )
        self._batch_pixels = self._histogram(
            "batch_pixels", "Pixels in one forward pass, over all its pictures.", _PIXELS
        )
        self._problems = self._counter(
            "problems", "Requests that ended with a problem document, by its type.", ("problem",)
        )
        self._model_busy = self._counter(
            "model_busy_seconds", "Time in which at least one forward pass ran."
        )
        self._passes = _BusyTime()
        self._faults = self._counter(
            "runtime_faults", "Passes that failed, pictures they spoiled, and hangs.", ("fault",)
        )
        self._reloads = self._counter("reloads", "Reloads of the zoo, by outcome.", ("outcome",))
        self._cut_connections = self._counter(
            "cut_connections", "Connections cut off because of their client.", ("reason",)
        )
        self._live_frames = self._counter(
            "live_frames", "Frames of live sessions, by outcome.", ("outcome",)
        )
        self._live_frame_seconds = self._histogram(
            "live_frame_seconds", "Time from a live frame's arrival to its answer.", _SECONDS
        )
        self._build = Info("atelier_build", "What runs here.", registry=self.registry)
        self._zoo = Info("atelier_zoo", "Which zoo is loaded.", registry=self.registry)
        for series, values in (
            (self._stage_seconds, STAGES),
            (self._problems, problems),
            (self._faults, FAULTS),
            (self._reloads, RELOADS),
            (self._cut_connections, CUTS),
            (self._live_frames, LIVE_FRAMES),
        ):
            for value in values:
                series.labels(value)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def watch(self, **readers: Callable[[], float] | None) -> None:
        """Declare gauges, by their names in ``GAUGES``; what is read by None is not there."""
        for name, read in readers.items():
            if read is not None:
                gauge = Gauge(f"atelier_{name}", GAUGES[name], registry=self.registry)
                gauge.set_function(read)

    def watch_passes(
        self, run: Callable[[Sequence[Job]], Sequence[Result | Exception]]
    ) -> Callable[[Sequence[Job]], Sequence[Result | Exception]]:
        """Give ``run``, a forward pass, with its time and its faults counted."""

        def run_watched(jobs: Sequence[Job]) -> Sequence[Result | Exception]:
            self._passes.begin()
            try:
                results = run(jobs)
            except Exception as error:
                self.count_fault(_kind_of(error))
                raise
            finally:
                self._model_busy.inc(self._passes.end())
            for result in results:
                if isinstance(result, Exception):
                    self.count_fault(_kind_of(result))
            return results

        return run_watched

    def describe_build(self, **facts: str) -> None:
        """Say what runs here: version, device, runtime."""
        self._build.info(facts)

    def describe_zoo(self, digest: str) -> None:
        """Say which zoo is loaded, instead of the one before."""
        self._zoo.info({"digest": digest})

    def count_request(self, route: str, style: str, status: int, duration_s: float) -> None:
        """Count one answered request."""
        self._requests.labels(route, style, str(status)).inc()
        self._request_seconds.labels(route, f"{status // 100}xx").observe(duration_s)

    def count_problem(self, problem: str) -> None:
        """Count one request that ended with a problem document of this type."""
        self._problems.labels(problem).inc()

    def count_fault(self, fault: str) -> None:
        """Count one fault of the runtime, a model thread or the device."""
        self._faults.labels(fault).inc()

    def count_reload(self, outcome: str) -> None:
        """Count one reload of the zoo, of an outcome in ``RELOADS``."""
        self._reloads.labels(outcome).inc()

    def count_cut_connection(self, reason: str) -> None:
        """Count one connection that was cut off."""
        self._cut_connections.labels(reason).inc()

    def count_live_frame(self, outcome: str, seconds: float | None) -> None:
        """Count one frame, of an outcome in ``LIVE_FRAMES``; ``seconds`` until it was answered."""
        self._live_frames.labels(outcome).inc()
        if seconds is not None:
            self._live_frame_seconds.observe(seconds)

    def observe_batch(self, jobs: int, pixels: int) -> None:
        """Record the size of one forward pass."""
        self._batch_size.observe(jobs)
        self._batch_pixels.observe(pixels)

    def observe_stages(self, stages_s: Mapping[str, float]) -> None:
        """Record how long each stage of one request took."""
        for stage, seconds in stages_s.items():
            self._stage_seconds.labels(stage).observe(seconds)

    def render(self) -> bytes:
        """Give the text exposition format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, documentation: str, labels: tuple[str, ...] = ()) -> Counter:
        return Counter(f"atelier_{name}_total", documentation, labels, registry=self.registry)

    def _histogram(
        self,
        name: str,
        documentation: str,
        buckets: tuple[float, ...],
        labels: tuple[str, ...] = (),
    ) -> Histogram:
        return Histogram(
            f"atelier_{name}", documentation, labels, buckets=buckets, registry=self.registry
        )


class _BusyTime:
    """Time that passes take, once where they overlap; threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = 0
        self._since_s = 0.0

    def begin(self) -> None:
        """A pass begins."""
        with self._lock:
            if not self._running:
                self._since_s = time.perf_counter()
            self._running += 1

    def end(self) -> float:
        """A pass ends; give the seconds not yet given in which any ran."""
        with self._lock:
            self._running -= 1
            now_s = time.perf_counter()
            busy_s, self._since_s = now_s - self._since_s, now_s
            return busy_s


def _kind_of(error: Exception) -> str:
    """Give the type of its problem document, or that of an error nobody foresaw."""
    return str(getattr(error, "slug", "internal"))
