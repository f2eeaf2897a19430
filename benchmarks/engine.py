"""Speed and memory of every generator on every runtime, beside a plain eager pass of the same.

    python -m benchmarks.engine [--quick] [--threads N]

Each takes uint8 photographs and gives uint8 paintings. In every round each paints in turn, so that
whatever else the machine does falls on all; peak memory comes from a fresh process a case.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.generators import style_of, write_zoo
from benchmarks.report import check, describe_machine, finish, peak_resident_bytes
from model_zoo.cards import Manifest
from model_zoo.checkpoints import load_generator
from model_zoo.generators import GENERATORS
from service.jobs import StyleJob
from service.runtimes import RuntimeName
from service.settings import available_cores
from service.stylizer import Stylizer

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Paint = Callable[[NDArray[np.uint8]], object]

EAGER = "eager"
RUNTIMES = (EAGER, *(name for name in get_args(RuntimeName) if name != "auto"))
REFERENCE = ("johnson", EAGER)
MIN_JOHNSON_RATIO = 1.5
MIN_FAST_RATIO = 12.0
_MATRIX_SIDE = 2048
_ROUND_S = 0.15
_LONG_S = 2.0


@dataclass(frozen=True, slots=True)
class Case:
    """Side of the pictures in px, how many are in a pass, and how many rounds to time."""

    side_px: int
    batch: int
    rounds: int
    memory: bool = False


FULL = (
    Case(256, 1, rounds=5),
    Case(512, 1, rounds=7, memory=True),
    Case(512, 4, rounds=3),
    Case(1024, 1, rounds=3, memory=True),
    Case(2048, 1, rounds=1),
)
QUICK = (Case(512, 1, rounds=3),)


def main() -> int:
    """Measure, print the table and the JSON line; 1 where a check does not hold."""
    arguments = parse_arguments()
    cases = QUICK if arguments.quick else FULL
    print(
        f"{'generator':<14}{'runtime':<10}{'px':>6}{'batch':>6}{'ms':>9}{'images/s':>10}"
        f"{'x eager':>9}{'x johnson':>10}{'of mm':>7}{'MiB':>7}"
    )
    results = []
    with tempfile.TemporaryDirectory() as folder:
        manifest = write_zoo(Path(folder), {style_of(name): name for name in GENERATORS})
        painters = {
            (name, runtime): build_painter(manifest, name, runtime, arguments.threads)
            for name in GENERATORS
            for runtime in RUNTIMES
        }
        for case in cases:
            rows = measure(painters, case.side_px, case.batch, case.rounds)
            for row in rows:
                if case.memory:
                    row["peak_bytes"] = measure_peak_memory(manifest, row, arguments.threads)
                print_row(row)
            results += rows
    checks = list_checks(results)
    machine = describe_machine(available_cores(), arguments.threads)
    return finish("engine", machine, results, checks)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="512 px alone, under two minutes")
    parser.add_argument("--threads", type=int, default=available_cores())
    return parser.parse_args()


def build_painter(manifest: Manifest, name: str, runtime: str, threads: int) -> Paint:
    """Give one way to paint photographs, uint8 (N, H, W, 3)."""
    card = manifest.card(style_of(name))
    if runtime != EAGER:
        one = Manifest(manifest.zoo, (card,))
        stylizer = Stylizer(one, device="cpu", runtime=runtime, threads=threads)  # type: ignore[arg-type]
        return lambda photos: stylizer.run([StyleJob(card, photo) for photo in photos])
    generator = load_generator(manifest.weights_path(card), card.generator, card.arguments)
    torch.set_num_threads(threads)

    @torch.inference_mode()
    def paint(photos: NDArray[np.uint8]) -> object:
        tensor = torch.from_numpy(photos).permute(0, 3, 1, 2) / 255
        painted = generator(tensor, [0] * len(photos))
        return (painted.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()

    return paint


def make_photos(batch: int, side_px: int) -> NDArray[np.uint8]:
    """Seeded noise, uint8 (N, H, W, 3): the work does not depend on what a picture shows."""
    shape = (batch, side_px, side_px, 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def measure(
    painters: dict[tuple[str, str], Paint], side_px: int, batch: int, rounds: int
) -> list[dict[str, Any]]:
    """Time all painters in turn, round after round, and a matrix product beside them."""
    photos = make_photos(batch, side_px)
    passes = {key: count_passes(paint, photos) for key, paint in painters.items()}
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in painters}
    product_flops = []
    for _ in range(rounds):
        product_flops.append(measure_product())
        for key, paint in painters.items():
            started = time.perf_counter()
            for _ in range(passes[key]):
                paint(photos)
            seconds[key].append((time.perf_counter() - started) / passes[key] / batch)
    rows = []
    for (name, runtime), own in seconds.items():
        flops = count_flops(name, side_px)
        rows.append(
            {
                "generator": name,
                "runtime": runtime,
                "side_px": side_px,
                "batch": batch,
                "ms": round(1000 * statistics.median(own), 2),
                "images_per_s": round(1 / statistics.median(own), 3),
                "ratio_to_eager": median_ratio(seconds[name, EAGER], own),
                "ratio_to_eager_johnson": median_ratio(seconds[REFERENCE], own),
                "share_of_matrix_product": round(
                    flops / statistics.median(own) / statistics.median(product_flops), 3
                ),
            }
        )
    return rows


def count_passes(paint: Paint, photos: NDArray[np.uint8]) -> int:
    """Warm up, and tell how many passes make a round long enough to be timed."""
    started = time.perf_counter()
    paint(photos)
    if time.perf_counter() - started > _LONG_S:
        return 1
    started = time.perf_counter()
    paint(photos)
    return max(1, round(_ROUND_S / (time.perf_counter() - started)))


def median_ratio(slower: list[float], faster: list[float]) -> float:
    """How many times as fast, by the median over the rounds."""
    return round(statistics.median(a / b for a, b in zip(slower, faster, strict=True)), 3)


def measure_product() -> float:
    """Floating point operations a second of torch's matrix product, the machine's measure."""
    a, b = torch.ones(2, _MATRIX_SIDE, _MATRIX_SIDE).unbind()
    started = time.perf_counter()
    torch.mm(a, b)
    return 2 * _MATRIX_SIDE**3 / (time.perf_counter() - started)


@torch.inference_mode()
def count_flops(name: str, side_px: int) -> int:
    """Floating point operations of the convolutions in one pass."""
    generator = GENERATORS[name]().eval()
    with FlopCounterMode(display=False) as counter:
        generator(torch.zeros(1, 3, 64, 64), [0])
    return round(counter.get_total_flops() * (side_px / 64) ** 2)


def measure_peak_memory(manifest: Manifest, row: dict[str, Any], threads: int) -> int:
    """Give the largest resident size, in bytes, of a fresh process that paints one pass."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        case = (manifest, row["generator"], row["runtime"], threads, row["side_px"])
        return process.submit(paint_once, *case).result()


def paint_once(manifest: Manifest, name: str, runtime: str, threads: int, side_px: int) -> int:
    """Paint one pass and give this process's peak resident size in bytes."""
    build_painter(manifest, name, runtime, threads)(make_photos(1, side_px))
    return peak_resident_bytes()


def list_checks(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Hold what was measured at 512 px, one picture a pass, against what was asked."""
    best = [
        row
        for row in results
        if (row["side_px"], row["batch"], row["runtime"]) == (512, 1, RUNTIMES[-1])
    ]
    johnson, fast = (
        [row for row in best if row["generator"] == name] for name in ("johnson", "fast")
    )
    key = "ratio_to_eager_johnson"
    return [
        check("johnson over eager johnson, 512 px", min, johnson, key, MIN_JOHNSON_RATIO),
        check("fast over eager johnson, 512 px", min, fast, key, MIN_FAST_RATIO),
    ]


def print_row(row: dict[str, Any]) -> None:
    """Print one line of the table."""
    memory = f"{row['peak_bytes'] / 2**20:.0f}" if "peak_bytes" in row else "-"
    print(
        f"{row['generator']:<14}{row['runtime']:<10}{row['side_px']:>6}{row['batch']:>6}"
        f"{row['ms']:>9.1f}{row['images_per_s']:>10.2f}{row['ratio_to_eager']:>9.2f}"
        f"{row['ratio_to_eager_johnson']:>10.2f}{row['share_of_matrix_product']:>7.2f}{memory:>7}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
