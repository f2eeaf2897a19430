"""From one replica to a thousand GPUs: a model of the service, held against real replicas first.

    python -m benchmarks.scaling [--quick]

Real replicas of one core each are timed, then asked at several loads through nginx; the model,
which knows those times alone, is asked the same at the same moments. Then it is asked what no
machine here could show: large fleets, days and bursts, routing by style, what to provision. A GPU's
times are those in benchmarks/results and docs/decisions/0013. Needs two cores and nginx.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from benchmarks.nginx import NginxError
from benchmarks.report import check, describe_machine, finish
from benchmarks.scaling import calibration, questions, tables
from benchmarks.scaling.figures import ASSUMED, IMAGES_PER_S, PASS_OF_EIGHT_MS, SIDE_PX, gpu_times
from benchmarks.scaling.fleets import judge, on_cores, on_gpus
from benchmarks.scaling.provisioning import provision
from benchmarks.scaling.simulation import closed_loop
from benchmarks.scaling.validation import IN_FLIGHT, Case, compare, run_replicas, warm_up
from benchmarks.scaling.workload import Kind
from service.runtimes import RuntimeName

if TYPE_CHECKING:
    from benchmarks.scaling.fleets import Device
    from benchmarks.scaling.times import ServiceTimes

MAX_OFF = {"images_per_s_off": 0.10, "p50_ms_off": 0.25, "p99_ms_off": 0.35, "refused_off": 0.05}
"""Model against real replicas: relative, but for refusals, which are shares."""
MAX_GPU_OFF = 0.05
MAX_SHORTCUT_OFF = 0.10
CLIENTS_PER_PROCESS = 32
BAD_MACHINE = 2


@dataclass(frozen=True, slots=True)
class Plan:
    """How long each part runs; ``cases`` are of real replicas, ``seconds`` each."""

    calibration: calibration.Plan
    cases: tuple[Case, ...]
    seconds: float
    depth: questions.Depth


FULL = Plan(
    calibration.FULL,
    tuple(Case(2, load) for load in (0.4, 0.7, 0.9, 1.5))
    + tuple(Case(1, load) for load in (0.7, 1.5)),
    15.0,
    questions.FULL,
)
QUICK = Plan(calibration.QUICK, (Case(2, 0.7), Case(2, 1.5), Case(1, 0.7)), 7.0, questions.QUICK)


def main() -> int:
    """Measure, simulate, print tables and the JSON line; 1 where a check does not hold."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="under two minutes")
    plan = QUICK if parser.parse_args().quick else FULL
    machine = describe_machine(len(calibration.CORES), 1)  # before its load is our own
    if len(calibration.CORES) < 2:
        print("error: two replicas need a core each; there is one", file=sys.stderr)
        return BAD_MACHINE
    try:
        times, compared = measure(plan)
    except NginxError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_MACHINE
    loads_s = {
        name: calibration.measure_load(name, plan.calibration.repeats)
        for name in get_args(RuntimeName)
        if name != "auto"
    }
    gpu, figures = gpu_times("fast", loads_s["torch"])
    tables.print_figures(times, loads_s, figures)
    served = compare_with_h200(gpu)
    tables.print_h200(served)
    rows = {"calibration": [asdict(times)], "validation": compared, "h200": served}
    devices = (on_cores(times, loads_s["openvino"]), on_gpus(gpu))
    rows |= simulate_all(devices, plan.depth)
    print("\nAssumed, not measured:", *ASSUMED, sep="\n- ")
    results = [{"part": part, **row} for part, some in rows.items() for row in some]
    checks = [
        check(f"model against real replicas, largest {key}", max, compared, key, bound)
        for key, bound in MAX_OFF.items()
    ]
    checks += [
        check("model against an H200, images/s", max, served, "images_per_s_off", MAX_GPU_OFF),
        check("shortcuts against whole simulations, p99", max, rows["shortcuts"], "p99_off",
              MAX_SHORTCUT_OFF),
    ]  # fmt: skip
    return finish("scaling", machine, results, checks)


def measure(plan: Plan) -> tuple[ServiceTimes, list[dict[str, Any]]]:
    """Time two real replicas, and hold the model against two and against one."""
    rows = []
    times: ServiceTimes | None = None
    tables.print_validation_head()
    for count in (2, 1):
        with tempfile.TemporaryDirectory() as folder, run_replicas(Path(folder), count) as running:
            servers, balancer = running
            warm_up(servers)
            times = times or calibration.calibrate(
                servers, balancer.url, plan.calibration, in_flight=IN_FLIGHT
            )
            for case in plan.cases:
                if case.replicas == count:
                    rows.append(compare(case, times, servers, balancer, seconds=plan.seconds))
                    tables.print_validation(rows[-1])
    assert times is not None  # noqa: S101  # for the type checker
    return times, rows


def compare_with_h200(times: ServiceTimes) -> list[dict[str, Any]]:
    """The model where a GPU was measured: one process, whose rate it is told, and four."""
    rows = []
    for processes, images_per_s in IMAGES_PER_S.items():
        outcome = closed_loop(
            on_gpus(times).fleet(1, processes=processes),
            Kind("fast", SIDE_PX, SIDE_PX),
            clients=CLIENTS_PER_PROCESS * processes,
            until_s=20.0,
        )
        rows.append(
            {
                "processes": processes,
                "measured_images_per_s": images_per_s,
                "images_per_s": round(outcome.rate, 1),
                "images_per_s_off": round(abs(outcome.rate / images_per_s - 1), 4),
                "mean_batch": round(outcome.mean_batch, 2),
                "pass_ms": round(outcome.mean_pass_s * 1000, 1),
                "measured_pass_ms": PASS_OF_EIGHT_MS,
            }
        )
    return rows


def simulate_all(
    devices: tuple[Device, ...], depth: questions.Depth
) -> dict[str, list[dict[str, Any]]]:
    """Ask the model all questions, on all cores, and print each answer as it comes."""
    rows: dict[str, list[dict[str, Any]]] = {}
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        rows["shortcuts"] = []
        pairs = list(questions.shortcuts(devices, depth))
        small = pool.map(judge, [pair[1] for pair in pairs])
        whole = pool.map(judge, [pair[2] for pair in pairs])
        for (name, *_), one, other in zip(pairs, small, whole, strict=True):
            off = round(abs(one["p99_ms"] / other["p99_ms"] - 1), 4)
            rows["shortcuts"].append(
                {
                    "name": name,
                    "p99_ms": one["p99_ms"],
                    "whole_p99_ms": other["p99_ms"],
                    "p99_off": off,
                    "refused": one["refused"],
                    "whole_refused": other["refused"],
                }
            )
        tables.print_shortcuts(rows["shortcuts"])
        for part, ask, asked in (
            ("growth", judge, questions.growth),
            ("routing", judge, questions.routings),
            ("provisioning", provision, questions.needs),
        ):
            rows[part] = []
            tables.HEADS[part]()
            for row in pool.map(ask, list(asked(devices, depth))):
                rows[part].append(row)
                tables.ROWS[part](row)
    return rows


if __name__ == "__main__":
    sys.exit(main())
