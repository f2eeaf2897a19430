"""The only door into a zoo: weights, preview, card and manifest entry, all or nothing."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from model_zoo.cards import Manifest, StyleCard, file_sha256
from model_zoo.checkpoints import load_generator, save_generator, write_file
from model_zoo.generators.conditional import mixed, row_count, row_mix
from trainer.drafts import StyleDraft
from trainer.errors import TrainerError
from trainer.manifest_writer import write_manifest
from trainer.previews import find_preview_photo, paint_preview
from trainer.runs import TrainingRun
from trainer.zoo_files import (
    files_of,
    locked_zoo,
    open_zoo,
    remove_unnamed,
    with_card,
    with_mixes,
    with_network,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from model_zoo.layers import Generator
    from trainer.recipe import StylePicture, TrainingRecipe

UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What to export, where to, and words for the card that win over the recipe's."""

    run: Path
    style_id: str | None
    zoo: Path
    preview_photo: Path | None = None
    weights_license: str = "Apache-2.0"
    title: str | None = None
    artist: str | None = None
    year: str | None = None
    description: str | None = None
    picture_license: str | None = None


def export(options: ExportOptions) -> tuple[StyleCard, ...]:
    """Write the generator of a run into a zoo, as :func:`write_styles` does.

    A run with several styles gives each the id that its recipe says; one that added a row to a
    network of the zoo gives the network's other styles the new file, too.

    Raises:
        TrainerError: the run or the preview photograph cannot be read, the id is missing or one too
            many, or the network has changed since the row was trained.
        ZooError: the zoo cannot be written or its manifest is not valid.
    """
    run = TrainingRun(options.run)
    recipe = run.recipe()
    generator, step = run.trained_generator()
    training = _training(run, step, recipe)
    network = options.style_id or recipe.name
    grown_from = ""
    if len(recipe.styles) > 1:
        if options.style_id is not None:
            raise TrainerError(
                f"{options.run} has {len(recipe.styles)} styles with ids of their own; "
                "leave --style-id out"
            )
        drafts = [
            replace(_draft(options, recipe, style, training), style_row=row)
            for row, style in enumerate(recipe.styles, 1)
        ]
    else:
        draft = replace(
            _draft(options, recipe, recipe.style, training), quality=_quality(run, step)
        )
        if (row := run.facts().get("new_row")) is not None:
            grown_from = row["network_sha256"]
            network = _network_of(options.zoo, grown_from)
            draft = replace(draft, style_row=row_count(generator) - 1)
        drafts = [draft]
    return write_styles(
        options.zoo,
        drafts,
        generator,
        network=network,
        grown_from=grown_from,
        stands_for={s.style_id: s.stands_for for s in recipe.styles if s.stands_for},
        preview_photo=options.preview_photo,
    )


def write_style(
    zoo: Path,
    draft: StyleDraft,
    generator: Generator,
    *,
    preview_photo: Path | None = None,
    dtype: torch.dtype = torch.float16,
) -> StyleCard:
    """Write one style with a generator of its own, as :func:`write_styles` does."""
    (card,) = write_styles(
        zoo, [draft], generator, network=draft.style_id, preview_photo=preview_photo, dtype=dtype
    )
    return card


def write_styles(
    zoo: Path,
    drafts: Sequence[StyleDraft],
    generator: Generator,
    *,
    network: str,
    grown_from: str = "",
    stands_for: Mapping[str, str] = MappingProxyType({}),
    preview_photo: Path | None = None,
    dtype: torch.dtype = torch.float16,
) -> tuple[StyleCard, ...]:
    """Write a generator and the cards of its styles; those of the same ids are replaced in place.

    New files carry the start of their checksum in their names, so that the manifest's replacement,
    the last step, switches from the old styles to the new ones in one moment.

    Args:
        zoo: its folder, made where there is none.
        drafts: what the cards say.
        generator: as ``drafts`` name it.
        network: first part of the name of its file.
        grown_from: checksum of weights that these replace in all other cards that name them.
        stands_for: id of a style here -> id of another of the zoo that it is mixed for.
        preview_photo: the photograph that previews paint; the common one where none is given.
        dtype: of the weights on disk, float16 or float32.

    Raises:
        TrainerError: the preview photograph cannot be read.
        ZooError: the zoo cannot be written or its manifest is not valid.
    """
    photo = find_preview_photo(preview_photo)
    arguments = drafts[0].arguments
    with locked_zoo(zoo):
        manifest = open_zoo(zoo)
        new_files: list[Path] = []
        try:
            partial = zoo / "weights" / f".{network}.{os.getpid()}.safetensors"
            new_files.append(partial)
            save_generator(generator, partial, dtype=dtype)
            sha256 = file_sha256(partial)
            weights = f"weights/{network}-{sha256[:8]}.safetensors"
            new_files.append(zoo / weights)
            changed = with_network(manifest, grown_from, weights, sha256, arguments)
            # Previews show what the service will serve: the weights on disk, read back.
            served = load_generator(partial, drafts[0].generator, arguments)
            cards = []
            for draft in drafts:
                with mixed(served, row_mix(served, draft.style_row)):
                    preview = paint_preview(served, photo)
                card = draft.card(weights, sha256, hashlib.sha256(preview).hexdigest())
                new_files.append(manifest.preview_path(card))
                write_file(preview, manifest.preview_path(card))
                changed = with_card(changed, card)
                cards.append(card)
            partial.replace(zoo / weights)
            write_manifest(with_mixes(changed, stands_for))
        finally:
            # Asked anew: an interrupt may come just before or just after the replacement.
            old = [path for card in manifest for path in files_of(manifest, card.style_id)]
            remove_unnamed(zoo, [*new_files, *old])
    return tuple(cards)


def _draft(
    options: ExportOptions, recipe: TrainingRecipe, style: StylePicture, training: Mapping[str, Any]
) -> StyleDraft:
    style_id = options.style_id or style.style_id
    if not style_id:
        raise TrainerError(f"name the style that {options.run} shall be: --style-id ID")
    return StyleDraft(
        style_id=style_id,
        title=options.title or style.title or style_id.replace("-", " ").title(),
        artist=options.artist or style.artist or UNKNOWN,
        year=options.year or style.year or UNKNOWN,
        description=options.description or style.description,
        generator=recipe.generator.name,
        arguments=recipe.generator.arguments,
        picture_license=options.picture_license or style.picture_license or UNKNOWN,
        weights_license=options.weights_license,
        recipe=f"{recipe.name}.toml",
        training=training,
    )


def _network_of(zoo: Path, sha256: str) -> str:
    """First part of the name of the weights of that checksum."""
    for card in Manifest.read(zoo):
        if card.sha256 == sha256:
            return Path(card.weights).stem.rpartition("-")[0]
    raise TrainerError(
        "the network that this row was trained for is no longer in the zoo; train the row again"
    )


def _quality(run: TrainingRun, step: int) -> dict[str, Any]:
    """The summary that ``evaluate`` left, where it is of these weights."""
    try:
        evaluation = json.loads(run.evaluation_path.read_text(encoding="utf-8"))
        if evaluation["step"] != step:
            return {}
        return dict(evaluation["summary"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # not evaluated


def _training(run: TrainingRun, steps: int, recipe: TrainingRecipe) -> dict[str, Any]:
    facts = run.facts()
    return {
        "steps": steps,
        **({"init": facts["init"]} if facts.get("init") else {}),
        "pictures": steps * recipe.data.batch_size,
        "crop_px": recipe.data.crop_px,
        "photos": facts["photos"],
        "loss_network": facts["loss_network"],
        "minutes": round(facts["seconds"] / 60),
        "machine": f"{facts['device']}, {facts['threads']} threads, {facts['precision']}",
        "torch": facts["torch"],
        "date": facts["started"][:10],
    }
