"""zoo-check: holds every style of a zoo to its gates, and its card to what is measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from model_zoo.cards import SHIPPED_ZOO, Manifest
from model_zoo.checkpoints import load_style
from trainer.card_updates import write_quality
from trainer.commands.arguments import (
    add_command,
    add_measuring,
    find_style_picture,
    recipe_of,
)
from trainer.devices import keep_freed_memory
from trainer.errors import TrainerError, TrainingFailedError
from trainer.loss_network import load_loss_network
from trainer.losses import PerceptualLoss
from trainer.pictures import find_pictures, load_picture, to_tensor
from trainer.sheets import named_photos
from trainer.zoo_files import locked_zoo

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Mapping

    from trainer.commands.arguments import Commands
    from trainer.references import ReferenceCache
    from trainer.zoo_check import CheckedStyle


def add_to(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the command and its arguments."""
    command = add_command(
        commands,
        "zoo-check",
        "hold the styles of a zoo to their gates",
        "Measure styles of a zoo on photographs that they were not trained with, and hold them to "
        "the gates of docs/decisions/0010 and their cards to the figures. Exit code 1 where a gate "
        "does not hold or a card says something else. What L-BFGS reaches is looked up where it is "
        "known, else measured, for minutes a photograph.",
    )
    command.set_defaults(command=run)
    add = command.add_argument
    add("styles", nargs="*", metavar="STYLE_ID", help="styles to check; none means all")
    add("--zoo", type=Path, default=SHIPPED_ZOO, metavar="DIR", help="whose styles")
    add_measuring(command)
    add(
        "--known-references",
        type=Path,
        metavar="FILE",
        help="looked up first; default: those that ship with the recipes",
    )
    add("--measure-anew", action="store_true", help="believe no reference, measure all again")
    add("--write", action="store_true", help="put the figures into the cards, and references by")


def run(options: argparse.Namespace) -> None:
    """Check, print a table and one JSON line, write what was asked for."""
    # Here, not above: these need the extra, which the other commands do without.
    from tqdm import tqdm

    from trainer.references import SHIPPED_REFERENCES, ReferenceCache, read_references
    from trainer.zoo_check import as_table, check_style

    keep_freed_memory()
    if options.threads:
        torch.set_num_threads(options.threads)
    manifest = Manifest.read(options.zoo)
    manifest.verify()
    cards = [manifest.card(style_id) for style_id in options.styles] or list(manifest)
    if not cards:
        raise TrainerError(f"{options.zoo} holds no style; export one first")
    losses = _losses(manifest, options)
    photos = named_photos(find_pictures(options.photos), size_px=options.size_px)
    known_file = options.known_references or SHIPPED_REFERENCES
    references = ReferenceCache(
        options.references, options.evaluations, read_references(known_file), options.measure_anew
    )
    checked = []
    with tqdm(total=len(cards) * len(photos), unit="photo", desc="zoo-check") as progress:

        def on_photo(name: str) -> None:
            progress.set_postfix(photo=name, refresh=False)
            progress.update()

        for card in cards:
            painting, loss = losses[card.style_id]
            # Styles of one painting count once; each is measured by its own losses.
            paintings = dict(losses.values()) | {painting: loss}
            generator = load_style(manifest, card)
            checked.append(
                check_style(card, generator, painting, paintings, photos, references, on_photo)
            )
    print(as_table(checked))
    if options.write:
        write_quality(options.zoo, {style.card.style_id: style.quality for style in checked})
        # Beside a zoo of one's own, only a file that was named is written.
        if options.known_references or options.zoo.resolve() == SHIPPED_ZOO.resolve():
            contents = [to_tensor(image) for _, image in photos]
            needed = {references.key(p, loss) for _, loss in losses.values() for p in contents}
            _write_references(options.zoo, known_file, references, needed)
    _conclude(checked, with_card=not options.write)


def _losses(
    manifest: Manifest, options: argparse.Namespace
) -> dict[str, tuple[str, PerceptualLoss]]:
    """By style id: the file name of its painting, and the objective of its recipe."""
    network = load_loss_network(options.loss_network)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    losses = {}
    for card in manifest:
        recipe, recipe_file = recipe_of(card)
        file = find_style_picture(None, recipe_file, recipe.style.picture, options.paintings)
        picture = load_picture(file, recipe.style.size_px)
        losses[card.style_id] = (file.name, PerceptualLoss(network, picture, recipe.loss))
    return losses


def _write_references(
    zoo: Path, file: Path, references: ReferenceCache, needed: Iterable[str]
) -> None:
    """Keep in ``file`` what is ``needed`` and known: what was used now, what stood there before."""
    from trainer.references import read_references, write_references

    with locked_zoo(zoo):  # another check may write at the same time
        known = read_references(file) | references.used
        write_references(file, {key: known[key] for key in needed if key in known})


def _conclude(checked: list[CheckedStyle], *, with_card: bool) -> None:
    """Say what does not hold, then all of it as one JSON line.

    Raises:
        TrainingFailedError: something does not hold.
    """
    lines: list[str] = []
    for style in checked:
        lines += [f"{style.card.style_id}: {fault}" for fault in style.faults()]
        if with_card:
            lines += [f"{style.card.style_id}: card says {d}" for d in style.differences()]
    for line in lines:
        print(line)
    print(json.dumps(_document(checked, with_card=with_card)))
    if lines:
        raise TrainingFailedError(f"zoo-check: {len(lines)} of its demands are not met")


def _document(checked: list[CheckedStyle], *, with_card: bool) -> Mapping[str, object]:
    return {
        "benchmark": "zoo-check",
        "machine": {"torch": torch.__version__, "threads": torch.get_num_threads()},
        "results": [
            {
                "style_id": style.card.style_id,
                **style.quality,
                "nearest_other": style.nearest_other,
                "reference": style.reference,
            }
            for style in checked
        ],
        "checks": [check for style in checked for check in style.checks(with_card=with_card)],
    }
