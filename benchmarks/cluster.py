"""What Ray costs: the service on a cluster beside the service in one process, on the same cores.

    python -m benchmarks.cluster [--quick] [--threads N]

A cluster of one node with one engine that has every core, and ``python -m service``; both are up
all the time and take turns: one client alone, then clients that saturate. It needs the extra
``cluster``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.generators import style_of, write_zoo
from benchmarks.load import make_form, make_jpeg, percentiles_ms, saturate
from benchmarks.ray_nodes import Cluster, run_cluster
from benchmarks.report import check, describe_machine, finish
from benchmarks.servers import run_service
from service.settings import available_cores

if TYPE_CHECKING:
    from benchmarks.load import Answer, Call

SIDE_PX = 512
CLIENTS = 8


@dataclass(frozen=True, slots=True)
class Plan:
    """How long each part runs."""

    generators: tuple[str, ...]
    rounds: int
    seconds: float


FULL = Plan(("fast", "johnson"), rounds=5, seconds=8)
QUICK = Plan(("fast",), rounds=3, seconds=5)


def main() -> int:
    """Measure, print the table and the JSON line; 1 where a check does not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter runs, under two minutes")
    parser.add_argument("--threads", type=int, default=available_cores())
    arguments = parser.parse_args()
    plan = QUICK if arguments.quick else FULL
    print(
        f"{'generator':<14}{'alone ms':>10}{'on Ray':>8}{'added':>7}"
        f"{'images/s':>10}{'on Ray':>8}{'ratio':>7}{'MiB':>7}{'on Ray':>8}"
    )
    results = []
    with tempfile.TemporaryDirectory() as folder, run_cluster(arguments.threads) as cluster:
        write_zoo(Path(folder), {style_of(name): name for name in plan.generators})
        threads = arguments.threads
        cluster.deploy({"ATELIER_ZOO": folder}, engines_min=1, engines_max=1, engine_cpus=threads)
        for name in plan.generators:
            results.append(measure(Path(folder), name, cluster, plan, threads))
            print_row(results[-1])
    checks = [check("calls that failed", max, results, "failed", 0)]
    machine = describe_machine(available_cores(), arguments.threads)
    return finish("cluster", machine, results, checks)


def measure(zoo: Path, name: str, cluster: Cluster, plan: Plan, threads: int) -> dict[str, Any]:
    """Measure one generator on both sides, in turn."""
    calls = [make_form(make_jpeg(SIDE_PX, SIDE_PX), style=style_of(name))]
    alone: dict[str, list[Answer]] = {"process": [], "ray": []}
    rates: dict[str, list[float]] = {"process": [], "ray": []}
    with run_service(zoo, threads) as server:
        urls = {"process": server.url, "ray": cluster.url}
        for url in urls.values():
            saturate(url, calls, clients=CLIENTS, seconds=1)
        everyone: list[Answer] = []
        for _ in range(plan.rounds):
            for side, url in urls.items():
                answers, _ = saturate(url, calls, clients=1, seconds=plan.seconds / 2)
                alone[side] += answers
                answers, rate = saturated(url, calls, plan.seconds)
                rates[side].append(rate)
                everyone += answers
        memory = {"process": server.resident_bytes, "ray": cluster.resident_bytes}
    everyone += [answer for answers in alone.values() for answer in answers]
    waits = {side: percentiles_ms(answers) for side, answers in alone.items()}
    ratios = [there / here for here, there in zip(rates["process"], rates["ray"], strict=True)]
    return {
        "generator": name,
        "alone_ms": waits,
        "added_ms": round(waits["ray"]["p50_ms"] - waits["process"]["p50_ms"], 2),
        "images_per_s": {s: round(statistics.median(r), 3) for s, r in rates.items()},
        "throughput_ratio": round(statistics.median(ratios), 3),
        "resident_mib": {side: round(count / 2**20) for side, count in memory.items()},
        "failed": sum(answer.status != 200 for answer in everyone),
    }


def saturated(url: str, calls: list[Call], seconds: float) -> tuple[list[Answer], float]:
    """Answers to clients that saturate, and images a second."""
    answers, elapsed_s = saturate(url, calls, clients=CLIENTS, seconds=seconds)
    return answers, sum(answer.status == 200 for answer in answers) / elapsed_s


def print_row(row: dict[str, Any]) -> None:
    """Print one line of the table."""
    wait, rate, memory = row["alone_ms"], row["images_per_s"], row["resident_mib"]
    print(
        f"{row['generator']:<14}{wait['process']['p50_ms']:>10.1f}{wait['ray']['p50_ms']:>8.1f}"
        f"{row['added_ms']:>7.1f}{rate['process']:>10.2f}{rate['ray']:>8.2f}"
        f"{row['throughput_ratio']:>7.3f}{memory['process']:>7}{memory['ray']:>8}"
    )


if __name__ == "__main__":
    sys.exit(main())
