"""ServiceTimes: how long each part of a request takes when nothing else is in its way."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Curve:
    """Seconds by pixels: straight between the points, in proportion beyond the last."""

    pixels: tuple[float, ...]
    seconds: tuple[float, ...]

    @functools.lru_cache(maxsize=2**16)  # noqa: B019  # a few curves, for the life of the process
    def __call__(self, pixels: float) -> float:
        last_px, last_s = self.pixels[-1], self.seconds[-1]
        if pixels > last_px:
            return last_s * pixels / last_px
        return float(np.interp(pixels, self.pixels, self.seconds))


@dataclass(frozen=True, slots=True)
class Pass:
    """A forward pass over ``count`` pictures: one by one, or as a batch that costs less."""

    start_s: float
    each: Curve

    def __call__(self, pixels: int, count: int) -> float:
        return self.start_s + count * self.each(pixels)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceTimes:
    """All that a replica of the model needs to be told of a real one.

    Attributes:
        passes: by the name of the generator.
        decode: on a codec thread.
        encode: on a codec thread.
        http_s: what the event loop does for a request, half of it before and half after.
        refusal_s: what it does for one that is refused.
        outside_s: what client and balancer do for a request on the same machine.
        load_s: to make one network resident that is not.
        noise: how many times as long as usual some passes took; one is drawn for each request.
    """

    passes: Mapping[str, Pass]
    decode: Curve
    encode: Curve
    http_s: float
    refusal_s: float = 0.0
    outside_s: float = 0.0
    load_s: float = 0.0
    noise: Sequence[float] = (1.0,)

    def host_s(self, pixels: int) -> float:
        """Everything but the pass."""
        return self.http_s + self.decode(pixels) + self.encode(pixels)


NOTHING = Curve((1.0,), (0.0,))
