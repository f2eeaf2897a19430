"""train(recipe): the training loop, to be read from top to bottom."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from model_zoo.cards import SHIPPED_ZOO
from model_zoo.generators.conditional import mixed
from trainer.devices import Precision, choose_device, choose_dtype
from trainer.distributed import World, joined_world
from trainer.errors import TrainerError, TrainingFailedError
from trainer.learner import Learner, StepResult
from trainer.lessons import make_lessons
from trainer.photos import BadPhotoCount, PhotoCrops, batches
from trainer.records import Records
from trainer.runs import TrainingRun
from trainer.shared_network import SharedNetwork
from trainer.sheets import contact_sheet, sheet_photos, stacked
from trainer.starts import start_generator
from trainer.stopping import stop_between_steps
from trainer.symptoms import Symptoms
from trainer.validation import mean_log_objective

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from PIL import Image

    from trainer.photos import Batch
    from trainer.recipe import TrainingRecipe

logger = logging.getLogger(__name__)

SHEET_PHOTO_PX = 384


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """What may differ from machine to machine without changing what the recipe means."""

    photos: Path
    loss_network: Path
    style_pictures: tuple[Path, ...]
    out: Path
    init: str | None = None
    add_to: str | None = None
    zoo: Path = SHIPPED_ZOO
    device: str = "auto"
    precision: Precision = "auto"
    resume: bool = False
    eval_photos: Path | None = None
    sheet_every: int = 500
    checkpoint_every: int = 250
    log_every: int = 10
    workers: int = 0


def train(recipe: TrainingRecipe, options: TrainingOptions) -> None:
    """Train the generator of ``recipe`` and leave a run in ``options.out`` that can be exported.

    With ``options.add_to`` it trains one new row of that style's network, and nothing else of it.
    Started by ``torchrun``, all processes train one generator and the first writes.

    Raises:
        TrainerError: something about the input; nothing was trained, or a checkpoint was kept.
        TrainingFailedError: the loss was not finite, twice.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the checkpoint of the last whole step was written.
    """
    with joined_world(options.device) as world:
        _train(recipe, options, world)


def _train(recipe: TrainingRecipe, options: TrainingOptions, world: World) -> None:
    device = choose_device(options.device, world.local_rank)
    dtype = choose_dtype(options.precision, device)
    network = None
    if options.add_to is not None:
        network = SharedNetwork.of_style(options.add_to, options.zoo)
        recipe = network.recipe_of_new_row(recipe)
    plan = recipe.optimization
    world.share_of(recipe.data.batch_size)
    run = TrainingRun(options.out)
    checkpoint = _checkpoint_to_resume(run, recipe, options)

    torch.manual_seed(plan.seed)
    # Where there is a checkpoint, it replaces the weights that --init would load.
    init = options.init if checkpoint is None else None
    generator = (
        start_generator(recipe.generator, init, options.zoo)
        if network is None
        else network.with_new_row()
    )
    lessons = make_lessons(
        recipe,
        options.style_pictures,
        options.loss_network,
        row=None if network is None else network.new_row,
        device=device,
        dtype=dtype,
    )
    learner = Learner(generator, lessons, plan, device=device, dtype=dtype, world=world)
    crops = PhotoCrops(options.photos, recipe.data.crop_px, plan.seed)
    bad_photos = BadPhotoCount(len(crops.paths))
    photos_of_sheet = sheet_photos(options.eval_photos or options.photos, size_px=SHEET_PHOTO_PX)

    symptoms = Symptoms()
    step, rollbacks, best = 0, 0, None
    if checkpoint is not None:
        step, rollbacks = checkpoint["step"], checkpoint["rollbacks"]
        best = checkpoint["best"]
        learner.load_state(checkpoint)
    elif world.writes:
        facts = _facts(recipe, options, crops, device, dtype, world)
        run.start(recipe, facts if network is None else facts | network.facts_of_new_row(recipe))
    if world.rank > 0:  # noise drawn by a generator must differ between processes
        torch.manual_seed(plan.seed + world.rank + step)

    def photographs_from(step: int) -> Iterator[Batch]:
        return iter(
            batches(
                crops,
                first_step=step,
                last_step=plan.steps,
                batch_size=recipe.data.batch_size,
                workers=options.workers,
                world=world,
            )
        )

    def save() -> None:
        state = {**learner.state(), "step": step, "rollbacks": rollbacks, "best": best}
        records.save_checkpoint(state, bad_photos=len(bad_photos.bad))

    with (
        Records(run, step, enabled=world.writes) as records,
        _progress_bar(recipe, step, world) as progress,
        stop_between_steps() as stop_requested,
    ):
        if checkpoint is None:
            save()
        stream = photographs_from(step)
        while step < plan.steps:
            batch = next(stream)
            bad_photos.add(batch)
            result = learner.step(batch.pixels, step)
            if result is None:
                step = _roll_back(run, learner, step, rollbacks)
                rollbacks += 1
                records.go_back(step)
                stream = photographs_from(step)
                progress.n = step
                continue
            step += 1
            progress.update()
            last = step == plan.steps

            if step % options.log_every == 0 or last:
                losses = _losses(result, learner, world, step)
                progress.set_postfix(objective=f"{losses['objective']:.3f}", refresh=False)
                records.add_losses(
                    step,
                    losses,
                    bad_photos=len(bad_photos.bad),
                    seconds_left=records.seconds_left(step, plan.steps),
                )
                for sentence in symptoms.look(step, result.stylized):
                    logger.warning("%s", sentence)
            if (step % options.sheet_every == 0 or last) and world.writes:
                validation = _look(learner, photos_of_sheet, records, step)
                if best is None or validation < best:
                    best = validation
                    weights = learner.average.generator.state_dict()
                    records.save_best(
                        {"step": step, "validation": validation, "generator": weights}
                    )
            if world.any(flag=stop_requested(), device=device):
                save()
                raise KeyboardInterrupt
            if step % options.checkpoint_every == 0 or last:
                save()


@contextmanager
def _progress_bar(recipe: TrainingRecipe, step: int, world: World) -> Iterator[tqdm[NoReturn]]:
    """A bar with the time left, which log lines do not break."""
    bar = tqdm(
        total=recipe.optimization.steps,
        initial=step,
        unit="step",
        desc=recipe.name,
        smoothing=0.05,
        disable=not world.writes,
    )
    with logging_redirect_tqdm(), bar:
        yield bar


def _look(learner: Learner, photos: list[Image.Image], records: Records, step: int) -> float:
    """Paint the evaluation photographs with the averaged weights; mean ln(objective) of them."""
    generator = learner.average.generator
    sheets = []
    for lesson in learner.lessons:
        with mixed(generator, lesson.mixes):
            sheets.append(contact_sheet(generator, photos))
    records.save_sheet(step, stacked(sheets))
    validation = mean_log_objective(generator, learner.lessons, photos)
    records.add_losses(step, {"validation": validation})
    return validation


def _losses(result: StepResult, learner: Learner, world: World, step: int) -> dict[str, float]:
    terms = result.terms
    means = {
        "objective": terms.objective.mean(),
        "content": terms.content.mean(),
        "style": terms.style.mean(),
        "total_variation": terms.total_variation.mean(),
        "gradient_norm": result.gradient_norm,
        **{f"content/{name}": value.mean() for name, value in terms.content_by_layer.items()},
        **{f"style/{name}": value.mean() for name, value in terms.style_by_layer.items()},
    }
    of_all = world.mean(torch.stack([mean.detach().float() for mean in means.values()]))
    losses = dict(zip(means, of_all.tolist(), strict=True))
    return {**losses, "learning_rate": learner.learning_rate_at(step - 1)}


def _roll_back(run: TrainingRun, learner: Learner, step: int, rollbacks: int) -> int:
    """Go back to the last checkpoint with half the learning rate; give its step.

    Raises:
        TrainingFailedError: it has happened before.
    """
    if rollbacks:
        raise TrainingFailedError(
            f"step {step + 1}: the gradient is not finite, for the second time; the checkpoint "
            "before it is kept. Lower optimization.learning_rate or set optimization.gradient_clip"
        )
    checkpoint = run.load_checkpoint()
    if checkpoint is None:
        raise TrainingFailedError(f"step {step + 1}: the checkpoint to go back to is gone")
    learner.load_state(checkpoint)
    learner.learning_rate_factor /= 2  # the same again would end the same
    logger.warning(
        "step %d: the gradient is not finite; going back to step %d with half the learning rate",
        step + 1,
        checkpoint["step"],
    )
    return int(checkpoint["step"])


def _checkpoint_to_resume(
    run: TrainingRun, recipe: TrainingRecipe, options: TrainingOptions
) -> dict[str, Any] | None:
    checkpoint = run.load_checkpoint()
    if checkpoint is None:
        return None
    if not options.resume:
        raise TrainerError(
            f"{run.folder} already holds a run, {checkpoint['step']} steps long; "
            "add --resume to go on with it or give another --out"
        )
    if run.recipe() != replace(recipe, name=run.facts()["recipe"], source=run.recipe().source):
        raise TrainerError(
            f"{run.folder} was started with another recipe ({run.recipe_path}); "
            "resume with that one or give another --out"
        )
    return checkpoint


def _facts(
    recipe: TrainingRecipe,
    options: TrainingOptions,
    crops: PhotoCrops,
    device: torch.device,
    dtype: torch.dtype,
    world: World,
) -> dict[str, Any]:
    """What the recipe does not say about a run, for its card. Names no folder of this machine."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return {
        "recipe": recipe.name,
        "init": options.init,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "style_picture": ", ".join(picture.name for picture in options.style_pictures),
        "photos": len(crops.paths),
        "loss_network": options.loss_network.name,
        "device": name,
        "processes": world.size,
        "threads": torch.get_num_threads(),
        "precision": _precision(device, dtype),
        "torch": str(torch.__version__),
        "steps_done": 0,
        "seconds": 0.0,
    }


def _precision(device: torch.device, dtype: torch.dtype) -> str:
    if dtype is not torch.bfloat16:
        return "fp32"
    return "bf16" if device.type == "cpu" else "loss network in bf16"  # see Learner
