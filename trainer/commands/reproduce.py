"""reproduce: the paper's comparison as one command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from trainer.commands.arguments import ASSETS, add_command, positive, processes
from trainer.devices import choose_device, choose_dtype, keep_freed_memory
from trainer.errors import TrainerError
from trainer.losses import load_perceptual_loss
from trainer.pictures import find_pictures

if TYPE_CHECKING:
    import argparse

    from trainer.commands.arguments import Commands


def add_to(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the command and its arguments."""
    command = add_command(
        commands,
        "reproduce",
        "repeat the paper's experiment",
        "Train {texture_net, johnson} x {batch, instance} x {16 photographs, all} with one recipe, "
        "follow the validation objective of each, and write a report with figures. What is "
        "finished is not done again. `small` takes under 2 hours on 2 cores, `paper` wants a GPU.",
    )
    command.set_defaults(command=run)
    add = command.add_argument
    add("--scale", choices=("small", "paper"), default="small", help="how large")
    add("--photos", type=Path, required=True, metavar="DIR", help="photographs to train with")
    add("--loss-network", type=Path, required=True, metavar="FILE", help="VGG weights")
    add(
        "--eval-photos",
        type=Path,
        default=ASSETS / "photos/eval",
        metavar="DIR",
        help="photographs that nobody is trained with",
    )
    add(
        "--figure-photos",
        type=Path,
        metavar="DIR",
        help="photographs of the figures; --eval-photos where none are given",
    )
    add(
        "--style-picture",
        type=Path,
        default=ASSETS / "paintings/starry_night.jpg",
        metavar="FILE",
        help="the painting",
    )
    add("--out", type=Path, default=Path("runs/reproduction"), metavar="DIR", help="of the runs")
    add("--report", type=Path, default=Path("docs"), metavar="DIR", help="of reproduction.md")
    add(
        "--evaluations",
        type=positive,
        default=300,
        metavar="N",
        help="of L-BFGS for each photograph",
    )
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute")
    add("--workers", type=processes, default=0, metavar="N", help="processes that decode")
    add("--threads", type=processes, default=0, metavar="N", help="CPU threads; 0: all cores")


def run(options: argparse.Namespace) -> None:
    """Run what is missing, then write the report."""
    # Here, not above: these need the extras, which the other commands do without.
    from trainer import reproduce
    from trainer.references import ReferenceCache
    from trainer.reproduction_report import write_report

    keep_freed_memory()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    dtype = choose_dtype("auto", device)
    scale = reproduce.SCALES[options.scale]
    files = (options.loss_network, options.style_picture, scale.style_px)
    exact = load_perceptual_loss(reproduce.LOSS, *files, device=device)
    loss = load_perceptual_loss(reproduce.LOSS, *files, device=device, dtype=dtype)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainerError(f"--out {options.out} cannot be written: {error.strerror}") from error
    validation = reproduce.Validation(
        reproduce.validation_crops(find_pictures(options.eval_photos), scale.crop_px).to(device),
        exact,
        scale.batch_size,
        ReferenceCache(options.out / "references", options.evaluations),
    )
    results = [
        result
        for experiment in reproduce.EXPERIMENTS
        for result in reproduce.run_experiment(
            experiment,
            scale,
            loss,
            validation,
            photos=options.photos,
            out=options.out,
            dtype=dtype,
            workers=options.workers,
        )
    ]
    write_report(
        results,
        scale_name=options.scale,
        runs=options.out,
        folder=options.report,
        photos=find_pictures(options.figure_photos or options.eval_photos),
        validation_loss=validation.loss,
        style_picture_name=options.style_picture.stem,
        command=_command(options),
    )
    print(f"{options.report / 'reproduction.md'}")


def _command(options: argparse.Namespace) -> str:
    """What was typed, with the names of files but not their folders."""
    return (
        f"python -m trainer reproduce --scale {options.scale} --photos {options.photos.name} "
        f"--eval-photos {options.eval_photos.name} --loss-network {options.loss_network.name} "
        f"--style-picture {options.style_picture.name}"
    )
