"""Photographs that may be shown to everyone: what scikit-image ships, and drawn trials."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

if TYPE_CHECKING:
    from collections.abc import Callable

FACE_BOX = (130, 10, 320, 200)
"""Of the astronaut, (left, top, right, bottom) in px."""

SHIPPED = {
    "cat": "chelsea",
    "coffee": "coffee",
    "rocket": "rocket",
    "deep field": "hubble_deep_field",
    "camera": "camera",
    "grass": "grass",
}
"""Functions of skimage.data whose files come with the wheel; CC0 or in the public domain."""


def astronaut() -> Image.Image:
    """Eileen Collins, by NASA, in the public domain: 512x512 px.

    Raises:
        ModuleNotFoundError: scikit-image is not installed; the extra ``sheets`` brings it.
    """
    return _shipped("astronaut")


def sample_photos(side_px: int) -> list[tuple[str, Image.Image]]:
    """Twelve named squares of ``side_px``, unlike each other: eight photographs, four drawn trials.

    Raises:
        ModuleNotFoundError: scikit-image is not installed; the extra ``sheets`` brings it.
    """
    photos = {"astronaut": astronaut(), "face": astronaut().crop(FACE_BOX)}
    photos |= {name: _shipped(function) for name, function in SHIPPED.items()}
    squares = [(name, _square(photo, side_px)) for name, photo in photos.items()]
    return [*squares, *((name, draw(side_px)) for name, draw in _TRIALS.items())]


def _shipped(function: str) -> Image.Image:
    from skimage import data  # only sheets need it

    return Image.fromarray(getattr(data, function)()).convert("RGB")


def _square(photo: Image.Image, side_px: int) -> Image.Image:
    return ImageOps.fit(photo, (side_px, side_px), Image.Resampling.LANCZOS)


def _ball(side_px: int, paper: float, colour: tuple[float, float, float]) -> Image.Image:
    """A shaded ball on pure black or white, where strokes and spots have nothing to hide behind."""
    y, x = np.mgrid[0:side_px, 0:side_px] / side_px - 0.5
    inside = np.clip((0.28 - np.hypot(x, y)) * side_px, 0, 1)[..., None]
    light = np.exp(-8 * ((x + 0.1) ** 2 + (y + 0.12) ** 2))[..., None]
    ball = np.array(colour) * (0.25 + 0.75 * light) + 0.25 * light**6
    return _image(paper * (1 - inside) + ball * inside)


def _on_white(side_px: int) -> Image.Image:
    return _ball(side_px, 1.0, (0.85, 0.2, 0.15))


def _on_black(side_px: int) -> Image.Image:
    return _ball(side_px, 0.0, (0.25, 0.6, 0.9))


def _logo(side_px: int) -> Image.Image:
    """Sharp letters and a mark on even colours."""
    large = Image.new("RGB", (4 * side_px, 4 * side_px), "#f4ecd8")
    draw = ImageDraw.Draw(large)
    unit = 4 * side_px / 16
    draw.ellipse((5 * unit, 1.5 * unit, 11 * unit, 7.5 * unit), fill="#c8102e")
    draw.polygon((8 * unit, 2.2 * unit, 10.4 * unit, 6.4 * unit, 5.6 * unit, 6.4 * unit), "#f4ecd8")
    for text, top, size in (("ATELIER", 8.4, 3.2), ("every photograph, painted", 12.4, 1.2)):
        font = ImageFont.load_default(size * unit)
        draw.text((8 * unit, top * unit), text, fill="#14213d", font=font, anchor="ma")
    return large.resize((side_px, side_px), Image.Resampling.BOX)


def _sky(side_px: int) -> Image.Image:
    """Nothing but a gradient, from blue to the orange of an evening."""
    down = np.linspace(0, 1, side_px)[:, None, None]
    sky = np.array([0.16, 0.32, 0.62]) * (1 - down) + np.array([0.98, 0.66, 0.36]) * down
    return _image(np.broadcast_to(sky, (side_px, side_px, 3)))


def _image(picture: np.ndarray) -> Image.Image:
    return Image.fromarray((np.clip(picture, 0, 1) * 255).round().astype(np.uint8))


_TRIALS: dict[str, Callable[[int], Image.Image]] = {
    "white background": _on_white,
    "black background": _on_black,
    "logo": _logo,
    "gradient sky": _sky,
}
