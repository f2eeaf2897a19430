"""optimize: previews a recipe with L-BFGS on the pixels, before an hour of training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from trainer.commands.arguments import ASSETS, add_command, find_style_picture, positive, processes
from trainer.devices import choose_device, keep_freed_memory
from trainer.errors import TrainerError
from trainer.losses import load_perceptual_loss
from trainer.pictures import load_picture, to_image
from trainer.recipe import find_recipe, recipe_path

if TYPE_CHECKING:
    import argparse

    from torch import Tensor

    from trainer.commands.arguments import Commands


def add_to(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the command and its arguments."""
    command = add_command(
        commands,
        "optimize",
        "preview a recipe without training",
        "Gatys et al.: change the pixels of one photograph until the recipe's objective is least. "
        "Shows in minutes what the recipe's weights mean; a trained generator comes near to it.",
    )
    command.set_defaults(command=run)
    add = command.add_argument
    add("recipe", metavar="RECIPE", help="a recipe's file, or a preset's name")
    add("photo", type=Path, metavar="PHOTO", help="the photograph")
    add("--loss-network", type=Path, required=True, metavar="FILE", help="VGG weights")
    add("--out", type=Path, required=True, metavar="FILE.png", help="the picture to write")
    add("--curve", type=Path, metavar="FILE.json", help="objective of every evaluation")
    add("--style-picture", type=Path, metavar="FILE", help="instead of the recipe's picture")
    add(
        "--paintings",
        type=Path,
        default=ASSETS / "paintings",
        metavar="DIR",
        help="where a recipe's picture is looked for",
    )
    add("--start", default="content", metavar="content|noise|FILE", help="where pixels start")
    add("--size-px", type=positive, default=256, metavar="PX", help="longer side of the photo")
    add("--evaluations", type=positive, default=100, metavar="N", help="of objective and gradient")
    add("--seed", type=processes, default=0, metavar="N", help="of the noise")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute")
    add("--threads", type=processes, default=0, metavar="N", help="CPU threads; 0: all cores")


def run(options: argparse.Namespace) -> None:
    """Optimize, write the picture and say what was reached."""
    from trainer.optimize import optimize  # takes tqdm, which only the extra installs

    keep_freed_memory()
    if options.threads:
        torch.set_num_threads(options.threads)
    recipe = find_recipe(options.recipe)
    device = choose_device(options.device)
    picture = find_style_picture(
        options.style_picture, recipe_path(options.recipe), recipe.style.picture, options.paintings
    )
    loss = load_perceptual_loss(
        recipe.loss, options.loss_network, picture, recipe.style.size_px, device=device
    )
    photo = load_picture(options.photo, options.size_px).to(device)
    found = optimize(
        photo,
        loss,
        start=_start(options, photo),
        evaluations=options.evaluations,
        show_progress=True,
    )
    try:
        to_image(found.picture).save(options.out)
        if options.curve is not None:
            options.curve.write_text(json.dumps(found.curve) + "\n", encoding="utf-8")
    except (OSError, ValueError) as error:
        raise TrainerError(f"{options.out} cannot be written: {error}") from error
    print(
        f"{options.out}: objective {found.curve[0]:.3f} -> {found.objective:.3f} in "
        f"{len(found.curve)} evaluations, {found.seconds:.0f} s"
    )


def _start(options: argparse.Namespace, photo: Tensor) -> Tensor:
    if options.start == "content":
        return photo
    if options.start == "noise":
        rng = torch.Generator().manual_seed(options.seed)
        return torch.rand(photo.shape, generator=rng).to(photo)
    start = load_picture(Path(options.start)).to(photo)
    return torch.nn.functional.interpolate(
        start, size=photo.shape[-2:], mode="bilinear", antialias=True
    )
