"""Contact sheets: photographs and what a generator makes of them, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from PIL import Image

from trainer.errors import TrainerError
from trainer.pictures import (
    DECODE_ERRORS,
    find_pictures,
    open_picture,
    resized_to,
    to_image,
    to_tensor,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from model_zoo.layers import Generator

GAP_PX = 8
PAIRS_PER_ROW = 2


def sheet_photos(folder: Path, *, size_px: int, at_most: int = 12) -> list[Image.Image]:
    """Photographs of a contact sheet, longer side ``size_px``; unreadable files are left out.

    Raises:
        TrainerError: the folder is absent or holds no pictures.
    """
    photos: list[Image.Image] = []
    for path in find_pictures(folder):
        if len(photos) == at_most:
            break
        try:
            photos.append(resized_to(open_picture(path, at_least_px=size_px), size_px))
        except DECODE_ERRORS:
            continue
    if not photos:
        raise TrainerError(f"no picture in {folder} can be read; give other --eval-photos")
    return photos


def stylize_photo(generator: Generator, photo: Image.Image) -> Image.Image:
    """``photo`` painted by ``generator``, which is left in the mode it was in."""
    was_training = generator.training
    device = next(generator.parameters()).device
    generator.eval()
    try:
        with torch.inference_mode():
            return to_image(generator(to_tensor(photo).to(device)))
    finally:
        generator.train(was_training)


def contact_sheet(generator: Generator, photos: Sequence[Image.Image]) -> Image.Image:
    """Pairs of photograph and painting in rows, on white."""
    cell_width = max(photo.width for photo in photos)
    cell_height = max(photo.height for photo in photos)
    columns = 2 * min(PAIRS_PER_ROW, len(photos))
    rows = -(-len(photos) // PAIRS_PER_ROW)
    sheet = Image.new(
        "RGB",
        (columns * (cell_width + GAP_PX) + GAP_PX, rows * (cell_height + GAP_PX) + GAP_PX),
        "white",
    )
    for number, photo in enumerate(photos):
        row, pair = divmod(number, PAIRS_PER_ROW)
        for side, image in enumerate((photo, stylize_photo(generator, photo))):
            left = GAP_PX + (2 * pair + side) * (cell_width + GAP_PX)
            sheet.paste(image, (left, GAP_PX + row * (cell_height + GAP_PX)))
    return sheet
