"""Contact sheets: photographs and what a generator makes of them, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image

from trainer.errors import TrainerError
from trainer.pictures import (
    DECODE_ERRORS,
    find_pictures,
    open_picture,
    resized_to,
    stylized_by,
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
    named = named_photos(find_pictures(folder), size_px=size_px, at_most=at_most)
    return [image for _, image in named]


def named_photos(
    paths: Sequence[Path], *, size_px: int, at_most: int = 1000
) -> list[tuple[str, Image.Image]]:
    """Names and photographs, longer side ``size_px``; unreadable files are left out.

    Raises:
        TrainerError: none of them can be read.
    """
    photos: list[tuple[str, Image.Image]] = []
    for path in paths:
        if len(photos) == at_most:
            break
        try:
            image = resized_to(open_picture(path, at_least_px=size_px), size_px)
        except DECODE_ERRORS:
            continue
        photos.append((path.stem, image))
    if not photos:
        raise TrainerError(f"no picture in {paths[0].parent} can be read; give other photographs")
    return photos


def stylize_photo(generator: Generator, photo: Image.Image) -> Image.Image:
    """``photo`` painted by ``generator``, which is left in the mode it was in."""
    device = next(generator.parameters()).device
    return to_image(stylized_by(generator, to_tensor(photo).to(device)))


def stacked(sheets: Sequence[Image.Image]) -> Image.Image:
    """Sheets of one width, one below the other."""
    whole = Image.new("RGB", (sheets[0].width, sum(sheet.height for sheet in sheets)), "white")
    top = 0
    for sheet in sheets:
        whole.paste(sheet, (0, top))
        top += sheet.height
    return whole


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
