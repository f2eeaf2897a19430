"""Pictures of a zoo for its pages: a sheet of each style, all beside each other, and a few."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from trainer.pictures import jpeg_of_at_most
from trainer.sample_photos import astronaut, sample_photos
from trainer.sheets import stylize_photo

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from model_zoo.cards import Manifest, StyleCard
    from model_zoo.layers import Generator

    Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

CELL_PX = 256
SHEET_COLUMNS = 4
SHEET_MAX_BYTES = 200 * 1024

GALLERY_WIDTH_PX = 1536
GALLERY_PANEL_MAX_PX = 512
GALLERY_MAX_BYTES = 400 * 1024

OPENING_STYLES = 4
OPENING_MAX_BYTES = 160 * 1024

GAP_PX = 8
CAPTION_PX = 16
CAPTION_COLOUR = "#404040"

Cell = tuple[str, Image.Image]
"""A picture and the words below it."""


def sample_sheet() -> bytes:
    """The sample photographs as they are: a JPEG in the layout of the styles' sheets."""
    return jpeg_of_at_most(_grid(sample_photos(CELL_PX), SHEET_COLUMNS), SHEET_MAX_BYTES)


def style_sheet(card: StyleCard, generator: Generator) -> bytes:
    """What a style makes of the sample photographs: a JPEG whose comment names the weights."""
    cells = [(name, stylize_photo(generator, photo)) for name, photo in sample_photos(CELL_PX)]
    return jpeg_of_at_most(_grid(cells, SHEET_COLUMNS), SHEET_MAX_BYTES, weights_comment([card]))


def gallery(manifest: Manifest, generators: Sequence[Generator]) -> bytes:
    """One photograph, and what each style of ``manifest`` makes of it: a JPEG."""
    return _panels(
        manifest.cards, generators, gallery_columns(1 + len(generators)), GALLERY_MAX_BYTES
    )


def opening(manifest: Manifest, generators: Sequence[Generator]) -> bytes:
    """The photograph and the first few styles of ``manifest``, in one row: a JPEG."""
    cards = manifest.cards[:OPENING_STYLES]
    return _panels(cards, generators[:OPENING_STYLES], 1 + len(cards), OPENING_MAX_BYTES)


def _panels(
    cards: Sequence[StyleCard], generators: Sequence[Generator], columns: int, max_bytes: int
) -> bytes:
    """The photograph, and what each generator makes of it: a JPEG."""
    photo = astronaut()
    panel_px = min(GALLERY_PANEL_MAX_PX, (GALLERY_WIDTH_PX - GAP_PX) // columns - GAP_PX)
    cells = [("the photograph", photo)]
    cells += [
        (card.title, stylize_photo(generator, photo))
        for card, generator in zip(cards, generators, strict=True)
    ]
    small = [(title, image.resize((panel_px, panel_px), _LANCZOS)) for title, image in cells]
    return jpeg_of_at_most(_grid(small, columns), max_bytes, weights_comment(cards))


def gallery_columns(panels: int) -> int:
    """Of 4, 5, 6 columns the one that leaves the fewest places empty, the most of those."""
    return min(panels, min((6, 5, 4), key=lambda columns: -panels % columns))


def weights_comment(cards: Sequence[StyleCard]) -> str:
    """What the comment of a picture says: whose weights painted it, by id, checksum and row."""
    return " ".join(f"{card.style_id}:{card.sha256[:16]}:{card.style_row}" for card in cards)


def comment_of(path: Path) -> str:
    """The comment of a JPEG, empty where there is none."""
    with Image.open(path) as image:
        comment = image.info.get("comment", b"")
    return comment.decode() if isinstance(comment, bytes) else str(comment)


def _grid(cells: Sequence[Cell], columns: int) -> Image.Image:
    """Cells of one size in rows, on white, each with its words below."""
    width, height = cells[0][1].size
    across, down = width + GAP_PX, height + GAP_PX + CAPTION_PX
    rows = -(-len(cells) // columns)
    sheet = Image.new("RGB", (columns * across + GAP_PX, rows * down + GAP_PX), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(CAPTION_PX - 3)
    for number, (words, image) in enumerate(cells):
        row, column = divmod(number, columns)
        left, top = GAP_PX + column * across, GAP_PX + row * down
        sheet.paste(image, (left, top))
        caption = shortened(words, font, width)
        draw.text((left, top + height + 1), caption, fill=CAPTION_COLOUR, font=font)
    return sheet


def shortened(words: str, font: Font, width_px: int) -> str:
    """``words``, or as many letters of their beginning as fit, and an ellipsis."""
    if font.getlength(words) <= width_px:
        return words
    while words and font.getlength(words + "…") > width_px:
        words = words[:-1]
    return words.rstrip(" ,(") + "…"


_LANCZOS = Image.Resampling.LANCZOS
