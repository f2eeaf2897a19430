"""export: a run becomes a style of a zoo, and a style an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from model_zoo.cards import SHIPPED_ZOO, Manifest
from trainer.commands.arguments import PREVIEW_PHOTO_HELP, add_command, words
from trainer.errors import TrainerError
from trainer.export import ExportOptions, export

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from model_zoo.cards import StyleCard
    from trainer.commands.arguments import Commands


def add_to(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the command and its arguments."""
    command = add_command(
        commands,
        "export",
        "put a trained run into a zoo, write a style as ONNX",
        "Write weights, card, preview and manifest entry of a run, all or nothing. With --onnx, "
        "write the style as an ONNX file, too: input 'photos', RGB in [0, 1], float32 (N, 3, H, W) "
        "of any size; output 'stylized', the same, to be clamped to [0, 1]. The file is compared "
        "with the generator before it stands in its place.",
    )
    command.set_defaults(command=run)
    add = command.add_argument
    add("run", type=Path, nargs="?", metavar="RUN", help="folder of a training run")
    add(
        "--style-id",
        metavar="ID",
        help="of RUN in the zoo: lower-case words joined by hyphens; runs of several styles have "
        "theirs from the recipe",
    )
    add("--from-zoo", metavar="STYLE_ID", help="instead of RUN: a style of the zoo, for --onnx")
    add("--onnx", type=Path, metavar="FILE", help="ONNX file to write; needs the extra onnx")
    add("--zoo", type=Path, default=SHIPPED_ZOO, metavar="DIR", help="the zoo to write to or read")
    add("--preview-photo", type=Path, metavar="FILE", help=PREVIEW_PHOTO_HELP)
    add(
        "--weights-license", type=words, default="Apache-2.0", help="licence of the trained weights"
    )
    for name in ("title", "artist", "year", "description", "picture-license"):
        add(f"--{name}", type=words, metavar="TEXT", help="instead of the recipe's", default=None)


def run(options: argparse.Namespace) -> None:
    """Export, and say what was written."""
    _check(options)
    export_onnx = _onnx_export() if options.onnx is not None else None  # before a zoo is changed
    if options.from_zoo is None:
        cards = export(
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
        for card in cards:
            print(f"{card.style_id}: {options.zoo / card.weights} and its entry in the manifest")
    if export_onnx is not None:
        manifest = Manifest.read(options.zoo)
        card = manifest.card(options.from_zoo or options.style_id)
        export_onnx(manifest, card, options.onnx)
        print(f"{card.style_id}: {options.onnx}")


def _check(options: argparse.Namespace) -> None:
    """See that a run comes with the id it shall have, and a style of a zoo with neither."""
    if options.from_zoo is None:
        if options.run is None or (options.onnx is not None and options.style_id is None):
            raise TrainerError(
                "name a run and its style, `export RUN --style-id ID`, or a style that is in the "
                "zoo, `export --from-zoo STYLE_ID --onnx FILE`"
            )
    elif options.run is not None or options.style_id is not None:
        raise TrainerError("--from-zoo stands instead of RUN and --style-id; leave one out")
    elif options.onnx is None:
        raise TrainerError("--from-zoo needs --onnx FILE: the style is in the zoo already")


def _onnx_export() -> Callable[[Manifest, StyleCard, Path], None]:
    try:
        from trainer.onnx_export import export_onnx  # the only one here that needs the extra
    except ModuleNotFoundError as error:
        raise TrainerError(
            f"ONNX export needs {error.name}, which is not installed; pip install 'atelier[onnx]'"
        ) from error
    return export_onnx
