"""Speed and memory of the stylizer, beside a plain eager forward pass of the same weights.

    python -m benchmarks.engine [--quick] [--zoo FOLDER] [--threads N]

Both sides take uint8 photographs and give uint8 paintings. Their passes alternate, so that
whatever else the machine does falls on both; peak memory comes from a fresh process a case.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.report import check, describe_machine, peak_resident_bytes, read_commit
from model_zoo.cards import SHIPPED_ZOO, Manifest, StyleCard
from model_zoo.checkpoints import load_generator
from service.settings import available_cores
from service.stylizer import StyleJob, Stylizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Paint = Callable[[NDArray[np.uint8]], object]

ENGINES = ("stylizer", "eager")
MIN_SPEED_RATIO = 0.9
MAX_MEMORY_RATIO = 1.1


@dataclass(frozen=True, slots=True)
class Case:
    """One style at one size: ``batch`` square pictures of ``side_px`` in a pass."""

    style: str
    generator: str
    side_px: int
    batch: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run measures; ``rounds`` is the least number of passes of each engine."""

    sides_px: tuple[int, ...]
    batches: tuple[int, ...]
    rounds: int
    seconds_a_case: float
    every_style: bool


FULL = Plan((256, 512, 1024), (1, 4), rounds=5, seconds_a_case=10, every_style=True)
# Styles of one architecture differ in their numbers only, not in their speed.
QUICK = Plan((256, 512), (1,), rounds=3, seconds_a_case=2, every_style=False)


def main() -> int:
    """Measure, print the table and the JSON line; 1 where a check does not hold."""
    arguments = parse_arguments()
    manifest = Manifest.read(arguments.zoo)
    plan = QUICK if arguments.quick else FULL
    print(f"{'style':<24}{'generator':<16}{'px':>6}{'batch':>6}", end="")
    print(f"{'images/s':>10}{'eager':>8}{'ratio':>7}{'MiB':>8}{'eager':>8}")
    results = []
    for case in list_cases(manifest, plan):
        results.append(measure(case, manifest, plan, arguments.threads))
        print_row(results[-1])
    checks = [
        check("lowest speed ratio to eager", min, results, "speed_ratio", MIN_SPEED_RATIO),
        check("highest memory ratio to eager", max, results, "memory_ratio", MAX_MEMORY_RATIO),
    ]
    report = {
        "benchmark": "engine",
        "machine": describe_machine(available_cores(), arguments.threads),
        "commit": read_commit(),
        "results": results,
        "checks": checks,
    }
    print(json.dumps(report))
    return 0 if all(entry["holds"] for entry in checks) else 1


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter runs, under two minutes")
    parser.add_argument("--zoo", type=Path, default=SHIPPED_ZOO)
    parser.add_argument("--threads", type=int, default=available_cores())
    return parser.parse_args()


def list_cases(manifest: Manifest, plan: Plan) -> Iterator[Case]:
    """Give every case of ``plan``, in the manifest's order, small before large."""
    seen: set[str] = set()
    for card in manifest:
        architecture = f"{card.generator} {dict(card.arguments)}"
        if architecture in seen and not plan.every_style:
            continue
        seen.add(architecture)
        for side_px in plan.sides_px:
            for batch in plan.batches:
                yield Case(card.style_id, card.generator, side_px, batch)


def build_engines(manifest: Manifest, card: StyleCard, threads: int) -> dict[str, Paint]:
    """Give both ways to paint photographs, uint8 (N, H, W, 3), in the style of ``card``."""
    stylizer = Stylizer(Manifest(manifest.zoo, (card,)), device="cpu", threads=threads)
    generator = load_generator(manifest.weights_path(card), card.generator, card.arguments)

    def paint_with_stylizer(photos: NDArray[np.uint8]) -> object:
        return stylizer.run([StyleJob(card, photo) for photo in photos])

    @torch.inference_mode()
    def paint_eagerly(photos: NDArray[np.uint8]) -> object:
        tensor = torch.from_numpy(photos).permute(0, 3, 1, 2) / 255
        painted = generator(tensor, [0] * len(photos))
        return (painted.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()

    return dict(zip(ENGINES, (paint_with_stylizer, paint_eagerly), strict=True))


def make_photos(batch: int, side_px: int) -> NDArray[np.uint8]:
    """Seeded noise, uint8 (N, H, W, 3): the work does not depend on what a picture shows."""
    shape = (batch, side_px, side_px, 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def measure(case: Case, manifest: Manifest, plan: Plan, threads: int) -> dict[str, Any]:
    """Time alternating passes and give medians of images a second, and peak memory of each."""
    engines = build_engines(manifest, manifest.card(case.style), threads)
    photos = make_photos(case.batch, case.side_px)
    seconds: dict[str, list[float]] = {name: [] for name in ENGINES}
    for paint in engines.values():
        paint(photos)
    ends_s = time.perf_counter() + plan.seconds_a_case
    while len(seconds["eager"]) < plan.rounds or time.perf_counter() < ends_s:
        for name, paint in engines.items():
            started = time.perf_counter()
            paint(photos)
            seconds[name].append(time.perf_counter() - started)
    speed = {name: case.batch / statistics.median(seconds[name]) for name in ENGINES}
    memory = {name: measure_peak_memory(name, case, manifest, threads) for name in ENGINES}
    ratios = [e / s for s, e in zip(seconds["stylizer"], seconds["eager"], strict=True)]
    return asdict(case) | {
        "rounds": len(ratios),
        "images_per_s": round(speed["stylizer"], 3),
        "eager_images_per_s": round(speed["eager"], 3),
        "speed_ratio": round(statistics.median(ratios), 3),
        "peak_bytes": memory["stylizer"],
        "eager_peak_bytes": memory["eager"],
        "memory_ratio": round(memory["stylizer"] / memory["eager"], 3),
    }


def measure_peak_memory(engine: str, case: Case, manifest: Manifest, threads: int) -> int:
    """Give the largest resident size, in bytes, of a fresh process that paints one pass."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(paint_once, engine, case, manifest, threads).result()


def paint_once(engine: str, case: Case, manifest: Manifest, threads: int) -> int:
    """Paint one pass and give this process's peak resident size in bytes."""
    paint = build_engines(manifest, manifest.card(case.style), threads)[engine]
    paint(make_photos(case.batch, case.side_px))
    return peak_resident_bytes()


def print_row(result: dict[str, Any]) -> None:
    """Print one line of the table."""
    print(
        f"{result['style']:<24}{result['generator']:<16}{result['side_px']:>6}"
        f"{result['batch']:>6}{result['images_per_s']:>10.2f}{result['eager_images_per_s']:>8.2f}"
        f"{result['speed_ratio']:>7.2f}{result['peak_bytes'] / 2**20:>8.0f}"
        f"{result['eager_peak_bytes'] / 2**20:>8.0f}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
