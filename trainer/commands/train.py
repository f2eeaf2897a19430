"""train: a recipe becomes a run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from model_zoo.cards import SHIPPED_ZOO
from trainer.commands.arguments import (
    ASSETS,
    add_command,
    asset,
    find_style_picture,
    positive,
    processes,
)
from trainer.devices import keep_freed_memory
from trainer.errors import TrainerError
from trainer.recipe import find_recipe, recipe_path

if TYPE_CHECKING:
    import argparse

    from trainer.commands.arguments import Commands
    from trainer.recipe import TrainingRecipe


def add_to(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the command and its arguments."""
    command = add_command(
        commands,
        "train",
        "train a generator from a recipe",
        "Train a generator; Ctrl-C saves, --resume goes on.",
    )
    command.set_defaults(command=run)
    add = command.add_argument
    add("recipe", metavar="RECIPE", help="a recipe's file, or a preset's name: default, ...")
    add("--photos", type=Path, required=True, metavar="DIR", help="content photographs")
    add("--loss-network", type=Path, required=True, metavar="FILE", help="VGG weights")
    add("--out", type=Path, required=True, metavar="RUN", help="folder of this run")
    add("--init", metavar="STYLE_ID", help="start from this style's weights, not from nothing")
    add(
        "--add-style",
        metavar="STYLE_ID",
        help="train only a new row of the network that this style is a row of, in a tenth of the "
        "recipe's steps",
    )
    add("--zoo", type=Path, default=SHIPPED_ZOO, metavar="DIR", help="where those two look")
    add("--resume", action="store_true", help="go on where RUN stopped; start it where it is new")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute")
    add(
        "--precision",
        choices=("auto", "fp32", "bf16"),
        default="auto",
        help="of convolutions; auto takes bf16 where the device multiplies it natively",
    )
    add("--style-picture", type=Path, metavar="FILE", help="instead of the recipe's picture")
    add(
        "--paintings",
        type=Path,
        default=ASSETS / "paintings",
        metavar="DIR",
        help="where a recipe's picture is looked for when it is not beside the recipe",
    )
    add("--eval-photos", type=Path, metavar="DIR", help="photographs of the contact sheets")
    add("--sheet-every", type=positive, default=500, metavar="STEPS", help="contact sheets")
    add("--checkpoint-every", type=positive, default=250, metavar="STEPS", help="checkpoints")
    cores = os.cpu_count() or 1
    add(
        "--workers",
        type=processes,
        default=0 if cores <= 4 else min(8, cores // 2),
        metavar="N",
        help="processes that decode photographs; 0 decodes between steps",
    )
    add(
        "--threads",
        type=processes,
        default=0,
        metavar="N",
        help="CPU threads; 0 takes all cores",
    )


def run(options: argparse.Namespace) -> None:
    """Train, and say what to do with the run."""
    from trainer.train import TrainingOptions, train  # needs the extra

    keep_freed_memory()
    if options.threads:
        torch.set_num_threads(options.threads)
    recipe = find_recipe(options.recipe)
    train(
        recipe,
        TrainingOptions(
            photos=options.photos,
            loss_network=options.loss_network,
            style_pictures=_find_style_pictures(options, recipe),
            out=options.out,
            init=options.init,
            add_to=options.add_style,
            zoo=options.zoo,
            device=options.device,
            precision=options.precision,
            resume=options.resume,
            eval_photos=options.eval_photos or asset("photos/eval"),
            sheet_every=options.sheet_every,
            checkpoint_every=options.checkpoint_every,
            workers=options.workers,
        ),
    )
    how = f"export {options.out}" + (" --style-id ID" if len(recipe.styles) == 1 else "")
    print(f"trained: export it with `python -m trainer {how}`")


def _find_style_pictures(options: argparse.Namespace, recipe: TrainingRecipe) -> tuple[Path, ...]:
    if options.style_picture is not None and len(recipe.styles) > 1:
        raise TrainerError(
            f"{options.recipe} has {len(recipe.styles)} styles; --style-picture is for one"
        )
    if options.add_style is not None and (options.init is not None or len(recipe.styles) > 1):
        raise TrainerError("--add-style takes a recipe of one style, and no --init beside it")
    path = recipe_path(options.recipe)
    return tuple(
        find_style_picture(options.style_picture, path, style.picture, options.paintings)
        for style in recipe.styles
    )
