"""The service beside its own engine: what HTTP, decoding, encoding and the queue cost.

    python -m benchmarks.serve [--quick] [--threads N] [--device cpu|cuda]

A real server process on this machine. Rounds of: the bare engine in as many passes beside each
other as the service runs (docs/decisions/0008); clients that saturate the service; a pass of the
bare engine and a call of one client in turn, which are compared pair by pair. At the end calls at a
constant rate, a part of what the service could answer.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.generators import style_of, write_zoo
from benchmarks.load import (
    arrive,
    make_form,
    make_jpeg,
    median_stages_ms,
    percentiles_ms,
    saturate,
)
from benchmarks.report import check, describe_machine, finish
from benchmarks.servers import run_service
from service.formats import FORMATS
from service.images import decode_image
from service.jobs import StyleJob
from service.settings import available_cores
from service.stylizer import Stylizer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks.load import Answer, Call

SIDE_PX = 512
CLIENTS = {"cpu": 8, "cuda": 32}
ENGINE_BATCH = {"cpu": 1, "cuda": 8}
"""Pictures a pass of the bare engine, as the service would have them when saturated."""
MIN_SATURATION = {"johnson": 0.95, "fast": 0.88}
MAX_OVERHEAD_MS = 5.0
_OPEN_LOOP_LOAD = 0.7


@dataclass(frozen=True, slots=True)
class Plan:
    """How long each part runs."""

    generators: tuple[str, ...]
    rounds: int
    seconds: float


FULL = Plan(("fast", "johnson_half", "johnson"), rounds=5, seconds=8)
QUICK = Plan(("fast", "johnson"), rounds=2, seconds=5)


def main() -> int:
    """Measure, print the table and the JSON line; 1 where a check does not hold."""
    arguments = parse_arguments()
    plan = QUICK if arguments.quick else FULL
    print(
        f"{'generator':<14}{'engine/s':>10}{'service/s':>10}{'ratio':>7}{'batch':>7}"
        f"{'alone ms':>10}{'engine':>8}{'decode':>8}{'encode':>8}{'rest':>7}"
        f"{'load/s':>8}{'p50':>8}{'p95':>8}{'p99':>8}"
    )
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for name in plan.generators:
            results.append(measure(Path(folder), name, plan, arguments.threads, arguments.device))
            print_row(results[-1])
    # One process cannot keep a GPU busy (docs/decisions/0013).
    bounds = MIN_SATURATION if arguments.device == "cpu" else {}
    checks = [
        check(
            f"{name} at saturation over the bare engine",
            min,
            [row for row in results if row["generator"] == name],
            "saturation_ratio",
            bound,
        )
        for name, bound in bounds.items()
    ]
    checks.append(check("calls that failed at a constant rate", max, results, "failed", 0))
    checks.append(
        check("most ms besides engine and codecs", max, results, "overhead_ms", MAX_OVERHEAD_MS)
    )
    machine = describe_machine(available_cores(), arguments.threads)
    return finish("serve", machine, results, checks)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter runs, under two minutes")
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--device", choices=tuple(CLIENTS), default="cpu")
    return parser.parse_args()


@dataclass(frozen=True, slots=True)
class Pair:
    """A pass of the bare engine, in ms a picture, and the call that came next, of one client."""

    pass_ms: float
    answer: Answer

    @property
    def overhead_ms(self) -> float:
        """What is neither engine nor codec."""
        stages_ms = self.answer.stages_ms
        codecs_ms = stages_ms["decode"] + stages_ms["encode"]
        return self.answer.waited_s * 1000 - self.pass_ms - codecs_ms


@dataclass(frozen=True, slots=True)
class Round:
    """Images a second, and what one client saw."""

    engine: float
    service: float
    pairs: list[Pair]


def measure(zoo: Path, name: str, plan: Plan, threads: int, device: str) -> dict[str, Any]:
    """Measure one generator."""
    image = make_jpeg(SIDE_PX, SIDE_PX)
    calls = [make_form(image, style=style_of(name))]
    manifest = write_zoo(zoo, {style_of(name): name})
    engine = Stylizer(manifest, device=device, threads=threads)
    jobs = [StyleJob(manifest.card(style_of(name)), decode(image))] * ENGINE_BATCH[device]
    for _ in range(2):  # the second time of a size is when a GPU's passes are recorded
        engine.run(jobs)
    clients = CLIENTS[device]
    with run_service(zoo, threads, ATELIER_DEVICE=device) as server:
        saturate(server.url, calls, clients=clients, seconds=1)
        batches = [server.read_metric(f"atelier_batch_size_{part}") for part in ("sum", "count")]
        rounds = [
            run_round(engine, jobs, server.url, calls, clients, plan.seconds)
            for _ in range(plan.rounds)
        ]
        after = [server.read_metric(f"atelier_batch_size_{part}") for part in ("sum", "count")]
        rate = _OPEN_LOOP_LOAD * statistics.median(each.service for each in rounds)
        opened = arrive(server.url, calls, rate=rate, seconds=2 * plan.seconds)
    pairs = [pair for each in rounds for pair in each.pairs]
    alone = [pair.answer for pair in pairs]

    def median(values: Iterable[float], digits: int) -> float:
        return round(statistics.median(values), digits)

    return {
        "generator": name,
        "engine_images_per_s": median((each.engine for each in rounds), 3),
        "service_images_per_s": median((each.service for each in rounds), 3),
        "saturation_ratio": median((each.service / each.engine for each in rounds), 3),
        "mean_batch": round((after[0] - batches[0]) / (after[1] - batches[1]), 2),
        "alone_ms": percentiles_ms(alone)["p50_ms"],
        "engine_ms": median((pair.pass_ms for pair in pairs), 2),
        "stages_ms": median_stages_ms(alone),
        "overhead_ms": median((pair.overhead_ms for pair in pairs), 2),
        "failed": sum(answer.status != 200 for answer in opened),
        "open_loop": {"images_per_s": round(rate, 3)} | percentiles_ms(opened),
    }


def run_round(
    engine: Stylizer,
    jobs: list[StyleJob],
    url: str,
    calls: list[Call],
    clients: int,
    seconds: float,
) -> Round:
    """Put next to each other in time what is compared."""
    bare = run_engine(engine, jobs, seconds)
    answers, elapsed_s = saturate(url, calls, clients=clients, seconds=seconds)
    pairs, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass_ms = 1000 * time_pass(engine, jobs) / len(jobs)
        ((answer,), _) = saturate(url, calls, clients=1, count=1)
        pairs.append(Pair(pass_ms, answer))
    return Round(bare, sum(answer.status == 200 for answer in answers) / elapsed_s, pairs)


def decode(image: bytes) -> Any:
    """The photograph's pixels, as the service decodes it."""
    return decode_image(
        image, FORMATS["jpeg"], max_side_px=SIDE_PX, max_source_pixels=10**8, min_side_px=1
    ).pixels


def run_engine(engine: Stylizer, jobs: list[StyleJob], seconds: float) -> float:
    """Give images a second of the engine alone, with as many passes at once as the service runs."""
    lanes = engine.passes_at_once if engine.overlaps(jobs[0]) else 1
    end = time.perf_counter() + seconds

    def paint(_: int) -> list[float]:
        passes_s = []
        while time.perf_counter() < end:
            passes_s.append(time_pass(engine, jobs))
        return passes_s

    with ThreadPoolExecutor(lanes) as painters:
        passes_s = [pass_s for some in painters.map(paint, range(lanes)) for pass_s in some]
    return lanes * len(jobs) / statistics.mean(passes_s)


def time_pass(engine: Stylizer, jobs: list[StyleJob]) -> float:
    """Seconds of one pass."""
    started = time.perf_counter()
    engine.run(jobs)
    return time.perf_counter() - started


def print_row(row: dict[str, Any]) -> None:
    """Print one line of the table."""
    opened, stages = row["open_loop"], row["stages_ms"]
    print(
        f"{row['generator']:<14}{row['engine_images_per_s']:>10.2f}"
        f"{row['service_images_per_s']:>10.2f}{row['saturation_ratio']:>7.3f}"
        f"{row['mean_batch']:>7.2f}{row['alone_ms']:>10.1f}{row['engine_ms']:>8.1f}"
        f"{stages['decode']:>8.1f}{stages['encode']:>8.1f}{row['overhead_ms']:>7.1f}"
        f"{opened['images_per_s']:>8.2f}{opened['p50_ms']:>8.1f}{opened['p95_ms']:>8.1f}"
        f"{opened['p99_ms']:>8.1f}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
