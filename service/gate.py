"""AdmissionGate: how many requests, pixels and bytes of bodies may be held at once."""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from service.budgets import Budget, Hold
from service.errors import BusyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_REMEMBERED = 0.9
_RETRY_AFTER_RANGE_S = (1, 60)


class AdmissionGate:
    """Admits what fits and refuses the rest, rather than queue it.

    Belongs to one event loop; it takes no lock.

    Args:
        max_in_flight: requests admitted at once.
        max_pixels: pixels of all their pictures; a picture alone may have more.
        max_body_bytes: bytes of all bodies and answers; one alone may have more.
        clock: gives seconds.
    """

    def __init__(
        self,
        max_in_flight: int,
        *,
        max_pixels: int,
        max_body_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._places = Budget(max_in_flight, "requests in flight")
        self._pixels = Budget(max_pixels, "pixels in flight")
        self._body_bytes = Budget(max_body_bytes, "bytes of bodies")
        self._admitted: set[Hold] = set()
        self._speed = _Speed(clock)
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def in_flight(self) -> int:
        """Requests admitted now."""
        return self._places.held

    @property
    def pixels(self) -> int:
        """Pixels that they hold."""
        return self._pixels.held

    @property
    def body_bytes(self) -> int:
        """Bytes of bodies and answers that are held."""
        return self._body_bytes.held

    def check(self, owner: str = "") -> None:
        """Refuse what would be refused anyway, without taking a place.

        Raises:
            BusyError: with the seconds after which to try again.
        """
        self._refuse_if(self._places.refusal(owner, 1))
        self._refuse_if(self._pixels.refusal(owner, 1))

    @contextmanager
    def admit(self, owner: str = "") -> Iterator[Admission]:
        """Hold one place for the length of the block, and the pixels reserved in it.

        Args:
            owner: on whose behalf, where that is known.

        Raises:
            BusyError: no place is free, or the owner has its share of them.
        """
        self.check(owner)
        self._idle.clear()
        self._speed.begin(self.in_flight)
        place, pixels = Hold(self._places, owner), Hold(self._pixels, owner)
        place.resize(1)
        self._admitted.add(pixels)
        try:
            yield Admission(self, pixels)
            self._speed.finish(pixels.amount)
        finally:
            self._admitted.remove(pixels)
            pixels.close()
            place.close()
            if not self.in_flight:
                self._idle.set()

    @contextmanager
    def hold_body(self, owner: str = "") -> Iterator[BodyHold]:
        """Hold bytes of one request's body, and then of its answer, for the length of the block."""
        with closing(Hold(self._body_bytes, owner)) as held:
            yield BodyHold(self, held)

    async def wait_until_idle(self) -> None:
        """Wait until nothing is in flight."""
        await self._idle.wait()

    @property
    def retry_after_s(self) -> int:
        """Whole seconds until what is in flight should be done, at the speed measured."""
        low, high = _RETRY_AFTER_RANGE_S
        unmeasured = sum(not hold.amount for hold in self._admitted)
        needed_s = self._speed.seconds_for(self._pixels.held, unmeasured)
        return min(max(math.ceil(needed_s), low), high)

    def reserve(self, hold: Hold, amount: int) -> None:
        """Let ``hold`` have ``amount``.

        Raises:
            BusyError: it does not fit.
        """
        self._refuse_if(hold.budget.refusal(hold.owner, amount, has=hold.amount))
        hold.resize(amount)

    def _refuse_if(self, refusal: str | None) -> None:
        if refusal is not None:
            retry_after_s = self.retry_after_s
            raise BusyError(
                f"{refusal}; try again in {retry_after_s} s", retry_after_s=retry_after_s
            )


class Admission:
    """A place in flight, and the pixels that go with it."""

    def __init__(self, gate: AdmissionGate, hold: Hold) -> None:
        self._gate = gate
        self._hold = hold

    def reserve_pixels(self, pixels: int) -> None:
        """Hold so many pixels from now on, in place of those held before.

        Raises:
            BusyError: they do not fit beside those of others.
        """
        self._gate.reserve(self._hold, pixels)


class BodyHold:
    """The bytes of one request that are in memory."""

    def __init__(self, gate: AdmissionGate, hold: Hold) -> None:
        self._gate = gate
        self._hold = hold

    def reserve(self, count: int) -> None:
        """Hold ``count`` bytes of a body, in place of those held before; never fewer than those.

        Raises:
            BusyError: they do not fit beside those of others.
        """
        self._gate.reserve(self._hold, max(count, self._hold.amount))

    def become(self, count: int) -> None:
        """Hold the ``count`` bytes of an answer instead, which is never refused."""
        self._hold.resize(count)


class _Speed:
    """How fast requests are done, in pixels a second, recent ones counting most."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since_s = 0.0
        self._requests = 0.0
        self._pixels = 0.0
        self._seconds = 0.0

    def begin(self, in_flight: int) -> None:
        """Note that a request begins beside so many others."""
        if not in_flight:
            self._since_s = self._clock()  # nothing was done while there was nothing to do

    def finish(self, pixels: int) -> None:
        """Note that a request of so many pixels was done."""
        now = self._clock()
        self._requests = self._requests * _REMEMBERED + 1
        self._pixels = self._pixels * _REMEMBERED + pixels
        self._seconds = self._seconds * _REMEMBERED + now - self._since_s
        self._since_s = now

    def seconds_for(self, pixels: int, requests: int) -> float:
        """Time for so many pixels, and ``requests`` of which none are known; 0 before the first."""
        if not self._pixels:
            return 0.0
        expected = pixels + requests * self._pixels / self._requests
        return expected * self._seconds / self._pixels
