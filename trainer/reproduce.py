"""reproduce: the paper's own comparison, batch against instance normalization, with numbers.

Ulyanov et al. 2016 train the generator of *Texture Networks* and that of Johnson et al. with
either normalization and compare by eye; section 1 adds that the old generators did better with 16
photographs than with thousands. Here the same recipe trains each, and a validation objective on
photographs that none was trained with says who comes how near to Gatys' optimization.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from PIL import ImageOps
from tqdm import tqdm

from model_zoo.checkpoints import build_generator
from trainer.batch_statistics import Statistics, statistics_of
from trainer.errors import TrainerError
from trainer.learner import Learner
from trainer.lessons import Lesson
from trainer.losses import LossWeights
from trainer.photos import BadPhotoCount, PhotoCrops, batches
from trainer.pictures import DECODE_ERRORS, as_seen, open_picture, to_tensor
from trainer.recipe import Optimization

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from torch import Tensor

    from model_zoo.layers import Generator, Normalization
    from trainer.losses import PerceptualLoss
    from trainer.references import ReferenceCache

GENERATORS = ("texture_net", "johnson")
NORMALIZATIONS: tuple[Normalization, ...] = ("batch", "instance")
FEW_PHOTOGRAPHS = 16
"""The number of section 1 of the paper."""

LOSS = LossWeights(
    content_layers=("relu3_2",),
    content_weight=1.0,
    style_layers=("relu1_2", "relu2_2", "relu3_1", "relu3_2"),
    style_weight=20.0,
    style_scales=(1.0, 0.5),
    total_variation_weight=0.05,
)
"""That of the preset ``default``: it runs on every loss network from relu3_2 on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How large the experiment is; everything else is the same for every run in it."""

    crop_px: int
    style_px: int
    batch_size: int
    steps: int
    learning_rate: float
    validate_every: int


SCALES = {
    # Under 2 hours on 2 cores.
    "small": Scale(
        crop_px=128,
        style_px=256,
        batch_size=4,
        steps=400,
        learning_rate=1e-3,
        validate_every=50,
    ),
    # For a GPU: 40,000 steps of 4 are the two epochs of COCO of the sources.
    "paper": Scale(
        crop_px=256,
        style_px=512,
        batch_size=4,
        steps=40000,
        learning_rate=1e-3,
        validate_every=1000,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """One generator to train; ``photographs`` is how many it may see, None for all."""

    generator: str
    normalization: Normalization
    photographs: int | None

    @property
    def name(self) -> str:
        """A name for its files."""
        return f"{self.generator}-{self.normalization}-{self.photographs or 'all'}"


EXPERIMENTS = tuple(
    Experiment(generator=generator, normalization=normalization, photographs=photographs)
    for generator, normalization, photographs in itertools.product(
        GENERATORS, NORMALIZATIONS, (FEW_PHOTOGRAPHS, None)
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """One curve: the mean objective of the validation photographs after so many iterations.

    ``gap`` is the mean of ln(objective) less that of L-BFGS at the end.
    """

    generator: str
    normalization: str
    statistics: Statistics
    photographs: int
    iterations: int
    validation_objective: float
    gap: float
    curve: tuple[tuple[int, float], ...]
    seconds: float


class Validation:
    """The objective on a fixed batch of crops, (N, 3, S, S), that nobody is trained with."""

    def __init__(
        self,
        crops: Tensor,
        loss: PerceptualLoss,
        batch_size: int,
        references: ReferenceCache,
    ) -> None:
        self.crops = crops
        self.loss = loss
        self.batch_size = batch_size
        self.references = [
            references.reference(crop[None], self.loss, f"crop {number}").objective
            for number, crop in enumerate(
                tqdm(crops, desc="L-BFGS on validation photographs", unit="photo"), 1
            )
        ]

    def objectives(self, generator: Generator, statistics: Statistics) -> list[float]:
        """One objective a crop, of pictures clamped and rounded.

        With ``own`` statistics batch normalization sees batches as large as in training.
        """
        found: list[float] = []
        with statistics_of(generator, statistics), torch.inference_mode():
            for batch in torch.split(self.crops, self.batch_size):
                painted = as_seen(generator(batch))
                terms = self.loss(painted, self.loss.content_targets(batch))
                found += terms.objective.tolist()
        return found

    def gap(self, objectives: Sequence[float]) -> float:
        """Mean of ln(objective) less ln of what L-BFGS reaches."""
        pairs = zip(objectives, self.references, strict=True)
        return sum(math.log(mine / best) for mine, best in pairs) / len(objectives)


def run_experiment(
    experiment: Experiment,
    scale: Scale,
    loss: PerceptualLoss,
    validation: Validation,
    *,
    photos: Path,
    out: Path,
    dtype: torch.dtype,
    workers: int,
) -> list[RunResult]:
    """Train one generator and follow its validation objective; finished work is taken from disk.

    Args:
        experiment: what to train.
        scale: how long.
        loss: on the device to train on, in the precision to train with.
        validation: on the same device.
        photos: folder of training photographs.
        out: where ``NAME.json`` and ``NAME.pt`` go; an experiment that is there is not run again.
        dtype: of the generator's convolutions.
        workers: processes that decode photographs.
    """
    record = out / f"{experiment.name}.json"
    if record.exists():
        return [_from_json(row) for row in json.loads(record.read_text(encoding="utf-8"))]
    device = validation.crops.device
    torch.manual_seed(1)
    arguments = {"normalization": experiment.normalization}
    plan = Optimization(
        steps=scale.steps,
        learning_rate=scale.learning_rate,
        schedule="cosine",
        warm_up_steps=20,
        gradient_clip=10.0,
        seed=1,
    )
    generator = build_generator(experiment.generator, arguments)
    learner = Learner(generator, [Lesson(loss)], plan, device=device, dtype=dtype)
    crops = PhotoCrops(photos, scale.crop_px, plan.seed, at_most=experiment.photographs)
    bad_photos = BadPhotoCount(len(crops.paths))
    modes: tuple[Statistics, ...] = ("own", "running")
    if experiment.normalization == "instance":
        modes = ("own",)
    curves: dict[Statistics, list[tuple[int, float]]] = {mode: [] for mode in modes}
    last: dict[Statistics, list[float]] = {}
    started = time.monotonic()
    stream = batches(
        crops, first_step=0, last_step=plan.steps, batch_size=scale.batch_size, workers=workers
    )
    with tqdm(stream, desc=experiment.name, unit="step") as progress:
        for number, batch in enumerate(progress):
            bad_photos.add(batch)
            if learner.step(batch.pixels, number) is None:
                raise TrainerError(f"{experiment.name}: no finite gradient at step {number + 1}")
            done = number + 1
            if done % scale.validate_every == 0 or done == plan.steps:
                for mode in modes:
                    last[mode] = validation.objectives(learner.generator, mode)
                    curves[mode].append((done, sum(last[mode]) / len(last[mode])))
    torch.save(learner.generator.state_dict(), out / f"{experiment.name}.pt")
    results = [
        RunResult(
            generator=experiment.generator,
            normalization=experiment.normalization,
            statistics=mode,
            photographs=len(crops.paths),
            iterations=plan.steps,
            validation_objective=curves[mode][-1][1],
            gap=validation.gap(last[mode]),
            curve=tuple(curves[mode]),
            seconds=round(time.monotonic() - started, 1),
        )
        for mode in modes
    ]
    record.write_text(json.dumps([asdict(result) for result in results]), encoding="utf-8")
    return results


def trained_generators(out: Path) -> Iterator[tuple[Experiment, Generator]]:
    """The generators of all experiments that saw all photographs, in evaluation mode."""
    for experiment in EXPERIMENTS:
        if experiment.photographs is None:
            arguments = {"normalization": experiment.normalization}
            generator = build_generator(experiment.generator, arguments)
            weights = torch.load(
                out / f"{experiment.name}.pt", map_location="cpu", weights_only=True
            )
            generator.load_state_dict(weights)
            yield experiment, generator.eval().requires_grad_(requires_grad=False)


def validation_crops(paths: Sequence[Path], crop_px: int) -> Tensor:
    """The middle of each photograph, scaled to a square of ``crop_px``: (N, 3, S, S) in [0, 1]."""
    crops = []
    for path in paths:
        try:
            image = open_picture(path, at_least_px=crop_px)
        except DECODE_ERRORS:
            continue
        crops.append(to_tensor(ImageOps.fit(image, (crop_px, crop_px))))
    if not crops:
        raise TrainerError("none of the --eval-photos can be read")
    return torch.cat(crops)


def _from_json(row: dict[str, Any]) -> RunResult:
    curve = tuple((int(step), float(value)) for step, value in row.pop("curve"))
    return RunResult(**row, curve=curve)
