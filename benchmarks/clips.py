"""Clips whose motion is known, made of photographs; no benchmark itself.

A camera rests on a photograph or pans and zooms over it, something else moves before it, the light
drifts and the sensor is noisy. Since the motion is known, so is where each point was in the frame
before: no optical flow has to be estimated to say how much a painting flickers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from PIL import Image
from skimage import data as skimage_data

if TYPE_CHECKING:
    from numpy.typing import NDArray

WIDTH, HEIGHT = 320, 240
FRAMES_PER_S = 15
_NOISE = 2.0  # standard deviation, of 255; a webcam indoors
_DRIFT = 0.12
_DRIFT_S = 3.0
_VISITOR_PX = 120
_SENSOR = np.random.default_rng(0)

View: TypeAlias = tuple[float, float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One frame: ``pixels`` uint8 (H, W, 3), ``view`` (scale, left, top) of the photograph.

    ``foreign`` is where what is seen is not the photograph, bool (H, W).
    """

    pixels: NDArray[np.uint8]
    view: View
    foreign: NDArray[np.bool_]


def pan(scene: str, passer_by: str, seconds: float) -> list[Frame]:
    """Pan and zoom over ``scene`` while something passes by and the light drifts."""
    photo = _load(scene)
    frames = []
    for at_s, part in _times(seconds):
        scale = 1.15 - 0.3 * part
        left = (photo.width - WIDTH * scale) * (0.1 + 0.8 * part)
        top = (photo.height - HEIGHT * scale) * (0.5 + 0.3 * math.sin(2 * math.pi * part))
        x = round(-_VISITOR_PX + (WIDTH + 2 * _VISITOR_PX) * part)
        light = 1 + _DRIFT * math.sin(2 * math.pi * at_s / _DRIFT_S)
        frames.append(_shoot(photo, (scale, left, top), passer_by, (x, HEIGHT // 3), light))
    return frames


def rest(scene: str, visitor: str, seconds: float) -> list[Frame]:
    """Rest on the middle of ``scene`` while something large moves about before it."""
    photo = _load(scene)
    frames = []
    for at_s, _ in _times(seconds):
        x = round(100 + 110 * math.sin(2 * math.pi * at_s / 1.3))
        y = round(60 + 50 * math.sin(2 * math.pi * at_s / 0.9))
        frames.append(_shoot(photo, _middle(photo), visitor, (x, y)))
    return frames


def still(scene: str, seconds: float, *, light: float = 1.0) -> list[Frame]:
    """Rest on the middle of ``scene``, in which nothing moves."""
    photo = _load(scene)
    return [_shoot(photo, _middle(photo), light=light) for _ in _times(seconds)]


def warped_difference(
    before: NDArray[np.uint8], after: NDArray[np.uint8], frames: tuple[Frame, Frame]
) -> NDArray[np.float32]:
    """What differs between ``after`` and ``before``, moved as the camera did; NaN elsewhere.

    Args:
        before: any picture of the first of ``frames``, uint8 (H, W, 3).
        after: the same of the second.
        frames: one and the next.

    Returns:
        float32 (H, W, 3), of 255; NaN at the edges that were not seen, and where something moves by
        itself in either frame.
    """
    (scale_0, left_0, top_0), (scale_1, left_1, top_1) = (frame.view for frame in frames)
    zoom = scale_1 / scale_0
    # A pixel's centre is half a pixel in; Pillow counts from the corner.
    motion = (zoom, 0, (left_1 - left_0) / scale_0, 0, zoom, (top_1 - top_0) / scale_0)
    moved = _transform(Image.fromarray(before), motion)
    inside = _transform(Image.fromarray(np.full(before.shape[:2], 255, np.uint8)), motion)
    foreign = _transform(Image.fromarray(frames[0].foreign.astype(np.uint8) * 255), motion)
    known = (np.asarray(inside) == 255) & (np.asarray(foreign) == 0) & ~frames[1].foreign
    difference = after.astype(np.float32) - np.asarray(moved)
    difference[~known] = np.nan
    return difference


def _times(seconds: float) -> list[tuple[float, float]]:
    """When each frame is taken, in seconds and as a part of the whole clip."""
    count = round(seconds * FRAMES_PER_S)
    return [(number / FRAMES_PER_S, number / max(count - 1, 1)) for number in range(count)]


def _middle(photo: Image.Image) -> View:
    return 1.0, (photo.width - WIDTH) / 2, (photo.height - HEIGHT) / 2


def _shoot(
    photo: Image.Image,
    view: View,
    visitor: str | None = None,
    at: tuple[int, int] = (0, 0),
    light: float = 1.0,
) -> Frame:
    shown = _look(photo, view)
    foreign = Image.new("1", shown.size)
    if visitor is not None:
        shown.paste(_load(visitor).resize((_VISITOR_PX, _VISITOR_PX)), at)
        foreign.paste(1, (*at, at[0] + _VISITOR_PX, at[1] + _VISITOR_PX))
    grain = _SENSOR.normal(0, _NOISE, (HEIGHT, WIDTH, 3))
    pixels = np.clip(np.asarray(shown) * light + grain, 0, 255).astype(np.uint8)
    return Frame(pixels, view, np.asarray(foreign))


def _load(name: str) -> Image.Image:
    """A photograph at 640 px of width, so that the camera has somewhere to go."""
    photo = Image.fromarray(getattr(skimage_data, name)()).convert("RGB")
    return photo.resize((640, round(640 * photo.height / photo.width)), Image.Resampling.LANCZOS)


def _look(photo: Image.Image, view: View) -> Image.Image:
    scale, left, top = view
    return _transform(photo, (scale, 0, left, 0, scale, top))


def _transform(image: Image.Image, motion: tuple[float, ...]) -> Image.Image:
    return image.transform(
        (WIDTH, HEIGHT), Image.Transform.AFFINE, motion, resample=Image.Resampling.BICUBIC
    )
