"""Stages: how long each part of a request takes, for the log, the metrics and the trace."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from opentelemetry import trace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.util.types import AttributeValue

_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Stages:
    """Seconds by stage, summed where one is entered again, and a span each time.

    Spans are children of the current one, which is that of the request. Where it is not recorded,
    because tracing is off or the request was not sampled, there are none.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    tracer: trace.Tracer = field(default_factory=trace.NoOpTracer)

    def add(
        self, stage: str, seconds: float, *, ended_s_ago: float = 0.0, **attributes: AttributeValue
    ) -> None:
        """Record a stage that has ended; ``attributes`` are its span's."""
        self._record(stage, seconds, ended_s_ago, attributes, failed=False)

    @contextmanager
    def timed(self, stage: str, **attributes: AttributeValue) -> Iterator[None]:
        """Record the block as a stage, also where it fails."""
        started = time.perf_counter()
        failed = True
        try:
            yield
            failed = False
        finally:
            self._record(stage, time.perf_counter() - started, 0.0, attributes, failed=failed)

    def describe(self, **attributes: AttributeValue) -> None:
        """Say something of the whole request on its span."""
        span = trace.get_current_span()
        if span.is_recording():
            span.set_attributes(_prefixed(attributes))

    def _record(
        self,
        stage: str,
        seconds: float,
        ended_s_ago: float,
        attributes: dict[str, AttributeValue],
        *,
        failed: bool,
    ) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        if not trace.get_current_span().is_recording():
            return
        end_ns = time.time_ns() - int(ended_s_ago * _NS)
        span = self.tracer.start_span(
            stage, start_time=end_ns - int(seconds * _NS), attributes=_prefixed(attributes)
        )
        if failed:
            span.set_status(trace.StatusCode.ERROR)
        span.end(end_ns)


def _prefixed(attributes: dict[str, AttributeValue]) -> dict[str, AttributeValue]:
    return {f"atelier.{name}": value for name, value in attributes.items()}
