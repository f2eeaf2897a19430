"""Fleets that the scaling benchmark asks about, what they can do at most, and how one is judged."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.scaling.figures import PROCESSES_PER_GPU
from benchmarks.scaling.replica import ON_CUDA, Limits
from benchmarks.scaling.simulation import Fleet, Outcome, simulate
from benchmarks.scaling.workload import STEADY, Kind, Traffic, draw, photographs

if TYPE_CHECKING:
    from benchmarks.scaling.times import ServiceTimes


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What fleets are made of: GPUs that several processes share, or cores with one each."""

    name: str
    times: ServiceTimes
    per_gpu: int = 0
    generator: str = "fast"

    def fleet(
        self,
        units: int,
        *,
        processes: int = 0,
        routing: str = "least connections",
        resident: int = 0,
    ) -> Fleet:
        """Replicas on ``units`` GPUs or cores.

        Args:
            units: how many.
            processes: replicas on all of them, if not as many as usual.
            routing: a key of ROUTERS.
            resident: networks that each holds; 0: all, from the start.
        """
        limits = ON_CUDA if self.per_gpu else Limits()
        return Fleet(
            times=self.times,
            replicas=processes or units * (self.per_gpu or 1),
            per_gpu=self.per_gpu,
            limits=replace(limits, resident_networks=resident or None),
            routing=routing,
        )

    def capacity(self, kinds: tuple[Kind, ...]) -> float:
        """Most images a second of one GPU or core, if nothing ever had to wait."""
        pixels = [kind.pixels for kind in kinds]
        host_s = float(np.mean([self.times.host_s(count) for count in pixels]))
        paint = self.times.passes[self.generator]
        if not self.per_gpu:
            return 1 / (host_s + float(np.mean([paint(count, 1) for count in pixels])))
        # One picture a pass, since pictures of one style and size seldom wait together.
        return min(self.per_gpu / host_s, 1 / float(np.mean([paint(count, 1) for count in pixels])))


def on_cores(times: ServiceTimes, load_s: float) -> Device:
    """Replicas of one core, whose clients and balancer are elsewhere."""
    return Device(name="core", times=replace(times, outside_s=0.0, load_s=load_s))


def on_gpus(times: ServiceTimes) -> Device:
    """As many processes on each GPU as were measured together."""
    return Device(name="GPU", times=times, per_gpu=PROCESSES_PER_GPU)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One question to the model.

    Attributes:
        rate: mean images a second that are asked for.
        requests: how many are simulated, or as many as ``at_least_s`` or whole bursts need.
        seeds: how often, each with other arrivals.
        resident: how many networks a replica holds; 0: all.
    """

    device: Device
    units: int
    rate: float
    requests: int
    seeds: int = 1
    traffic: Traffic = STEADY
    routing: str = "least connections"
    networks: int = 1
    resident: int = 0
    kinds: tuple[Kind, ...] = ()
    at_least_s: float = 0.0


def judge(case: Case) -> dict[str, Any]:
    """Simulate a case; give means over the seeds, and the spread of the p99 as a share of it."""
    fleet = case.device.fleet(case.units, routing=case.routing, resident=case.resident)
    outcomes: list[Outcome] = []
    seconds = max(case.requests / case.rate, case.at_least_s)
    if case.traffic.burst_s:
        seconds = math.ceil(seconds / case.traffic.every_s) * case.traffic.every_s
    for seed in range(case.seeds):
        workload = draw(
            case.kinds or photographs(case.device.generator),
            rate=case.rate,
            count=round(seconds * case.rate),
            seed=seed,
            traffic=case.traffic,
            networks=case.networks,
        )
        outcomes.append(simulate(fleet, workload, seed=seed))
    p99 = [outcome.percentile_s(99) * 1000 for outcome in outcomes]

    def mean(name: str) -> float:
        return float(np.mean([getattr(outcome, name) for outcome in outcomes]))

    return {
        "device": case.device.name,
        "units": case.units,
        "traffic": case.traffic.name,
        "routing": case.routing,
        "networks": case.networks,
        "resident": case.resident,
        "rate": round(case.rate, 2),
        "images_per_s": round(mean("rate"), 2),
        "p50_ms": round(float(np.mean([o.percentile_s(50) for o in outcomes])) * 1000, 1),
        "p99_ms": round(float(np.mean(p99)), 1),
        "p99_spread": round((max(p99) - min(p99)) / float(np.mean(p99)), 3),
        "refused": round(mean("refused_share"), 5),
        "mean_batch": round(mean("mean_batch"), 2),
        "loads": round(mean("loads_share"), 3),
        "unevenness": round(mean("unevenness"), 2),
        "window_s": round(mean("window_s"), 2),
    }
