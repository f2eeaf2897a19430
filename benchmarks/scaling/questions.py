"""Questions: which fleets the benchmark simulates, in short and in full."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from benchmarks.scaling.fleets import Case, Device
from benchmarks.scaling.provisioning import Need
from benchmarks.scaling.workload import BURSTS, DIURNAL, STEADY, Kind, photographs

if TYPE_CHECKING:
    from collections.abc import Iterator

TARGETS_MS = (1000, 250)
RESIDENT = 16
"""Networks that a replica holds where not all fit; each of ``fast`` takes a few MB."""
STYLES = (16, 64, 256)
FREED = 8.0
"""How many times faster host work would be where the GPU, not the host, is to be the limit."""
SMALL = (Kind("fast", 288, 384),)
"""For a target that no core can hold for the mix."""
_CELL_UNITS = 8


@dataclass(frozen=True, slots=True)
class Depth:
    """How much is simulated: requests and seeds a case, sizes of fleets, rates to provision for.

    A fleet has to be watched for many times as long as a request takes, whatever its size:
    ``window_s``, or ``requests`` where those take longer.
    """

    requests: int
    seeds: int
    window_s: float
    units: tuple[int, ...]
    rates: dict[str, tuple[float, ...]]
    search_requests: int
    search_seeds: int
    styles: tuple[int, ...]


FULL = Depth(
    requests=30_000,
    seeds=3,
    window_s=0.5,
    units=(1, 10, 100, 1000),
    rates={"core": (10, 100, 1000), "GPU": (100, 1000, 10_000, 100_000)},
    search_requests=12_000,
    search_seeds=2,
    styles=STYLES,
)
QUICK = Depth(
    requests=8_000,
    seeds=1,
    window_s=0.08,
    units=(1, 10, 1000),
    rates={"core": (10,), "GPU": (1000,)},
    search_requests=6_000,
    search_seeds=1,
    styles=(256,),
)


def growth(devices: tuple[Device, ...], depth: Depth) -> Iterator[Case]:
    """The same load on ever larger fleets, under each kind of traffic."""
    for device in devices:
        capacity = device.capacity(photographs(device.generator))
        for traffic, load in ((STEADY, 0.6), (STEADY, 0.9), (DIURNAL, 0.6), (BURSTS, 0.5)):
            sizes: tuple[int, ...] = depth.units
            if traffic is BURSTS and device.per_gpu:
                # A burst has to be simulated for its whole length, which only small fleets allow.
                sizes = (*(units for units in sizes if units < _CELL_UNITS), _CELL_UNITS)
            for units in sizes:
                yield Case(
                    device=device,
                    units=units,
                    rate=load * capacity * units,
                    requests=depth.requests,
                    seeds=depth.seeds,
                    traffic=traffic,
                    at_least_s=depth.window_s,
                )


def needs(devices: tuple[Device, ...], depth: Depth) -> Iterator[Need]:
    """What to provision for."""
    for device in devices:
        cell = _CELL_UNITS * device.capacity(photographs(device.generator)) / 2
        for rate in depth.rates[device.name]:
            for traffic in (STEADY, DIURNAL, BURSTS):
                need = Need(
                    device=device,
                    traffic=traffic,
                    rate=rate,
                    targets_ms=TARGETS_MS,
                    requests=depth.search_requests,
                    seeds=depth.search_seeds,
                    at_least_s=depth.window_s / 2,
                    cell=cell if traffic is BURSTS and device.per_gpu else math.inf,
                )
                yield need
                if not device.per_gpu:
                    yield replace(need, kinds=SMALL)


def routings(devices: tuple[Device, ...], depth: Depth) -> Iterator[Case]:
    """Which routing is better, by how many networks there are and how many are resident."""
    freed = tuple(_freed(device) for device in devices if device.per_gpu)
    for device in (*devices, *freed):
        units = 8 if device.per_gpu else 32
        kinds = (Kind("fast", 512, 512),) if device in freed else photographs(device.generator)
        # Beyond what it could do one by one, where batches have to be full to keep up.
        load = 1.1 if device in freed else 0.7
        rate = load * units * device.capacity(kinds)
        pairs = [(depth.styles[-1], 0), *((styles, RESIDENT) for styles in depth.styles)]
        for networks, resident in pairs:
            if resident and networks <= resident:
                continue
            for routing in ("least connections", "two choices", "by style"):
                yield Case(
                    device=device,
                    units=units,
                    rate=rate,
                    requests=depth.requests // 2,
                    seeds=depth.seeds,
                    routing=routing,
                    networks=networks,
                    resident=resident,
                    kinds=kinds,
                )


def _freed(device: Device) -> Device:
    """The same GPU beside a host that is so much faster that the GPU is the limit."""

    def shorter(seconds: float) -> float:
        return seconds / FREED

    times = device.times
    return replace(
        device,
        name=f"GPU, host x{FREED:g}",
        times=replace(
            times,
            http_s=shorter(times.http_s),
            refusal_s=shorter(times.refusal_s),
            decode=replace(times.decode, seconds=tuple(map(shorter, times.decode.seconds))),
            encode=replace(times.encode, seconds=tuple(map(shorter, times.encode.seconds))),
        ),
    )


def shortcuts(devices: tuple[Device, ...], depth: Depth) -> Iterator[tuple[str, Case, Case]]:
    """Pairs that should agree, with what that allows: a small simulation to stand for a large."""
    for device in devices:
        capacity = device.capacity(photographs(device.generator))
        for units in depth.units[1::2]:
            case = Case(
                device=device,
                units=units,
                rate=0.8 * capacity * units,
                requests=depth.requests,
                at_least_s=depth.window_s,
                seeds=3,
            )
            half = replace(case, requests=case.requests // 2, at_least_s=case.at_least_s / 2)
            yield f"{units} x {device.name}: half the window", half, case
        if device.per_gpu:
            cell = Case(
                device=device,
                units=_CELL_UNITS,
                rate=0.5 * capacity * _CELL_UNITS,
                requests=0,
                traffic=BURSTS,
                at_least_s=BURSTS.every_s,
            )
            whole = replace(cell, units=3 * cell.units, rate=3 * cell.rate)
            yield f"{whole.units} x {device.name}: a cell of {cell.units}, bursts", cell, whole
