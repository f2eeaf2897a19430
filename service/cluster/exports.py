"""MetricsExport: this process's metrics, given to Ray, which exports those of each node."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ray.serve import metrics as ray_metrics

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

_EVERY_S = 5.0
_OURS = "atelier_"


class MetricsExport:
    """Copies metrics into Ray's every few seconds.

    Prometheus finds them at each node's metrics port under the names that they have here behind
    ``ray_``, with the deployment and the replica as further labels.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._gauges: dict[str, Any] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, on the running event loop."""
        self._task = asyncio.create_task(self._copy_forever(), name="metrics-export")

    def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()

    def copy(self) -> None:
        """Give every sample as it is now."""
        for family in self._registry.collect():
            if not family.name.startswith(_OURS):
                continue  # of the process, which Ray has its own of
            for sample in family.samples:
                if not sample.name.endswith("_created"):
                    self._gauge(sample).set(sample.value, tags=sample.labels)

    def _gauge(self, sample: Any) -> Any:
        # Counts, too: Ray's histograms take no counts, and its counters put _total behind names.
        # Prometheus computes rates from either.
        if sample.name not in self._gauges:
            gauge = ray_metrics.Gauge(sample.name, tag_keys=tuple(sample.labels))
            self._gauges[sample.name] = gauge
        return self._gauges[sample.name]

    async def _copy_forever(self) -> None:
        while True:
            self.copy()
            await asyncio.sleep(_EVERY_S)
