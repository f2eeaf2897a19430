"""Metrics: every Prometheus metric of the service, declared once, with its unit in its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

STAGES = ("read", "decode", "queue", "stylize", "encode")
CUTS = ("slow-sender", "large-head", "slow-reader")
REJECTIONS = ("busy", "not-ready", "device-out-of-memory", "device-lost", "deadline-passed")

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_PIXELS = tuple(float(2**power) for power in range(14, 26))


class Metrics:
    """The metrics of one application, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "atelier_requests_total",
            "Requests answered; a route is its template, a style one of the zoo's or unknown.",
            ("route", "style", "status"),
            registry=self.registry,
        )
        self._stage_seconds = Histogram(
            "atelier_stage_seconds",
            "Time a request spent in one stage.",
            ("stage",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._batch_size = Histogram(
            "atelier_batch_size",
            "Pictures, or tiles of one, in one forward pass.",
            buckets=(1, 2, 3, 4, 6, 8, 12, 16, 32),
            registry=self.registry,
        )
        self._batch_pixels = Histogram(
            "atelier_batch_pixels",
            "Pixels in one forward pass, over all its pictures.",
            buckets=_PIXELS,
            registry=self.registry,
        )
        self._rejected = Counter(
            "atelier_rejected_total",
            "Requests that were valid and not served, by reason.",
            ("reason",),
            registry=self.registry,
        )
        self._cut_connections = Counter(
            "atelier_cut_connections_total",
            "Connections that were cut off because their client took too long, by reason.",
            ("reason",),
            registry=self.registry,
        )
        # A series that exists from the start has a rate; one that appears with an event has none.
        for stage in STAGES:
            self._stage_seconds.labels(stage)
        for reason in REJECTIONS:
            self._rejected.labels(reason)
        for reason in CUTS:
            self._cut_connections.labels(reason)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def watch(
        self,
        *,
        in_flight_requests: Callable[[], int],
        in_flight_pixels: Callable[[], int],
        body_bytes: Callable[[], int],
        device_up: Callable[[], bool],
        queue_jobs: Callable[[], int],
        styles_loaded: Callable[[], int],
        device_memory_bytes: Callable[[], int] | None,
    ) -> None:
        """Declare the gauges, each read from its owner when Prometheus asks.

        ``device_memory_bytes`` is None where generators run in the process's own memory.
        """
        self._gauge("atelier_in_flight_requests", "Requests admitted now.", in_flight_requests)
        self._gauge("atelier_in_flight_pixels", "Pixels of their pictures.", in_flight_pixels)
        self._gauge("atelier_body_bytes", "Bytes of bodies and answers in memory.", body_bytes)
        self._gauge("atelier_device_up", "1, or 0 once the device hangs or is lost.", device_up)
        self._gauge("atelier_queue_jobs", "Pictures that wait for the device.", queue_jobs)
        self._gauge("atelier_styles_loaded", "Styles that are ready to paint.", styles_loaded)
        if device_memory_bytes is not None:
            self._gauge(
                "atelier_device_memory_bytes",
                "Memory that generators and their work hold on the device.",
                device_memory_bytes,
            )

    def count_request(self, route: str, style: str, status: int) -> None:
        """Count one answered request."""
        self._requests.labels(route, style, str(status)).inc()

    def count_rejection(self, reason: str) -> None:
        """Count one request that was valid and not served."""
        self._rejected.labels(reason).inc()

    def count_cut_connection(self, reason: str) -> None:
        """Count one connection that was cut off."""
        self._cut_connections.labels(reason).inc()

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

    def _gauge(self, name: str, documentation: str, read: Callable[[], int]) -> None:
        Gauge(name, documentation, registry=self.registry).set_function(read)
