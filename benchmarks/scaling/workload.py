"""Workloads: when requests come, of which size and for which network; the same for each seed."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.batching import draw_arrivals

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

ZIPF_EXPONENT = 1.0
_SIZES_DRAWN = 20_000
_STEPS = 20_000


@dataclass(frozen=True, slots=True)
class Kind:
    """One sort of request: its generator and size in px; equal kinds of one network may batch."""

    generator: str
    height: int
    width: int

    @property
    def pixels(self) -> int:
        return self.height * self.width


@dataclass(frozen=True, slots=True)
class Traffic:
    """How the rate swings about its mean, as a multiple of it at each moment.

    Attributes:
        swing: of a sine, whose period is the whole run: a day, made as short as the run is.
        burst: the rate in a burst, in multiples of the mean; bursts come at regular intervals.
        burst_s: how long a burst lasts.
        every_s: from one burst to the next.
    """

    name: str
    swing: float = 0.0
    burst: float = 1.0
    burst_s: float = 0.0
    every_s: float = 1.0

    def rate(self, times_s: NDArray[np.float64], end_s: float) -> NDArray[np.float64]:
        """The rate at each of ``times_s`` over the mean rate of a run that ends at ``end_s``."""
        # From the sine's foot, so that a run begins and ends at night.
        wave = 1 - self.swing * np.cos(2 * np.pi * times_s / end_s)
        share = self.burst_s / self.every_s
        between = (1 - share * self.burst) / (1 - share)
        is_burst = times_s % self.every_s >= self.every_s - self.burst_s
        return wave * np.where(is_burst, self.burst, between)


STEADY = Traffic("steady")
DIURNAL = Traffic("diurnal", swing=0.6)
BURSTS = Traffic("bursts", burst=3.0, burst_s=2.0, every_s=20.0)


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests in the order of their coming; the arrays are of equal length."""

    kinds: tuple[Kind, ...]
    at_s: NDArray[np.float64]
    kind: NDArray[np.int64]
    network: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.at_s)

    def __iter__(self) -> Iterator[tuple[float, Kind, int]]:
        for at_s, kind, network in zip(
            self.at_s.tolist(), self.kind.tolist(), self.network.tolist(), strict=True
        ):
            yield at_s, self.kinds[kind], network


@functools.cache
def photographs(generator: str = "fast") -> tuple[Kind, ...]:
    """The sizes of ``benchmarks.batching``, each as often as it is drawn there."""
    return tuple(
        Kind(generator, arrival.height, arrival.width) for arrival in draw_arrivals(_SIZES_DRAWN)
    )


def draw(
    kinds: tuple[Kind, ...],
    *,
    rate: float,
    count: int,
    seed: int,
    traffic: Traffic = STEADY,
    networks: int = 1,
) -> Workload:
    """Draw a Poisson process of ``count`` requests or so, on average ``rate`` a second.

    Args:
        kinds: drawn from evenly.
        rate: mean requests a second.
        count: how many to expect.
        seed: of all that is drawn.
        traffic: how the rate swings.
        networks: how many there are, the k-th asked for in proportion to 1 / k.
    """
    rng = np.random.default_rng(seed)
    end_s = count / rate
    # Unit arrivals, put where the integral of the rate reaches them.
    units = np.cumsum(rng.exponential(size=round(count + 6 * count**0.5)))
    grid_s = np.linspace(0, end_s, _STEPS + 1)
    middle_s = (grid_s[1:] + grid_s[:-1]) / 2
    expected = np.append(0, np.cumsum(traffic.rate(middle_s, end_s))) * rate * end_s / _STEPS
    at_s = np.interp(units[units < expected[-1]], expected, grid_s)
    shares = 1 / np.arange(1, networks + 1) ** ZIPF_EXPONENT
    return Workload(
        kinds,
        at_s,
        rng.integers(len(kinds), size=len(at_s)),
        rng.choice(networks, size=len(at_s), p=shares / shares.sum()),
    )
