"""python -m trainer: the command line of the trainer."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from model_zoo.cards import SHIPPED_ZOO, ZooError
from trainer.devices import keep_freed_memory
from trainer.errors import TrainerError, TrainingFailedError
from trainer.export import ExportOptions, export
from trainer.loss_network import download_loss_network, load_loss_network
from trainer.recipe import read_recipe

if TYPE_CHECKING:
    from collections.abc import Sequence

ASSETS = Path("../shared/assets")
"""Where development keeps paintings and photographs; used only where it exists."""

MOST_PROCESSES = 1024
"""More workers or threads than this are a slip of the hand."""

BAD_INPUT = 2  # what argparse exits with, too
FAILED = 1
INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 1 (failed), 2 (bad input), 130 (interrupted)."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    try:
        options.command(options)
    except (TrainerError, ZooError) as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except TrainingFailedError as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("interrupted; `--resume` goes on from the last checkpoint", file=sys.stderr)
        return INTERRUPTED
    return 0


def _train(options: argparse.Namespace) -> None:
    try:
        from trainer.train import TrainingOptions, train  # the only command that needs the extra
    except ModuleNotFoundError as error:
        raise TrainerError(
            f"training needs {error.name}, which is not installed; pip install 'atelier[train]'"
        ) from error
    keep_freed_memory()
    if options.threads:
        torch.set_num_threads(options.threads)
    recipe = read_recipe(options.recipe)
    eval_photos = options.eval_photos
    if eval_photos is None and (ASSETS / "photos/eval").is_dir():
        eval_photos = ASSETS / "photos/eval"
    train(
        recipe,
        TrainingOptions(
            photos=options.photos,
            loss_network=options.loss_network,
            style_picture=_style_picture(options, recipe.style.picture),
            out=options.out,
            init=options.init,
            zoo=options.zoo,
            device=options.device,
            precision=options.precision,
            resume=options.resume,
            eval_photos=eval_photos,
            sheet_every=options.sheet_every,
            checkpoint_every=options.checkpoint_every,
            workers=options.workers,
        ),
    )
    print(f"trained: export it with `python -m trainer export {options.out} --style-id ID`")


def _style_picture(options: argparse.Namespace, picture: str) -> Path:
    """The style picture: beside the recipe, or in the folder of paintings."""
    if options.style_picture is not None:
        return Path(options.style_picture)
    beside = Path(options.recipe).parent / picture
    # Unlike Path.exists, this takes a name that no file could have.
    return beside if os.path.exists(beside) else Path(options.paintings) / picture  # noqa: PTH110


def _export(options: argparse.Namespace) -> None:
    card = export(
        ExportOptions(
            run=options.run,
            style_id=options.style_id,
            zoo=options.zoo,
            preview_photo=options.preview_photo,
            title=options.title,
            artist=options.artist,
            year=options.year,
            description=options.description,
            picture_license=options.picture_license,
            weights_license=options.weights_license,
        )
    )
    print(f"{card.style_id}: {options.zoo / card.weights} and its entry in the manifest")


def _loss_network(options: argparse.Namespace) -> None:
    if options.download:
        download_loss_network(options.file)
    network = load_loss_network(options.file)
    print(f"{options.file}: {network.layer_names[0]} to {network.layer_names[-1]}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer",
        description="Train generators for the model zoo: a style picture becomes a served style.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_train(commands)
    _add_export(commands)
    _add_loss_network(commands)
    return parser


_Commands = argparse._SubParsersAction  # argparse names the type nowhere else


def _add_train(commands: _Commands[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "train",
        help="train a generator from a recipe",
        description="Train a generator; Ctrl-C saves, --resume goes on.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    command.set_defaults(command=_train)
    add = command.add_argument
    add("recipe", type=Path, metavar="RECIPE.toml", help="what to train, see trainer/recipes/")
    add("--photos", type=Path, required=True, metavar="DIR", help="content photographs")
    add("--loss-network", type=Path, required=True, metavar="FILE", help="VGG weights")
    add("--out", type=Path, required=True, metavar="RUN", help="folder of this run")
    add("--init", metavar="STYLE_ID", help="start from this style's weights, not from nothing")
    add("--zoo", type=Path, default=SHIPPED_ZOO, metavar="DIR", help="where --init looks")
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
    add("--sheet-every", type=_positive, default=500, metavar="STEPS", help="contact sheets")
    add("--checkpoint-every", type=_positive, default=250, metavar="STEPS", help="checkpoints")
    cores = os.cpu_count() or 1
    add(
        "--workers",
        type=_not_negative,
        default=0 if cores <= 4 else min(8, cores // 2),
        metavar="N",
        help="processes that decode photographs; 0 decodes between steps",
    )
    add(
        "--threads",
        type=_not_negative,
        default=0,
        metavar="N",
        help="CPU threads; 0 takes all cores",
    )


def _add_export(commands: _Commands[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "export",
        help="put a trained run into a zoo",
        description="Write weights, card, preview and manifest entry of a run, all or nothing.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    command.set_defaults(command=_export)
    add = command.add_argument
    add("run", type=Path, metavar="RUN", help="folder of a training run")
    add("--style-id", required=True, metavar="ID", help="lower-case words joined by hyphens")
    add("--zoo", type=Path, default=SHIPPED_ZOO, metavar="DIR", help="the zoo to write to")
    add("--preview-photo", type=Path, metavar="FILE", help="photograph that the preview paints")
    add(
        "--weights-license", type=_text, default="Apache-2.0", help="licence of the trained weights"
    )
    for name in ("title", "artist", "year", "description", "picture-license"):
        add(f"--{name}", type=_text, metavar="TEXT", help="instead of the recipe's", default=None)


def _add_loss_network(commands: _Commands[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "loss-network",
        help="fetch or check the loss network",
        description="Check a file of VGG weights, or fetch torchvision's VGG-19 first.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    command.set_defaults(command=_loss_network)
    add = command.add_argument
    add(
        "file",
        type=Path,
        nargs="?",
        default=Path("runs/loss_network/vgg19.safetensors"),
        metavar="FILE",
        help="where the weights are, or shall be",
    )
    add("--download", action="store_true", help="fetch 548 MB, keep the 80 MB of convolutions")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} must be at least 1")
    return value


def _not_negative(text: str) -> int:
    value = int(text)
    if not 0 <= value <= MOST_PROCESSES:
        raise argparse.ArgumentTypeError(f"{value} must be between 0 and {MOST_PROCESSES}")
    return value


def _text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:  # bytes of a terminal that is not set to UTF-8
        raise argparse.ArgumentTypeError(f"{text!r} is not UTF-8") from error
    return text


if __name__ == "__main__":
    sys.exit(main())
