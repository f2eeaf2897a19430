"""Provisioning: the fewest GPUs or cores that hold a p99 under a rate."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.scaling.fleets import Case, Device, judge
from benchmarks.scaling.workload import photographs

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.scaling.workload import Kind, Traffic

MAX_REFUSED = 0.001
MAX_LOAD = 0.95
"""Of the busiest hour: a simulation would have to last for some 20 / (1 - load)^2 requests."""
# A fleet so much larger than its load is all but idle, and still larger ones no faster.
_MOST_TIMES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What is asked of a fleet, and how exactly to look.

    Attributes:
        rate: mean images a second.
        targets_ms: bounds of the p99, of which each is answered.
        cell: where traffic comes in bursts, most images a second that are simulated: a larger rate
            is divided among equal fleets of their own.
    """

    device: Device
    traffic: Traffic
    rate: float
    targets_ms: tuple[int, ...]
    requests: int
    seeds: int
    at_least_s: float = 0.0
    cell: float = math.inf
    kinds: tuple[Kind, ...] = ()


def provision(need: Need) -> dict[str, Any]:
    """The fewest units for each target in the busiest hour; None where no number is enough."""
    # A day is slow: its busiest hour is steady, and lasts for longer than queues can.
    peak = need.rate * (1 + need.traffic.swing)
    traffic = replace(need.traffic, swing=0.0)
    cells = max(1, math.ceil(peak / need.cell))
    kinds = need.kinds or photographs(need.device.generator)
    capacity = need.device.capacity(kinds)
    least = max(1, math.ceil(peak / cells / capacity / MAX_LOAD))
    rows: dict[int, dict[str, Any]] = {}

    def row(units: int) -> dict[str, Any]:
        if units not in rows:
            rows[units] = judge(
                Case(
                    device=need.device,
                    units=units,
                    rate=peak / cells,
                    requests=need.requests,
                    seeds=need.seeds,
                    traffic=traffic,
                    kinds=need.kinds,
                    at_least_s=need.at_least_s,
                )
            )
        return rows[units]

    answers = {}
    for target_ms in need.targets_ms:

        def holds(units: int, target_ms: int = target_ms) -> bool:
            one = row(units)
            return bool(one["p99_ms"] <= target_ms and one["refused"] <= MAX_REFUSED)

        is_possible = alone_ms(need.device, kinds) <= target_ms
        units = fewest(holds, least, _MOST_TIMES * least + 4) if is_possible else None
        answers[target_ms] = units and units * cells
    return {
        "device": need.device.name,
        "sizes": f"{kinds[0].width}x{kinds[0].height}" if len(set(kinds)) == 1 else "mix",
        "traffic": need.traffic.name,
        "rate": need.rate,
        "cells": cells,
        "units": answers,
        "images_per_s_each": {
            target_ms: units and round(need.rate / units, 2) for target_ms, units in answers.items()
        },
        "capacity_each": round(capacity, 2),
    }


def alone_ms(device: Device, kinds: tuple[Kind, ...]) -> float:
    """The p99 of pictures that never have to wait."""
    paint = device.times.passes[device.generator]
    taken_s = [device.times.host_s(kind.pixels) + paint(kind.pixels, 1) for kind in kinds]
    return float(np.percentile(taken_s, 99)) * 1000


def fewest(holds: Callable[[int], bool], least: int, most: int) -> int | None:
    """The smallest number from ``least`` to ``most`` that holds, where all larger ones do; or None.

    Steps grow from ``least`` on, since the answer is mostly near it, and each is an experiment.
    """
    step, failed, number = max(1, least // 16), least - 1, least
    while not holds(number):
        if number == most:
            return None
        failed, number, step = number, min(most, number + step), 2 * step
    while number - failed > 1:
        middle = (number + failed) // 2
        if holds(middle):
            number = middle
        else:
            failed = middle
    return number
