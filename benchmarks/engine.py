"""Speed and memory of every generator on every runtime, beside a plain eager pass of the same.

    python -m benchmarks.engine [--quick] [--threads N] [--device cpu|cuda]

Each takes uint8 photographs and gives uint8 paintings, from as many threads as the service would
use. In every round each paints in turn, so that whatever else the machine does falls on all; peak
memory comes from a fresh process a case on a CPU, and from torch on a GPU.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
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

# But the conditional one, which is fast's network with rows for styles: benchmarks.shared.
NAMES = tuple(name for name in GENERATORS if name != "conditional")
EAGER = "eager"
RUNTIMES = {
    "cpu": (EAGER, *(name for name in get_args(RuntimeName) if name != "auto")),
    "cuda": (EAGER, "torch"),
}
REFERENCE = ("johnson", EAGER)
MIN_JOHNSON_RATIO = 1.5
MIN_FAST_RATIO = 12.0
MIN_CUDA_RATIO = 3.0
MIN_CUDA_IMAGES_PER_S = 1000.0
THREADS_THAT_PAINT = {"cpu": 1, "cuda": 2}
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
CUDA_FULL = (
    Case(256, 1, rounds=5),
    Case(256, 8, rounds=5),
    Case(512, 1, rounds=5),
    Case(512, 8, rounds=5, memory=True),
    Case(1024, 1, rounds=3),
    Case(1024, 8, rounds=3),
    Case(2048, 1, rounds=3, memory=True),
)
CUDA_QUICK = (Case(512, 1, rounds=3), Case(512, 8, rounds=3))


def main() -> int:
    """Measure, print the table and the JSON line; 1 where a check does not hold."""
    arguments = parse_arguments()
    device = arguments.device
    if device == "cpu":
        cases = QUICK if arguments.quick else FULL
    else:
        cases = CUDA_QUICK if arguments.quick else CUDA_FULL
    print(
        f"{'generator':<14}{'runtime':<10}{'px':>6}{'batch':>6}{'ms':>9}{'images/s':>10}"
        f"{'x eager':>9}{'x johnson':>10}{'of mm':>7}{'MiB':>7}"
    )
    results = []
    with tempfile.TemporaryDirectory() as folder:
        manifest = write_zoo(Path(folder), {style_of(name): name for name in NAMES})
        painters = {
            (name, runtime): build_painter(manifest, name, runtime, arguments.threads, device)
            for name in NAMES
            for runtime in RUNTIMES[device]
        }
        for case in cases:
            rows = measure(painters, case, device)
            for row in rows:
                if case.memory:
                    row["peak_bytes"] = measure_peak_memory(
                        manifest, row, arguments.threads, device
                    )
                print_row(row)
            results += rows
    checks = list_checks(results) if device == "cpu" else list_cuda_checks(results)
    machine = describe_machine(available_cores(), arguments.threads)
    if device == "cuda":
        machine["gpu"] = torch.cuda.get_device_name()
    return finish("engine", machine, results, checks)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="512 px alone, under two minutes")
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--device", choices=tuple(RUNTIMES), default="cpu")
    return parser.parse_args()


def build_painter(manifest: Manifest, name: str, runtime: str, threads: int, device: str) -> Paint:
    """Give one way to paint photographs, uint8 (N, H, W, 3)."""
    card = manifest.card(style_of(name))
    if runtime != EAGER:
        one = Manifest(manifest.zoo, (card,))
        options: dict[str, Any] = {"device": device, "runtime": runtime, "threads": threads}
        stylizer = Stylizer(one, memory_budget_bytes=16 * 2**30, **options)
        return lambda photos: stylizer.run([StyleJob(card, photo) for photo in photos])
    generator = load_generator(manifest.weights_path(card), card.generator, card.arguments)
    generator = generator.to(device)
    torch.set_num_threads(threads)

    @torch.inference_mode()
    def paint(photos: NDArray[np.uint8]) -> object:
        tensor = torch.from_numpy(photos).to(device).permute(0, 3, 1, 2) / 255
        painted = generator(tensor, [0] * len(photos))
        pixels = (painted.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
        return pixels.cpu().numpy()

    return paint


def make_photos(batch: int, side_px: int) -> NDArray[np.uint8]:
    """Seeded noise, uint8 (N, H, W, 3): the work does not depend on what a picture shows."""
    shape = (batch, side_px, side_px, 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def measure(
    painters: dict[tuple[str, str], Paint], case: Case, device: str
) -> list[dict[str, Any]]:
    """Time all painters in turn, round after round, and a matrix product beside them."""
    side_px, batch = case.side_px, case.batch
    photos = make_photos(batch, side_px)
    passes = {key: count_passes(paint, photos) for key, paint in painters.items()}
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in painters}
    product_flops = []
    with ThreadPoolExecutor(THREADS_THAT_PAINT[device]) as pool:
        for _ in range(case.rounds):
            product_flops.append(measure_product(device))
            for key, paint in painters.items():
                started = time.perf_counter()
                list(pool.map(paint, [photos] * passes[key]))
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
    paint(photos)  # the second time of a size is when a GPU's passes are recorded
    started = time.perf_counter()
    paint(photos)
    return max(1, round(_ROUND_S / (time.perf_counter() - started)))


def median_ratio(slower: list[float], faster: list[float]) -> float:
    """How many times as fast, by the median over the rounds."""
    return round(statistics.median(a / b for a, b in zip(slower, faster, strict=True)), 3)


def measure_product(device: str) -> float:
    """Floating point operations a second of torch's matrix product, the machine's measure.

    In fp32 on a CPU, in bf16 on a GPU.
    """
    if device == "cpu":
        a, b = torch.ones(2, _MATRIX_SIDE, _MATRIX_SIDE).unbind()
        started = time.perf_counter()
        torch.mm(a, b)
        return 2 * _MATRIX_SIDE**3 / (time.perf_counter() - started)
    side = 4 * _MATRIX_SIDE
    a, b = torch.randn(2, side, side, device=device, dtype=torch.bfloat16).unbind()
    torch.mm(a, b)
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(5):
        torch.mm(a, b)
    torch.cuda.synchronize()
    return 5 * 2 * side**3 / (time.perf_counter() - started)


@torch.inference_mode()
def count_flops(name: str, side_px: int) -> int:
    """Floating point operations of the convolutions in one pass."""
    generator = GENERATORS[name]().eval()
    with FlopCounterMode(display=False) as counter:
        generator(torch.zeros(1, 3, 64, 64), [0])
    return round(counter.get_total_flops() * (side_px / 64) ** 2)


def measure_peak_memory(manifest: Manifest, row: dict[str, Any], threads: int, device: str) -> int:
    """Give the largest resident size, in bytes, of a fresh process that paints one pass.

    On a GPU that of torch's tensors, in this process.
    """
    case = (manifest, row["generator"], row["runtime"], threads, device)
    photos = make_photos(row["batch"], row["side_px"])
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        build_painter(*case)(photos)
        return torch.cuda.max_memory_allocated() - held
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(paint_once, case, photos).result()


def paint_once(case: tuple[Manifest, str, str, int, str], photos: NDArray[np.uint8]) -> int:
    """Paint one pass and give this process's peak resident size in bytes."""
    build_painter(*case)(photos)
    return peak_resident_bytes()


def list_checks(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Hold what was measured at 512 px, one picture a pass, against what was asked."""
    best = [
        row
        for row in results
        if (row["side_px"], row["batch"], row["runtime"]) == (512, 1, RUNTIMES["cpu"][-1])
    ]
    johnson, fast = (
        [row for row in best if row["generator"] == name] for name in ("johnson", "fast")
    )
    key = "ratio_to_eager_johnson"
    return [
        check("johnson over eager johnson, 512 px", min, johnson, key, MIN_JOHNSON_RATIO),
        check("fast over eager johnson, 512 px", min, fast, key, MIN_FAST_RATIO),
    ]


def list_cuda_checks(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Hold what was measured at 512 px, eight pictures a pass, against what was asked."""
    johnson = [
        row
        for row in results
        if (row["side_px"], row["batch"], row["runtime"]) == (512, 8, "torch")
        and row["generator"] == "johnson"
    ]
    return [
        check("johnson, images/s", min, johnson, "images_per_s", MIN_CUDA_IMAGES_PER_S),
        check("johnson over eager fp32", min, johnson, "ratio_to_eager", MIN_CUDA_RATIO),
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
