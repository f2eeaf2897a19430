"""train(recipe): the training loop, to be read from top to bottom."""

from __future__ import annotations

import signal
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.utils import clip_grad_norm_
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from model_zoo.cards import SHIPPED_ZOO, Manifest, ZooError
from model_zoo.checkpoints import build_generator, load_generator
from trainer.devices import Precision, choose_device, choose_dtype
from trainer.errors import TrainerError, TrainingFailedError
from trainer.loss_network import load_loss_network
from trainer.losses import PerceptualLoss
from trainer.photos import BadPhotoCount, PhotoCrops, batches
from trainer.pictures import load_picture
from trainer.runs import TrainingRun
from trainer.sheets import contact_sheet, sheet_photos

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from model_zoo.layers import Generator
    from trainer.recipe import TrainingRecipe

SHEET_PHOTO_PX = 384


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """What may differ from machine to machine without changing what the recipe means."""

    photos: Path
    loss_network: Path
    style_picture: Path
    out: Path
    init: str | None = None
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

    Raises:
        TrainerError: something about the input; nothing was trained, or a checkpoint was kept.
        TrainingFailedError: the loss is no longer finite.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the checkpoint of the last whole step was written.
    """
    device = choose_device(options.device)
    dtype = choose_dtype(options.precision, device)
    run = TrainingRun(options.out)
    checkpoint = _checkpoint_to_resume(run, recipe, options)

    plan = recipe.optimization
    torch.manual_seed(plan.seed)
    init = options.init if checkpoint is None else None  # a checkpoint replaces it anyway
    generator = _untrained_or_warm(recipe, init, options.zoo)
    generator = generator.to(device).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(generator.parameters(), lr=plan.learning_rate)
    perceptual_loss = _perceptual_loss(recipe, options, device, dtype)
    crops = PhotoCrops(options.photos, recipe.data.crop_px, plan.seed)
    bad_photos = BadPhotoCount(len(crops.paths))
    photos_of_sheet = sheet_photos(options.eval_photos or options.photos, size_px=SHEET_PHOTO_PX)

    step = 0
    if checkpoint is None:
        run.start(recipe, _facts(recipe, options, crops, device, dtype))
    else:
        step = checkpoint["step"]
        generator.load_state_dict(checkpoint["generator"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        torch.set_rng_state(checkpoint["random_state"])
        run.truncate_losses(step)

    def save() -> None:
        run.save_checkpoint(
            {
                "step": step,
                "generator": generator.state_dict(),
                "optimizer": optimizer.state_dict(),
                "random_state": torch.get_rng_state(),
            }
        )
        run.add_facts(
            steps_done=step,
            seconds=round(seconds_before + time.monotonic() - started, 1),
            bad_photos=len(bad_photos.bad),
        )

    seconds_before = float(run.facts().get("seconds", 0.0))
    started = time.monotonic()
    loader = batches(
        crops,
        first_step=step,
        last_step=plan.steps,
        batch_size=recipe.data.batch_size,
        workers=options.workers,
    )
    writer = SummaryWriter(str(run.tensorboard_path), purge_step=step)
    progress = tqdm(total=plan.steps, initial=step, unit="step", desc=recipe.name, smoothing=0.05)
    with _stop_between_steps() as stop_requested, writer, progress:
        for batch in loader:
            bad_photos.add(batch)
            photos = batch.pixels.to(device, non_blocking=True).float() / 255  # (N, 3, S, S)
            photos = photos.contiguous(memory_format=torch.channels_last)
            for group in optimizer.param_groups:
                group["lr"] = plan.learning_rate_at(step)

            targets = perceptual_loss.content_targets(photos)
            with torch.autocast(device.type, dtype, enabled=dtype is not torch.float32):
                stylized = generator(photos)
            terms = perceptual_loss(stylized.float(), targets)
            objective = terms.objective.mean()
            optimizer.zero_grad(set_to_none=True)
            objective.backward()  # type: ignore[no-untyped-call]
            norm = clip_grad_norm_(generator.parameters(), plan.gradient_clip)
            if not torch.isfinite(norm):
                raise TrainingFailedError(
                    f"step {step + 1}: the gradient is not finite; the checkpoint before it is "
                    "kept. Lower optimization.learning_rate or set optimization.gradient_clip"
                )
            optimizer.step()
            step += 1
            progress.update()

            if step % options.log_every == 0 or step == plan.steps:
                losses = {
                    "objective": objective.item(),
                    "content": terms.content.mean().item(),
                    "style": terms.style.mean().item(),
                    "total_variation": terms.total_variation.mean().item(),
                    "gradient_norm": norm.item(),
                    "learning_rate": plan.learning_rate_at(step - 1),
                }
                run.append_losses({"step": step, **losses, "bad_photos": len(bad_photos.bad)})
                for name, value in losses.items():
                    writer.add_scalar(name, value, step)
                progress.set_postfix(objective=f"{losses['objective']:.3f}", refresh=False)
            if step % options.sheet_every == 0 or step == plan.steps:
                sheet = contact_sheet(generator, photos_of_sheet)
                sheet.save(run.sheet_path(step), quality=90)
            if stop_requested():
                save()
                raise KeyboardInterrupt
            if step % options.checkpoint_every == 0 or step == plan.steps:
                save()


def _untrained_or_warm(recipe: TrainingRecipe, init: str | None, zoo: Path) -> Generator:
    """A new generator, or where ``init`` names a style, that style's."""
    name, arguments = recipe.generator.name, recipe.generator.arguments
    if init is None:
        return build_generator(name, arguments)
    manifest = Manifest.read(zoo)
    card = manifest.card(init)
    try:
        generator = load_generator(manifest.weights_path(card), name, arguments)
    except ZooError as error:
        raise TrainerError(f"--init {init} does not fit the recipe: {error}") from error
    return generator.requires_grad_()


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


def _perceptual_loss(
    recipe: TrainingRecipe,
    options: TrainingOptions,
    device: torch.device,
    dtype: torch.dtype,
) -> PerceptualLoss:
    network = load_loss_network(options.loss_network)
    network.check_layers((*recipe.loss.content_layers, *recipe.loss.style_layers))
    network = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.convolutions.to(dtype)
    picture = load_picture(options.style_picture, recipe.style.size_px).to(device)
    return PerceptualLoss(network, picture, recipe.loss)


def _facts(
    recipe: TrainingRecipe,
    options: TrainingOptions,
    crops: PhotoCrops,
    device: torch.device,
    dtype: torch.dtype,
) -> dict[str, Any]:
    """What the recipe does not say about a run, for its card. Names no folder of this machine."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return {
        "recipe": recipe.name,
        "init": options.init,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "style_picture": options.style_picture.name,
        "photos": len(crops.paths),
        "loss_network": options.loss_network.name,
        "device": name,
        "threads": torch.get_num_threads(),
        "precision": "bf16" if dtype is torch.bfloat16 else "fp32",
        "torch": str(torch.__version__),
        "steps_done": 0,
        "seconds": 0.0,
    }


@contextmanager
def _stop_between_steps() -> Iterator[Callable[[], bool]]:
    """Turn Ctrl-C and SIGTERM into a question that the loop asks after each whole step."""
    stop = False

    def request_stop(signum: int, frame: object) -> None:  # noqa: ARG001
        nonlocal stop
        if stop:
            raise KeyboardInterrupt  # the second time the user means it
        stop = True

    try:
        previous = {s: signal.signal(s, request_stop) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread, where signals do not arrive
        previous = {}
    try:
        yield lambda: stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
