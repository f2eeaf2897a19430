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
import math
import multiprocessing
import os
import signal
import statistics
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_

from benchmarks.report import check, describe_machine, finish, peak_resident_bytes
from model_zoo.checkpoints import build_generator
from trainer.commands.arguments import asset, positive
from trainer.devices import Precision, choose_device, choose_dtype, keep_freed_memory
from trainer.errors import TrainerError
from trainer.learner import Learner
from trainer.lessons import Lesson
from trainer.loss_network import LossNetwork, load_loss_network
from trainer.losses import PerceptualLoss
from trainer.photos import BadPhotoCount, PhotoCrops, batches
from trainer.pictures import load_picture
from trainer.recipe import TrainingRecipe, read_recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.connection import Connection


RECIPE = Path(__file__).parents[1] / "trainer" / "recipes" / "starry-night.toml"
SIDES = ("trainer", "plain", "trimmed")
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


@dataclass(frozen=True, slots=True)
class Case:
    """All that the sides share; ``recipe`` says crop and batch size, too."""

    recipe: TrainingRecipe
    photos: Path
    style_picture: Path
    loss_network: Path
    device: str
    threads: int
    workers: int
    """Processes that decode photographs for each side; 0 decodes between steps."""


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


# --- one case, measured


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


# --- the processes


class Side:
    """One side in a process of its own, which ends when told, or when this process is gone."""

    def __init__(self, name: str, case: Case) -> None:
        self.name = name
        spawn = multiprocessing.get_context("spawn")  # a CUDA context does not survive a fork
        self._pipe, self._theirs = spawn.Pipe()
        self._process = spawn.Process(target=serve, args=(self._theirs, name, case))

    def start(self) -> None:
        self._process.start()
        self._theirs.close()

    def ask(self, request: str, *arguments: object) -> Any:
        """Give a method of :class:`Measured` its arguments and wait for what it returns.

        Raises:
            TrainerError: the process said what is wrong with the input.
        """
        self._pipe.send((request, *arguments))
        return self.answer()

    def answer(self) -> Any:
        """Wait for an answer."""
        try:
            value = self._pipe.recv()
        except EOFError:
            raise RuntimeError(f"the process of side {self.name!r} ended; see above") from None
        if isinstance(value, TrainerError):
            raise value
        return value

    def close(self) -> None:
        """Tell the process to end after the step in hand."""
        self._pipe.close()

    def join(self) -> None:
        """Wait for the end of the process, which is by force where it takes long."""
        if self._process.pid is None:
            return
        self._process.join(20)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


@contextmanager
def running_sides(case: Case) -> Iterator[dict[str, Side]]:
    """Start a process for each side, wait until all are ready, and leave none behind."""
    sides = {name: Side(name, case) for name in SIDES}
    try:
        with deaf_to_ctrl_c():
            for side in sides.values():
                side.start()
        for side in sides.values():
            side.answer()
        yield sides
    finally:
        with deaf_to_ctrl_c():  # a second one must not keep the rest from being stopped
            for side in sides.values():
                side.close()
            for side in sides.values():
                side.join()


@contextmanager
def deaf_to_ctrl_c() -> Iterator[None]:
    """Ignore Ctrl-C for a moment; a process started meanwhile ignores it for good.

    A terminal sends it to every process, and the sides shall end when they are told to.
    """
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def serve(pipe: Connection, name: str, case: Case) -> None:
    """Be one side: answer requests until the other end of ``pipe`` is closed."""
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # it is, or its process is gone
        try:
            side = Measured(name, case, pipe)
            pipe.send("ready")
            while True:
                request, *arguments = pipe.recv()
                pipe.send(getattr(side, request)(*arguments))
        except TrainerError as error:
            pipe.send(error)


class Measured:
    """One side's loop and its stream of photographs."""

    def __init__(self, name: str, case: Case, pipe: Connection) -> None:
        if name == "trainer":
            keep_freed_memory()  # as the trainer's command line does, before anything is allocated
        torch.set_num_threads(case.threads)
        self.name, self.case, self.pipe = name, case, pipe
        self.loop = build_loop(name, case)
        self.pictures = decode(case, steps=10**9, workers=case.workers)

    def train(self, seconds: float) -> tuple[int, float]:
        """Make steps for ``seconds``, at least one; give pictures done and seconds taken."""
        pictures = 0
        started = time.perf_counter()
        while True:
            pixels = next(self.pictures)
            self.loop.step(pixels)
            pictures += len(pixels)
            enough = time.perf_counter() - started >= seconds
            if enough or self.pipe.poll():  # nothing is asked meanwhile: the parent is gone
                break
        if self.case.device == "cuda":
            torch.cuda.synchronize()
        return pictures, time.perf_counter() - started

    def peak_bytes(self) -> int:
        """Most memory so far: allocated on the device, or resident where that is the CPU."""
        if self.case.device == "cuda":
            return torch.cuda.max_memory_allocated()
        return peak_resident_bytes()

    def compare(self, precision: Precision) -> tuple[float, float]:
        """Objective and norm of its gradient that a fresh generator has at the first batch."""
        loop = build_loop(self.name, self.case, precision)
        return loop.step(next(decode(self.case, steps=1, workers=0)))()


def decode(case: Case, *, steps: int, workers: int) -> Iterator[Tensor]:
    """Crops of each step, uint8 (N, 3, S, S), by the trainer's own decoder."""
    data, seed = case.recipe.data, case.recipe.optimization.seed
    crops = PhotoCrops(case.photos, data.crop_px, seed)
    bad_photos = BadPhotoCount(len(crops.paths))
    loader = batches(
        crops, first_step=0, last_step=steps, batch_size=data.batch_size, workers=workers
    )
    for batch in loader:
        bad_photos.add(batch)
        yield batch.pixels


# --- the loops


class Loop(Protocol):
    """A generator in training."""

    def step(self, pixels: Tensor) -> Callable[[], tuple[float, float]]:
        """Learn from uint8 (N, 3, S, S); the answer gives the objective and its gradient's norm.

        It is a function, so that nobody waits for the device to tell what nobody asks.
        """


def build_loop(name: str, case: Case, precision: Precision = "auto") -> Loop:
    """Build a side's loop, its generator new; only the trainer's has a choice of precision."""
    if name == "trainer":
        return TrainerLoop(case, precision)
    return PlainLoop(case, whole_network=name == "plain")


class TrainerLoop:
    """``Learner`` with all that ``trainer/train.py`` gives it."""

    def __init__(self, case: Case, precision: Precision) -> None:
        recipe = case.recipe
        device = choose_device(case.device)
        dtype = choose_dtype(precision, device)
        torch.manual_seed(recipe.optimization.seed)
        generator = build_generator(recipe.generator.name, recipe.generator.arguments)
        network = load_loss_network(case.loss_network)
        network = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        network.convolutions.to(dtype)
        picture = load_picture(case.style_picture, recipe.style.size_px).to(device)
        lessons = [Lesson(PerceptualLoss(network, picture, recipe.loss))]
        self.learner = Learner(generator, lessons, recipe.optimization, device=device, dtype=dtype)
        self.steps_done = 0

    def step(self, pixels: Tensor) -> Callable[[], tuple[float, float]]:
        result = self.learner.step(pixels, self.steps_done)
        if result is None:
            raise TrainerError("the gradient is not finite")
        self.steps_done += 1
        return lambda: (result.terms.objective.mean().item(), result.gradient_norm.item())


class PlainLoop:
    """The loop that a careful reader of the paper writes in an afternoon; fp32 throughout."""

    def __init__(self, case: Case, *, whole_network: bool) -> None:
        recipe = case.recipe
        self.device = choose_device(case.device)
        self.weights = recipe.loss
        torch.manual_seed(recipe.optimization.seed)
        generator = build_generator(recipe.generator.name, recipe.generator.arguments)
        self.generator = generator.to(self.device).train()
        self.optimizer = torch.optim.Adam(
            self.generator.parameters(), lr=recipe.optimization.learning_rate
        )
        kept = {*self.weights.content_layers, *self.weights.style_layers}
        self.network = PlainVgg(load_loss_network(case.loss_network), kept, whole=whole_network)
        self.network.to(self.device)
        picture = load_picture(case.style_picture, recipe.style.size_px).to(self.device)
        batch = recipe.data.batch_size
        self.targets = {
            scale: {
                name: plain_gram(features).repeat(batch, 1, 1)
                for name, features in self.network(shrink(picture, scale)).items()
            }
            for scale in self.weights.style_scales
        }

    def objective(self, pixels: Tensor) -> Tensor:
        """Stylize uint8 (N, 3, S, S) and measure: a scalar, differentiable."""
        # As torchvision's ToTensor gives them; a stack of our crops would be channels_last.
        photos = pixels.to(self.device).contiguous().float() / 255  # (N, 3, S, S)
        stylized = self.generator(photos)
        # Nothing here needs a gradient, weights included, so without no_grad nothing is stored.
        wanted = self.network(photos)
        painted = self.network(stylized)
        content = stylized.new_zeros(())
        for name in self.weights.content_layers:
            error = (painted[name] - wanted[name]).square().mean((1, 2, 3))
            content = content + (error / wanted[name].square().mean((1, 2, 3))).mean()
        style = stylized.new_zeros(())
        for scale, targets in self.targets.items():
            features = painted if scale == 1 else self.network(shrink(stylized, scale))
            for name in self.weights.style_layers:
                gram, target = plain_gram(features[name]), targets[name]
                style = style + F.mse_loss(gram, target) / target.square().mean()
        variation = F.mse_loss(stylized[..., 1:, :], stylized[..., :-1, :]) + F.mse_loss(
            stylized[..., :, 1:], stylized[..., :, :-1]
        )
        objective: Tensor = (
            self.weights.content_weight * content / len(self.weights.content_layers)
            + self.weights.style_weight * style / len(self.weights.style_layers) / len(self.targets)
            + self.weights.total_variation_weight * variation
        )
        return objective

    def step(self, pixels: Tensor) -> Callable[[], tuple[float, float]]:
        self.optimizer.zero_grad()
        objective = self.objective(pixels)
        objective.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        value = objective.item()  # such scripts add it up for their log, step by step
        return lambda: (value, clip_grad_norm_(self.generator.parameters(), math.inf).item())


class PlainVgg(nn.Module):
    """The loss network as modules in a row: every layer is run, ``kept`` ones are returned."""

    def __init__(self, network: LossNetwork, kept: set[str], *, whole: bool) -> None:
        super().__init__()
        names = network.layer_names
        if not whole:
            names = names[: 1 + max(names.index(name) for name in kept)]
        self.kept = kept
        self.stages = nn.ModuleDict()
        for previous, name in pairwise(("relu1_0", *names)):
            stage = nn.Sequential(network.convolutions[name], nn.ReLU(inplace=True))
            if name[4] != previous[4]:  # the first of a block
                stage.insert(0, nn.MaxPool2d(2))
            self.stages[name] = stage
        self.scale = network.preprocessing.scale
        self.mean: Tensor
        self.std: Tensor
        for name in ("mean", "std"):
            values = torch.tensor(getattr(network.preprocessing, name))
            self.register_buffer(name, values.view(1, 3, 1, 1))

    def forward(self, photos: Tensor) -> dict[str, Tensor]:
        x = (photos * self.scale - self.mean) / self.std
        features = {}
        for name, stage in self.stages.items():
            x = stage(x)
            if name in self.kept:
                features[name] = x
        return features


def plain_gram(features: Tensor) -> Tensor:
    """F F^T / (C H W): (N, C, H, W) -> (N, C, C)."""
    batch, channels, height, width = features.shape
    flat = features.view(batch, channels, height * width)
    return flat.bmm(flat.transpose(1, 2)) / (channels * height * width)


def shrink(photos: Tensor, scale: float) -> Tensor:
    """``photos`` at a half, a third and so on of their size."""
    return photos if scale == 1 else F.avg_pool2d(photos, round(1 / scale))


# --- what stands in where there are no photographs and no loss network


def draw_photos(folder: Path, count: int = 32) -> Path:
    """Write ``count`` seeded pictures of gradients and noise; give the folder, or the only one."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 1, 320)
    for number in range(count):
        from_corner = rng.uniform(-1, 1, (3, 2)) @ np.stack(np.meshgrid(ramp, ramp)).reshape(2, -1)
        blurred = rng.normal(0, 0.3, (20, 20, 3)).repeat(16, 0).repeat(16, 1)
        picture = 0.5 + from_corner.T.reshape(320, 320, 3) / 4 + blurred
        picture += rng.normal(0, 0.03, picture.shape)
        path = folder / f"{number:02}.jpg"
        Image.fromarray((picture.clip(0, 1) * 255).astype(np.uint8)).save(path, quality=85)
    return path if count == 1 else folder


def found_loss_network() -> Path | None:
    """Development's loss network, where there is one."""
    folder = asset("loss_network")
    return min(folder.glob("*.safetensors"), default=None) if folder else None


def draw_loss_network(folder: Path) -> Path:
    """Write a random VGG-19 to relu3_4, full width; its speed is that of the trained one."""
    torch.manual_seed(0)
    tensors: dict[str, Tensor] = {}
    in_channels = 3
    for block, (convolutions, channels) in enumerate([(2, 64), (2, 128), (4, 256)], 1):
        for index in range(1, convolutions + 1):
            deviation = math.sqrt(2 / (9 * in_channels))  # He et al. 2015: keeps the variance
            weight = torch.randn(channels, in_channels, 3, 3) * deviation
            tensors[f"conv{block}_{index}.weight"] = weight
            tensors[f"conv{block}_{index}.bias"] = torch.zeros(channels)
            in_channels = channels
    path = folder / "random_vgg19_relu3_4.safetensors"
    save_file(tensors, path)
    return path


if __name__ == "__main__":
    sys.exit(main())
