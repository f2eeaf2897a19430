"""evaluate: figures of a run, or of a style of a zoo, on photographs that it has not seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from model_zoo.cards import SHIPPED_ZOO, Manifest
from model_zoo.checkpoints import load_style
from trainer.commands.arguments import (
    add_command,
    add_measuring,
    find_style_picture,
    recipe_of,
)
from trainer.devices import keep_freed_memory
from trainer.errors import TrainerError
from trainer.losses import load_perceptual_loss
from trainer.pictures import find_pictures
from trainer.runs import TrainingRun
from trainer.sheets import contact_sheet, named_photos

if TYPE_CHECKING:
    import argparse

    from model_zoo.layers import Generator
    from trainer.commands.arguments import Commands
    from trainer.recipe import TrainingRecipe


def add_to(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the command and its arguments."""
    command = add_command(
        commands,
        "evaluate",
        "measure a run or a style",
        "Measure a run, or a style of a zoo, on photographs that it was not trained with: gap to "
        "L-BFGS (ln of the ratio of objectives; 0 is as good), checkerboard energy, border ratio, "
        "clipped and flat shares, change with contrast. What L-BFGS reaches is kept for the next "
        "time. `export` copies the figures of a run into its card.",
    )
    command.set_defaults(command=run)
    add = command.add_argument
    add("what", metavar="RUN|STYLE_ID", help="folder of a training run, or a style of --zoo")
    add("--zoo", type=Path, default=SHIPPED_ZOO, metavar="DIR", help="where STYLE_ID is")
    add("--style-picture", type=Path, metavar="FILE", help="instead of the recipe's picture")
    add_measuring(command)
    add("--json", type=Path, metavar="FILE", help="figures; default: evaluation.json of RUN")
    add("--sheet", type=Path, metavar="FILE.jpg", help="contact sheet; default: in RUN")


def run(options: argparse.Namespace) -> None:
    """Evaluate, print a table, write figures and sheet."""
    # Here, not above: both need the extra, which the other commands do without.
    from tqdm import tqdm

    from trainer.evaluate import evaluate
    from trainer.references import SHIPPED_REFERENCES, ReferenceCache, read_references

    keep_freed_memory()
    if options.threads:
        torch.set_num_threads(options.threads)
    generator, recipe, recipe_file, step = _find(options)
    picture = find_style_picture(
        options.style_picture, recipe_file, recipe.style.picture, options.paintings
    )
    loss = load_perceptual_loss(recipe.loss, options.loss_network, picture, recipe.style.size_px)
    photos = named_photos(find_pictures(options.photos), size_px=options.size_px)
    with tqdm(total=len(photos), unit="photo", desc=f"evaluate {options.what}") as progress:

        def on_photo(name: str) -> None:
            progress.set_postfix(photo=name, refresh=False)
            progress.update()

        evaluation = evaluate(
            generator,
            loss,
            photos,
            ReferenceCache(
                options.references, options.evaluations, read_references(SHIPPED_REFERENCES)
            ),
            on_photo,
        )
    print(evaluation.as_table())
    document = {
        "what": recipe.name,
        "step": step,
        "size_px": options.size_px,
        "evaluations": options.evaluations,
        **evaluation.as_document(),
    }
    document["summary"] |= {"size_px": options.size_px, "evaluations": options.evaluations}
    is_run = Path(options.what).is_dir()
    figures = options.json or (TrainingRun(Path(options.what)).evaluation_path if is_run else None)
    sheet = options.sheet or (Path(options.what) / "evaluation.jpg" if is_run else None)
    try:
        if figures is not None:
            figures.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
            print(f"figures: {figures}")
        if sheet is not None:
            contact_sheet(generator, [image for _, image in photos]).save(sheet, quality=90)
            print(f"contact sheet: {sheet}")
    except (OSError, ValueError) as error:  # ValueError: a name that Pillow knows no format for
        raise TrainerError(f"the figures cannot be written: {error}") from error


def _find(options: argparse.Namespace) -> tuple[Generator, TrainingRecipe, Path, int]:
    """The generator, its recipe, the file of that and its steps."""
    if Path(options.what).is_dir():
        training = TrainingRun(Path(options.what))
        generator, step = training.trained_generator()
        recipe = training.recipe()
        if not recipe.style.picture and options.style_picture is None:
            raise TrainerError(
                f"the recipe of {options.what} names no picture; give the one that it was trained "
                f"with, {training.facts().get('style_picture')}, as --style-picture"
            )
        return generator, recipe, training.recipe_path, step
    manifest = Manifest.read(options.zoo)
    card = manifest.card(options.what)
    recipe, recipe_file = recipe_of(card)
    return load_style(manifest, card), recipe, recipe_file, int(card.training.get("steps", 0))
