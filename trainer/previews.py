"""Previews: one photograph for all styles, so that they compare at a glance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from trainer.errors import TrainerError
from trainer.pictures import DECODE_ERRORS, jpeg_of_at_most, open_picture, resized_to
from trainer.sample_photos import astronaut
from trainer.sheets import stylize_photo

if TYPE_CHECKING:
    from pathlib import Path

    from model_zoo.layers import Generator

PREVIEW_SIDE_PX = 512
PREVIEW_MAX_BYTES = 60 * 1024


def find_preview_photo(path: Path | None) -> Image.Image:
    """The photograph that previews paint, longer side PREVIEW_SIDE_PX.

    Where none is given, that is the common one of the shipped zoo, scikit-image's astronaut, and a
    drawn one where scikit-image is not installed.

    Raises:
        TrainerError: the file cannot be read as a picture.
    """
    if path is None:
        try:
            return resized_to(astronaut(), PREVIEW_SIDE_PX)
        except ModuleNotFoundError:
            return _drawn_photo()
    try:
        return resized_to(open_picture(path), PREVIEW_SIDE_PX)
    except DECODE_ERRORS as error:
        raise TrainerError(f"--preview-photo {path}: {error}") from error


def paint_preview(generator: Generator, photo: Image.Image) -> bytes:
    """``photo`` painted by ``generator``: a JPEG of at most PREVIEW_MAX_BYTES."""
    return jpeg_of_at_most(stylize_photo(generator, photo), PREVIEW_MAX_BYTES)


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
