"""python -m tests.soak.faulty: the service with faults planted in its engine, by SOAK_FAULTS.

``crash``, ``memory`` and ``pause`` happen at random, as in life: an exception, no memory, a pause.
``leak`` and ``lose`` are what the chaos test must notice: memory that is never given back, and a
request that is never answered and keeps its place.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from model_zoo.cards import Manifest
from service import __main__ as entry
from service.app import create_app
from service.errors import DeviceOutOfMemoryError
from service.studio import create_engine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.jobs import Job
    from service.settings import Settings
    from service.stylizer import StyleEngine

CHANCE = 0.03
_LEAKED_BYTES = 2**20


class FaultyEngine:
    """An engine that does what it is told, most of the time."""

    def __init__(self, engine: StyleEngine, faults: set[str]) -> None:
        self._engine = engine
        self._faults = faults
        self._chance = random.Random(7)  # noqa: S311  # faults, not secrets
        self._leaked: list[Any] = []
        self._painted = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def run(self, jobs: Sequence[Job]) -> list[Any]:
        self._painted += len(jobs)
        if self._painted > 20:  # warm-up is spared
            self._misbehave()
        return self._engine.run(jobs)

    def _misbehave(self) -> None:
        if "leak" in self._faults:
            self._leaked.append(np.ones(_LEAKED_BYTES, np.uint8))
        if "lose" in self._faults and self._painted % 200 == 0:
            threading.Event().wait(3600)
        if self._chance.random() > CHANCE:
            return
        fault = self._chance.choice(sorted(self._faults & {"crash", "memory", "pause"}) or [""])
        if fault == "crash":
            raise RuntimeError("a planted fault")
        if fault == "memory":
            raise DeviceOutOfMemoryError("a planted lack of memory")
        if fault == "pause":
            time.sleep(0.5)


def create_faulty_app(settings: Settings) -> Any:
    """The application with planted faults."""
    engine = create_engine(Manifest.read(settings.zoo), settings)
    faults = set(os.environ.get("SOAK_FAULTS", "").split(","))
    return create_app(settings, FaultyEngine(engine, faults))


if __name__ == "__main__":
    entry.create_app = create_faulty_app  # type: ignore[assignment]
    assert create_app is not entry.create_app
    sys.exit(entry.main([]))
