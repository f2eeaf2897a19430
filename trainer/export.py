"""The only door into a zoo: weights, preview, card and manifest entry, all or nothing."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from model_zoo.cards import STYLE_ID_PATTERN, Manifest, StyleCard, ZooError, file_sha256
from model_zoo.checkpoints import load_generator, save_generator
from trainer.errors import TrainerError
from trainer.manifest_writer import write_manifest
from trainer.pictures import DECODE_ERRORS, open_picture, resized_to
from trainer.runs import TrainingRun
from trainer.sheets import stylize_photo

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from model_zoo.layers import Generator
    from trainer.recipe import TrainingRecipe

PREVIEW_SIDE_PX = 512
PREVIEW_MAX_BYTES = 60 * 1024
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What to export, where to, and words for the card that win over the recipe's."""

    run: Path
    style_id: str
    zoo: Path
    preview_photo: Path | None = None
    weights_license: str = "Apache-2.0"
    title: str | None = None
    artist: str | None = None
    year: str | None = None
    description: str | None = None
    picture_license: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StyleDraft:
    """A style before its files are written: the fields of a StyleCard that do not name them."""

    style_id: str
    title: str
    artist: str
    year: str
    description: str
    generator: str
    arguments: Mapping[str, Any]
    picture_license: str
    weights_license: str
    recipe: str
    training: Mapping[str, Any]
    quality: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_style_id(self.style_id)
        for name in ("title", "artist", "year", "picture_license", "weights_license"):
            if not getattr(self, name):  # a manifest without it could not be read again
                raise TrainerError(f"the card needs text; give --{name.replace('_', '-')}")

    def card(self, weights_sha256: str, preview_sha256: str) -> StyleCard:
        """The card; files carry the start of their checksum in their names."""
        return StyleCard(
            weights=f"weights/{self.style_id}-{weights_sha256[:8]}.safetensors",
            sha256=weights_sha256,
            preview=f"previews/{self.style_id}-{preview_sha256[:8]}.jpg",
            **{f.name: getattr(self, f.name) for f in fields(self)},
        )


def check_style_id(style_id: str) -> None:
    """See that an id is one, before it becomes part of a path.

    Raises:
        ZooError: it is not.
    """
    if not STYLE_ID_PATTERN.fullmatch(style_id):
        raise ZooError(
            f"style id {style_id!r} must be lower-case letters, digits and single hyphens"
        )


def export(options: ExportOptions) -> StyleCard:
    """Write the generator of a run into a zoo, as :func:`write_style` does.

    Raises:
        TrainerError: the run or the preview photograph cannot be read.
        ZooError: the zoo cannot be written or its manifest is not valid.
    """
    check_style_id(options.style_id)
    run = TrainingRun(options.run)
    recipe = run.recipe()
    generator, step = run.trained_generator()
    draft = StyleDraft(
        style_id=options.style_id,
        title=options.title or recipe.style.title or options.style_id.replace("-", " ").title(),
        artist=options.artist or recipe.style.artist or UNKNOWN,
        year=options.year or recipe.style.year or UNKNOWN,
        description=options.description or recipe.style.description,
        generator=recipe.generator.name,
        arguments=recipe.generator.arguments,
        picture_license=options.picture_license or recipe.style.picture_license or UNKNOWN,
        weights_license=options.weights_license,
        recipe=f"{recipe.name}.toml",
        training=_training(run, step, recipe),
        quality=_quality(run, step),
    )
    return write_style(options.zoo, draft, generator, preview_photo=options.preview_photo)


def write_style(
    zoo: Path,
    draft: StyleDraft,
    generator: Generator,
    *,
    preview_photo: Path | None = None,
    dtype: torch.dtype = torch.float16,
) -> StyleCard:
    """Write a generator and its card into a zoo; a style of the same id is replaced in its place.

    New files carry the start of their checksum in their names, so that the manifest's replacement,
    the last step, switches from the old style to the new one in one moment.

    Args:
        zoo: its folder, made where there is none.
        draft: what the card says.
        generator: as ``draft`` names it.
        preview_photo: the photograph that the preview paints; a drawn one where none is given.
        dtype: of the weights on disk, float16 or float32.

    Raises:
        TrainerError: the preview photograph cannot be read.
        ZooError: the zoo cannot be written or its manifest is not valid.
    """
    photo = _preview_photo(preview_photo)
    with _locked(zoo):
        manifest = _manifest(zoo)
        new_files: list[Path] = []
        try:
            weights = zoo / "weights" / f".{draft.style_id}.{os.getpid()}.safetensors"
            new_files.append(weights)
            save_generator(generator, weights, dtype=dtype)
            # The preview shows what the service will serve: the weights on disk, read back.
            served = load_generator(weights, draft.generator, draft.arguments)
            preview = _jpeg_of_at_most(stylize_photo(served, photo), PREVIEW_MAX_BYTES)
            card = draft.card(file_sha256(weights), hashlib.sha256(preview).hexdigest())
            new_files += (manifest.preview_path(card), manifest.weights_path(card))
            _write(preview, manifest.preview_path(card))
            weights.replace(manifest.weights_path(card))
            write_manifest(_with_card(manifest, card))
        finally:
            # Asked anew: an interrupt may come just before or just after the replacement.
            _remove_unnamed(zoo, [*new_files, *_files_of(manifest, draft.style_id)])
    return card


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


def _manifest(zoo: Path) -> Manifest:
    try:
        for folder in ("weights", "previews"):
            (zoo / folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ZooError(f"zoo {zoo} cannot be written: {error.strerror or error}") from error
    if not (zoo / "manifest.toml").exists():
        return Manifest(zoo, ())
    return Manifest.read(zoo)


def _with_card(manifest: Manifest, card: StyleCard) -> Manifest:
    cards = list(manifest.cards)
    for position, old in enumerate(cards):
        if old.style_id == card.style_id:
            cards[position] = card
            break
    else:
        cards.append(card)
    return Manifest(manifest.zoo, tuple(cards))


def _files_of(manifest: Manifest, style_id: str) -> list[Path]:
    return [
        path
        for card in manifest
        if card.style_id == style_id
        for path in (manifest.weights_path(card), manifest.preview_path(card))
    ]


def _remove_unnamed(zoo: Path, paths: Sequence[Path]) -> None:
    """Remove those of ``paths`` that no card of the manifest, as it now is, needs."""
    try:
        manifest = _manifest(zoo)
    except ZooError:
        return  # without a manifest to ask, nothing is known to be superfluous
    named = {path for card in manifest for path in _files_of(manifest, card.style_id)}
    for path in paths:
        if path not in named:
            path.unlink(missing_ok=True)


def _preview_photo(path: Path | None) -> Image.Image:
    if path is None:
        return _drawn_photo()
    try:
        return resized_to(open_picture(path), PREVIEW_SIDE_PX)
    except DECODE_ERRORS as error:
        raise TrainerError(f"--preview-photo {path}: {error}") from error


def _drawn_photo() -> Image.Image:
    """Where no photograph is given: three soft hills under an evening sky, drawn."""
    height, width = 384, PREVIEW_SIDE_PX
    y, x = np.mgrid[0:height, 0:width]
    sky = np.linspace(0, 1, height)[:, None, None] * np.array([1.0, 0.5, 0.1]) * 0.7
    picture = np.array([0.25, 0.35, 0.65]) + np.broadcast_to(sky, (height, width, 3))
    sun = np.exp(-((x - 360) ** 2 + (y - 130) ** 2) / 900.0)[..., None]
    picture = picture + sun * np.array([0.6, 0.5, 0.2])
    hills = ((200, 40, 90, 0.0), (250, 30, 60, 1.5), (310, 25, 45, 4.0))
    for number, (top, swing, length, phase) in enumerate(hills):
        below = y > top + swing * np.sin(x / length + phase)
        ripple = 0.06 * np.sin(x / 7.0 + y / (5.0 + number))
        colour = np.array([0.12, 0.34, 0.2]) * (1.5 - 0.4 * number)
        picture = np.where(below[..., None], colour + ripple[..., None], picture)
    return Image.fromarray((np.clip(picture, 0, 1) * 255).astype(np.uint8))


def _write(data: bytes, path: Path) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        raise ZooError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


def _jpeg_of_at_most(image: Image.Image, max_bytes: int) -> bytes:
    for quality in range(92, 20, -4):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality, optimize=True, progressive=True)
        if buffer.tell() <= max_bytes:
            break
    return buffer.getvalue()


@contextmanager
def _locked(zoo: Path) -> Iterator[None]:
    """One process at a time writes to a zoo."""
    try:
        zoo.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(zoo, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise ZooError(f"zoo {zoo} cannot be opened: {error.strerror or error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
