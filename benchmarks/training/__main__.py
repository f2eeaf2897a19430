"""Speed and memory of the training loop, beside plain loops that ask for the same objective.

    python -m benchmarks.training [--quick] [--photos DIR] [--loss-network FILE]
        [--device auto|cpu|cuda] [--threads N] [--crop-px N] [--batch-size N]

Three sides train the same untrained generator on the same crops from the same decoder:

- ``trainer``: the trainer's own step and settings, without checkpoints, sheets and logs;
- ``plain``: as many scripts do it: fp32, contiguous, the whole loss network kept and run through,
  Gram matrices by ``bmm``, no setting of the allocator, losses read after every step;
- ``trimmed``: the same loop with the loss network cut after the deepest layer of the loss, as the
  more careful scripts have it. It costs less by as much as the file holds deeper layers.

Each side is a process of its own, so that allocator settings and peak memory stay apart. They take
turns, so that whatever else the machine does falls on all; a ratio is the median of the rounds'
ratios. Written from general knowledge of such scripts; nothing is copied.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.report import check, describe_machine, finish
from benchmarks.training.inputs import draw_loss_network, draw_photos, found_loss_network
from benchmarks.training.loops import Case
from benchmarks.training.sides import SIDES, running_sides
from trainer.commands.arguments import asset, positive
from trainer.devices import choose_device, choose_dtype
from trainer.errors import TrainerError
from trainer.photos import PhotoCrops
from trainer.recipe import read_recipe

if TYPE_CHECKING:
    from collections.abc import Sequence

RECIPE = Path(__file__).parents[2] / "trainer" / "recipes" / "starry-night.toml"
MIN_SPEED_RATIO = {"cpu": 1.3, "cuda": 2.5}
MAX_DIFFERENCE = 0.03
"""Of objective and of its gradient's norm, relative; leaves room for TF32 convolutions on CUDA."""
BATCH_SIZES = {"cpu": (4,), "cuda": (4, 16)}
CROP_PX = 256
LEAST_CROP_PX = 64
BAD_INPUT, INTERRUPTED, TERMINATED = 2, 130, 143


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run measures: ``rounds`` of at least ``round_s`` and one step for each side."""

    rounds: int
    round_s: float


FULL = Plan(rounds=7, round_s=15)
QUICK = Plan(rounds=3, round_s=3)


def main() -> int:
    """Measure, print the table and the JSON line; 1 where a check does not hold."""
    arguments = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    try:
        with tempfile.TemporaryDirectory(prefix="atelier-benchmark-") as folder:
            return report(arguments, Path(folder))
    except TrainerError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        return INTERRUPTED


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="shorter runs, under two minutes on two cores")
    add("--photos", type=Path, metavar="DIR", help="photographs; drawn where there are none")
    add(
        "--loss-network", type=Path, metavar="FILE", help="VGG weights; random where there are none"
    )
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--threads", type=positive, default=torch.get_num_threads(), metavar="N")
    add("--crop-px", type=positive, default=CROP_PX, metavar="N")
    add("--batch-size", type=positive, metavar="N", help="instead of 4, and on CUDA 4 and 16")
    arguments = parser.parse_args()
    if arguments.crop_px < LEAST_CROP_PX:
        parser.error(f"--crop-px must be at least {LEAST_CROP_PX}, as in a recipe")
    return arguments


def report(arguments: argparse.Namespace, scratch: Path) -> int:
    """Run every case; what has to be drawn goes into ``scratch``."""
    device = choose_device(arguments.device).type
    plan = QUICK if arguments.quick else FULL
    cores = len(os.sched_getaffinity(0))
    machine = describe_machine(cores, arguments.threads)  # before its load is our own
    if device == "cuda":
        machine |= {"gpu": torch.cuda.get_device_name()}
    recipe = read_recipe(RECIPE)
    photos = arguments.photos or asset("photos/train") or draw_photos(scratch / "photos")
    painting = asset(f"paintings/{recipe.style.picture}") or draw_photos(scratch / "painting", 1)
    network = arguments.loss_network or found_loss_network() or draw_loss_network(scratch)
    print(f"{'px':>6}{'batch':>6}{'pictures/s':>12}{'plain':>8}{'trimmed':>9}", end="")
    print(f"{'x plain':>9}{'x trimmed':>11}{'MiB':>8}{'plain':>8}{'trimmed':>9}", end="")
    print(f"{'objective':>12}{'plain':>9}", flush=True)
    results = []
    for size in [arguments.batch_size] if arguments.batch_size else BATCH_SIZES[device]:
        case = Case(
            recipe=replace(
                recipe, data=replace(recipe.data, crop_px=arguments.crop_px, batch_size=size)
            ),
            photos=photos,
            style_picture=painting,
            loss_network=network,
            device=device,
            threads=arguments.threads,
            workers=0 if cores <= 4 else min(8, cores // 2),  # what `trainer train` takes
        )
        results.append(measure(case, plan))
        print_row(results[-1])
    speed_bound = MIN_SPEED_RATIO[device]
    difference = "largest relative difference to the plain"
    checks = [
        check("speed ratio to the plain loop", min, results, "speed_ratio", speed_bound),
        check(
            f"{difference} objective, fp32", max, results, "objective_difference", MAX_DIFFERENCE
        ),
        check(
            f"{difference} gradient norm, fp32", max, results, "gradient_difference", MAX_DIFFERENCE
        ),
    ]
    return finish("training", machine, results, checks)


def measure(case: Case, plan: Plan) -> dict[str, Any]:
    """Let the sides take turns; give medians of pictures a second, peak memory and objectives."""
    speed: dict[str, list[float]] = {name: [] for name in SIDES}
    with running_sides(case) as sides:
        for side in sides.values():
            side.ask("train", 0.0)  # the first step sets up what the others find ready
        for number in range(plan.rounds):
            for name in SIDES if number % 2 == 0 else reversed(SIDES):
                pictures, seconds = sides[name].ask("train", plan.round_s)
                speed[name].append(pictures / seconds)
        peak = {name: sides[name].ask("peak_bytes") for name in SIDES}  # before the next lines add
        objective, norm = sides["trainer"].ask("compare", "fp32")
        objective_as_trained, _ = sides["trainer"].ask("compare", "auto")
        plain_objective, plain_norm = sides["plain"].ask("compare", "fp32")
    median = {name: round(statistics.median(speed[name]), 3) for name in SIDES}
    dtype = choose_dtype("auto", choose_device(case.device))
    return {
        "device": case.device,
        "precision": "bf16" if dtype is torch.bfloat16 else "fp32",
        "generator": case.recipe.generator.name,
        "photos": len(PhotoCrops(case.photos, case.recipe.data.crop_px, 0).paths),
        "loss_network": case.loss_network.name,
        "crop_px": case.recipe.data.crop_px,
        "batch": case.recipe.data.batch_size,
        "workers": case.workers,
        "rounds": plan.rounds,
        "pictures_per_s": median["trainer"],
        "plain_pictures_per_s": median["plain"],
        "trimmed_pictures_per_s": median["trimmed"],
        "speed_ratio": median_ratio(speed["trainer"], speed["plain"]),
        "trimmed_speed_ratio": median_ratio(speed["trainer"], speed["trimmed"]),
        "peak_bytes": peak["trainer"],
        "plain_peak_bytes": peak["plain"],
        "trimmed_peak_bytes": peak["trimmed"],
        "objective": objective,
        "plain_objective": plain_objective,
        "objective_difference": abs(objective / plain_objective - 1),
        "objective_as_trained": objective_as_trained,
        "gradient_norm": norm,
        "plain_gradient_norm": plain_norm,
        "gradient_difference": abs(norm / plain_norm - 1),
    }


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median of the rounds' ratios."""
    return round(statistics.median(a / b for a, b in zip(ours, theirs, strict=True)), 3)


def print_row(result: dict[str, Any]) -> None:
    """Print one line of the table."""
    speeds = [result[f"{side}pictures_per_s"] for side in ("", "plain_", "trimmed_")]
    mebibytes = [result[f"{side}peak_bytes"] / 2**20 for side in ("", "plain_", "trimmed_")]
    print(
        f"{result['crop_px']:>6}{result['batch']:>6}"
        f"{speeds[0]:>12.2f}{speeds[1]:>8.2f}{speeds[2]:>9.2f}"
        f"{result['speed_ratio']:>9.2f}{result['trimmed_speed_ratio']:>11.2f}"
        f"{mebibytes[0]:>8.0f}{mebibytes[1]:>8.0f}{mebibytes[2]:>9.0f}"
        f"{result['objective']:>12.6g}{result['plain_objective']:>9.6g}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
