"""Colours of video: frames of any kind to uint8 sRGB pixels, upright, and back to BT.709.

Half of what is here is for HDR. Its picture is made for a screen of 1000 cd/m2 or more, of which
white paper takes 203 (ITU-R BT.2408); the networks have seen photographs whose paper is white.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import (
    ColorPrimaries,
    ColorRange,
    Colorspace,
    ColorTrc,
    Interpolation,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

_UNSPECIFIED = 2
# Without the second, every picture comes out darker by two levels of 255.
_EXACT = Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
# Nobody says which matrix SD and HD have; players go by the height.
_HD_FROM_PX = 720
_HDR = (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67)
_WHITE_NITS = 203.0
# ITU-R BT.2087, from linear BT.2020 to BT.709.
_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]],
    np.float32,
)
_KNEE = 0.6
_STEPS = 4096


def fitting_size(width: int, height: int, max_side_px: int | None) -> tuple[int, int]:
    """Width and height at which a frame is painted: never larger than it is.

    Both are even where it is made smaller; else :func:`to_frame` adds the row that is missing.
    """
    longest = max(width, height)
    if max_side_px is None or longest <= max_side_px:
        return width, height
    return tuple(max(2 * round(side * max_side_px / longest / 2), 2) for side in (width, height))  # type: ignore[return-value]


def to_pixels(frame: VideoFrame, width: int, height: int) -> NDArray[np.uint8]:
    """Pixels of ``frame`` at ``width`` and ``height``, uint8 (H, W, 3) sRGB, turned upright."""
    hdr = frame.color_trc in _HDR
    scaling = Interpolation.AREA if width < frame.width else Interpolation.BICUBIC
    rgb = frame.reformat(
        width=width,
        height=height,
        format="rgb48le" if hdr else "rgb24",
        src_colorspace=_matrix(frame),
        src_color_range=frame.color_range or None,
        interpolation=scaling | _EXACT,
    ).to_ndarray()
    pixels = _tone_map(rgb, frame) if rgb.dtype == np.uint16 else rgb
    upright: NDArray[np.uint8] = np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))
    return upright


def to_frame(pixels: NDArray[np.uint8]) -> VideoFrame:
    """A frame of BT.709, 4:2:0: an odd side repeats its last row or column."""
    height, width, _ = pixels.shape
    if height % 2 or width % 2:
        pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    frame = VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
    return frame.reformat(
        format="yuv420p",
        dst_colorspace=Colorspace.ITU709,
        dst_color_range=ColorRange.MPEG,
        dst_color_trc=ColorTrc.BT709,
        dst_color_primaries=ColorPrimaries.BT709,
        interpolation=Interpolation.AREA | _EXACT,
    )


def _matrix(frame: VideoFrame) -> int | None:
    if frame.format.is_rgb:
        return None
    if frame.colorspace == _UNSPECIFIED:
        return Colorspace.ITU709 if frame.height >= _HD_FROM_PX else Colorspace.ITU601
    return frame.colorspace


def _tone_map(rgb: NDArray[Any], frame: VideoFrame) -> NDArray[np.uint8]:
    """HDR to sRGB: white paper stays near white, what is brighter is pressed together above."""
    light = _light_of_pq()[rgb] if frame.color_trc == ColorTrc.SMPTE2084 else _hlg(rgb)
    if frame.color_primaries == ColorPrimaries.BT2020:
        light = np.maximum(light @ _TO_BT709.T, 0)
    # By the brightest of the three, so that colours keep their hue.
    brightest = np.maximum(light.max(axis=2, keepdims=True), 1e-6)
    above = np.maximum(brightest - _KNEE, 0) / (1 - _KNEE)
    pressed = np.minimum(brightest, _KNEE) + (1 - _KNEE) * above / (1 + above)
    shown = np.clip(light * (pressed / brightest), 0, 1)
    coded: NDArray[np.uint8] = _srgb()[np.rint(shown * (_STEPS - 1)).astype(np.uint16)]
    return coded


@cache
def _light_of_pq() -> NDArray[np.float32]:
    """Light by 16 bit code, white paper 1 (SMPTE ST 2084)."""
    code = np.linspace(0, 1, 65536) ** (32 / 2523)
    nits = 10000 * (np.maximum(code - 0.8359375, 0) / (18.8515625 - 18.6875 * code)) ** (
        16384 / 2610
    )
    return (nits / _WHITE_NITS).astype(np.float32)


def _hlg(rgb: NDArray[Any]) -> NDArray[np.float32]:
    """Light, white paper 1, on the reference screen of 1000 cd/m2 (ITU-R BT.2100)."""
    scene = _scene_of_hlg()[rgb]
    luminance = scene @ np.array([0.2627, 0.6780, 0.0593], np.float32)
    light: NDArray[np.float32] = scene * (
        1000 / _WHITE_NITS * luminance[:, :, None] ** np.float32(0.2)
    )
    return light


@cache
def _scene_of_hlg() -> NDArray[np.float32]:
    code = np.linspace(0, 1, 65536)
    bright = (np.exp((code - 0.55991073) / 0.17883277) + 0.28466892) / 12
    return np.where(code <= 0.5, code**2 / 3, bright).astype(np.float32)


@cache
def _srgb() -> NDArray[np.uint8]:
    """Code of sRGB by light, in equal steps."""
    light = np.linspace(0, 1, _STEPS)
    code = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    table: NDArray[np.uint8] = np.rint(255 * code).astype(np.uint8)
    return table
