"""Ten styles as ten networks, and as ten rows of one: speed, memory, start.

    python -m benchmarks.shared [--quick] [--threads N]

Both paint the same pictures in the same random order of styles, in alternating rounds of one
process: one picture at a time, and as many of one size at once as may share a pass, which for ten
networks are those of one style. Memory and start are those of a process of their own.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.generators import write_shared_zoo, write_zoo
from benchmarks.report import check, describe_machine, finish, peak_resident_bytes
from service.jobs import StyleJob
from service.settings import available_cores
from service.stylizer import Stylizer

if TYPE_CHECKING:
    from model_zoo.cards import Manifest

STYLES = 10
SIDE_PX = 512
MOST_IN_A_PASS = 8
KINDS = ("networks", "rows")


def main() -> int:
    """Measure, print the table and the JSON line; 1 where a check does not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shared", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--alone", choices=KINDS, help="measure start and memory of one kind")
    arguments = parser.parse_args()
    if arguments.alone:
        print(json.dumps(measure_alone(arguments.alone, arguments.threads)))
        return 0
    results = [
        {"kind": kind, **_in_a_process(kind, arguments.threads), **speed}
        for kind, speed in measure_speed(3 if arguments.quick else 10, arguments.threads).items()
    ]
    print(
        f"{'ten styles as':<14}{'ready s':>9}{'MiB':>7}{'images/s':>10}"
        f"{'in passes':>11}{'a pass':>8}"
    )
    for row in results:
        print(
            f"{row['kind']:<14}{row['ready_s']:>9.2f}{row['resident_mib']:>7.0f}"
            f"{row['images_per_s']:>10.2f}{row['images_per_s_in_passes']:>11.2f}"
            f"{row['mean_pass']:>8.2f}"
        )
    networks, rows = results
    ratios = [
        {
            "alone": round(rows["images_per_s"] / networks["images_per_s"], 3),
            "memory": round(rows["resident_mib"] / networks["resident_mib"], 3),
        }
    ]
    checks = [
        check("rows over networks, images/s one at a time", min, ratios, "alone", 0.8),
        check("rows over networks, resident memory", max, ratios, "memory", 1.0),
    ]
    machine = describe_machine(available_cores(), arguments.threads)
    return finish("shared", machine, results, checks)


def make_zoo(kind: str, folder: Path) -> Manifest:
    """Ten styles of one of KINDS."""
    if kind == "rows":
        return write_shared_zoo(folder, STYLES)
    return write_zoo(folder, {f"s{number}": "fast" for number in range(1, STYLES + 1)})


def measure_alone(kind: str, threads: int) -> dict[str, float]:
    """Seconds until all styles have painted, and the memory that this process then holds."""
    with tempfile.TemporaryDirectory() as folder:
        manifest = make_zoo(kind, Path(folder))
        started = time.perf_counter()
        stylizer = Stylizer(manifest, device="cpu", threads=threads)
        stylizer.warm_up(manifest, SIDE_PX)
        ready_s = time.perf_counter() - started
    return {"ready_s": round(ready_s, 3), "resident_mib": round(peak_resident_bytes() / 2**20, 1)}


def measure_speed(rounds: int, threads: int) -> dict[str, dict[str, float]]:
    """Images a second of both kinds, by turns."""
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (SIDE_PX, SIDE_PX, 3), np.uint8)
    chance = random.Random(0)  # noqa: S311  # styles, not secrets
    order = [chance.randrange(STYLES) for _ in range(2 * MOST_IN_A_PASS)]
    taken: dict[str, dict[str, list[float]]] = {k: {"alone": [], "passes": []} for k in KINDS}
    mean_pass = {}
    with tempfile.TemporaryDirectory() as folder:
        engines = {}
        for kind in KINDS:
            (zoo := Path(folder) / kind).mkdir()
            manifest = make_zoo(kind, zoo)
            engine = Stylizer(manifest, device="cpu", threads=threads)
            engine.warm_up(manifest, SIDE_PX)
            engines[kind] = engine, [StyleJob(manifest.cards[style], picture) for style in order]
        for _ in range(rounds):
            for kind, (engine, jobs) in engines.items():
                taken[kind]["alone"].append(_seconds(engine, [[job] for job in jobs]))
                passes = _passes(jobs)
                mean_pass[kind] = len(jobs) / len(passes)
                taken[kind]["passes"].append(_seconds(engine, passes))
    return {
        kind: {
            "images_per_s": round(len(order) / statistics.median(seconds["alone"]), 3),
            "images_per_s_in_passes": round(len(order) / statistics.median(seconds["passes"]), 3),
            "mean_pass": round(mean_pass[kind], 2),
        }
        for kind, seconds in taken.items()
    }


def _passes(jobs: list[StyleJob]) -> list[list[StyleJob]]:
    """Jobs of equal key together, as the batcher would put them."""
    by_key: dict[Any, list[StyleJob]] = {}
    for job in jobs:
        by_key.setdefault(job.batch_key, []).append(job)
    return [
        mates[first : first + MOST_IN_A_PASS]
        for mates in by_key.values()
        for first in range(0, len(mates), MOST_IN_A_PASS)
    ]


def _seconds(engine: Stylizer, passes: list[list[StyleJob]]) -> float:
    started = time.perf_counter()
    for jobs in passes:
        engine.run(jobs)
    return time.perf_counter() - started


def _in_a_process(kind: str, threads: int) -> dict[str, float]:
    command = [
        sys.executable,
        "-m",
        "benchmarks.shared",
        "--alone",
        kind,
        "--threads",
        f"{threads}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


if __name__ == "__main__":
    sys.exit(main())
