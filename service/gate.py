"""AdmissionGate: how many requests may be in flight."""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from service.errors import BusyError

if TYPE_CHECKING:
    from collections.abc import Iterator

_SMOOTHING = 0.2
_RETRY_AFTER_RANGE_S = (1, 60)


class AdmissionGate:
    """Admits a bounded number of requests at once and refuses the next, rather than queue it.

    Belongs to one event loop; it takes no lock.
    """

    def __init__(self, max_in_flight: int) -> None:
        self.max_in_flight = max_in_flight
        self.in_flight = 0
        self._mean_duration_s = 0.0
        self._idle = asyncio.Event()
        self._idle.set()

    def check(self) -> None:
        """Refuse when full, without taking a place.

        Raises:
            BusyError: with the seconds after which to try again.
        """
        if self.in_flight >= self.max_in_flight:
            raise BusyError(
                f"{self.in_flight} requests in flight reach the limit of {self.max_in_flight}; "
                f"try again in {self.retry_after_s} s",
                retry_after_s=self.retry_after_s,
            )

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Hold one place for the length of the block.

        Raises:
            BusyError: no place is free.
        """
        self.check()
        self.in_flight += 1
        self._idle.clear()
        started = time.perf_counter()
        try:
            yield
            self._remember(time.perf_counter() - started)
        finally:
            self.in_flight -= 1
            if not self.in_flight:
                self._idle.set()

    async def wait_until_idle(self) -> None:
        """Wait until nothing is in flight."""
        await self._idle.wait()

    @property
    def retry_after_s(self) -> int:
        """Whole seconds until those in flight should be done.

        By Little's law, seconds per job times jobs in flight is the mean time one stays in flight.
        """
        low, high = _RETRY_AFTER_RANGE_S
        return min(max(math.ceil(self._mean_duration_s), low), high)

    def _remember(self, duration_s: float) -> None:
        if self._mean_duration_s == 0.0:
            self._mean_duration_s = duration_s
        else:
            self._mean_duration_s += _SMOOTHING * (duration_s - self._mean_duration_s)
