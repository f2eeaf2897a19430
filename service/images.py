"""Images: bytes to Photo and back. The only module that knows Pillow."""

from __future__ import annotations

import io
import math
import os
import struct
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING

import numpy as np
from PIL import Image, ImageCms

from service.errors import (
    CorruptImageError,
    ImageTooLargeError,
    ImageTooSmallError,
)
from service.structure import find_excess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from service.formats import ImageFormat

# decode_image holds every header against a limit of its own, and names both numbers.
Image.MAX_IMAGE_PIXELS = None

_ORIENTATION_TAG = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ROWS_AT_ONCE = 256
# Only these, since others that begin so have a linear curve.
_SRGB_NAMES = frozenset({"sRGB", "sRGB IEC61966-2.1", "sRGB built-in"})
_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


@dataclass(frozen=True, slots=True, eq=False)
class Photo:
    """A decoded picture: ``pixels`` uint8 (H, W, 3) in sRGB, upright; ``alpha`` uint8 (H, W).

    ``alpha`` is None where the picture is opaque. Pixels under full transparency are white, so
    that colours nobody sees do not bleed into the painting.
    """

    pixels: NDArray[np.uint8]
    alpha: NDArray[np.uint8] | None = None

    @property
    def pixel_count(self) -> int:
        """H times W."""
        return self.pixels.size // 3

    def with_pixels(self, pixels: NDArray[np.uint8]) -> Photo:
        """The same picture in other colours."""
        return replace(self, pixels=pixels)


def decode_image(
    data: bytes,
    source: ImageFormat,
    *,
    max_side_px: int,
    max_source_pixels: int,
    min_side_px: int,
) -> Photo:
    """Decode the first frame, turned upright, in sRGB, its longer side at most ``max_side_px``.

    Raises:
        ImageTooLargeError: the header promises more than ``max_source_pixels``.
        ImageTooSmallError: a side is shorter than ``min_side_px``.
        CorruptImageError: the data is cut short, not what its format prescribes, or of more parts
            than any encoder writes.
    """
    if excess := find_excess(data, source.name):
        raise CorruptImageError(f"the {source.name.upper()} {excess}; save it again")
    with _corrupt_unless_refused(source):
        if source.name == "webp" and (canvas := _webp_canvas(data)):
            # Pillow's decoder allocates the canvas when it opens the file.
            _check_size(canvas, max_source_pixels, min_side_px)
        with Image.open(io.BytesIO(data), formats=[source.name]) as image:
            _check_size(image.size, max_source_pixels, min_side_px)
            size = _fit(image.size, max_side_px)
            image.draft(None, size)  # a JPEG decodes at a half, a quarter or an eighth
            image.load()
            return _to_photo(image, size)


def count_decoded_pixels(
    data: bytes,
    source: ImageFormat,
    *,
    max_side_px: int,
    max_source_pixels: int,
    min_side_px: int,
) -> int:
    """Pixels that :func:`decode_image` will hold at once, by the header alone.

    Raises:
        ImageTooLargeError: the header promises more than ``max_source_pixels``.
        ImageTooSmallError: a side is shorter than ``min_side_px``.
        CorruptImageError: there is no whole header.
    """
    with _corrupt_unless_refused(source):
        if source.name == "webp" and (canvas := _webp_canvas(data)):
            _check_size(canvas, max_source_pixels, min_side_px)
            return canvas[0] * canvas[1]
        with Image.open(io.BytesIO(data), formats=[source.name]) as image:
            _check_size(image.size, max_source_pixels, min_side_px)
            if not image.info.get("progressive"):  # whose coefficients are all held at full size
                image.draft(None, _fit(image.size, max_side_px))
            return image.width * image.height


def encode_image(photo: Photo, target: ImageFormat, *, quality: int) -> bytes:
    """Encode without metadata; a format without alpha shows the picture on white.

    ``quality`` is 1 to 100 and means nothing to a lossless format.
    """
    image = Image.fromarray(photo.pixels)
    if photo.alpha is not None:
        alpha = Image.fromarray(photo.alpha)
        if target.has_alpha:
            image.putalpha(alpha)
        else:
            image = Image.composite(image, Image.new("RGB", image.size, "white"), alpha)
    options = dict(target.encoder)
    if target.has_quality:
        options["quality"] = quality
    with _scratch_file() as file:
        image.save(file, target.name, **options)
        file.seek(0)
        return file.read()


def _scratch_file() -> IO[bytes]:
    """A file in memory: into a BytesIO, Pillow's JPEG encoder lets no other thread run meanwhile.

    Only Linux has such files, and where no more may be open, the slower way will do.
    """
    with suppress(AttributeError, OSError):
        return os.fdopen(os.memfd_create("picture"), "w+b", buffering=0)
    return io.BytesIO()


def transfer_colors(painting: NDArray[np.uint8], photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Luminance of ``painting`` with the chroma of ``photo``, both uint8 (H, W, 3)."""
    luminance = Image.fromarray(painting).convert("YCbCr").getchannel("Y")
    _, blue, red = Image.fromarray(photo).convert("YCbCr").split()
    return np.asarray(Image.merge("YCbCr", (luminance, blue, red)).convert("RGB"))


def blend(
    photo: NDArray[np.uint8], painting: NDArray[np.uint8], strength: float
) -> NDArray[np.uint8]:
    """From ``photo`` at strength 0 to ``painting`` at 1; both ends are exact."""
    blended = np.empty_like(photo)
    for top in range(0, len(photo), _ROWS_AT_ONCE):  # floats of the whole would be 8 times its size
        rows = slice(top, top + _ROWS_AT_ONCE)
        mix = photo[rows] * np.float32(1 - strength) + painting[rows] * np.float32(strength)
        blended[rows] = np.rint(mix)
    return blended


def add_residue(
    photo: NDArray[np.uint8],
    painting: NDArray[np.uint8],
    identity: NDArray[np.uint8],
    share: float,
) -> NDArray[np.uint8]:
    """``painting`` and that ``share`` of what of ``photo`` its network's ``identity`` lacks."""
    whole = np.empty_like(photo)
    for top in range(0, len(photo), _ROWS_AT_ONCE):
        rows = slice(top, top + _ROWS_AT_ONCE)
        residue = photo[rows].astype(np.float32) - identity[rows]
        whole[rows] = np.rint(np.clip(painting[rows] + np.float32(share) * residue, 0, 255))
    return whole


@contextmanager
def _corrupt_unless_refused(source: ImageFormat) -> Iterator[None]:
    try:
        yield
    except (ImageTooLargeError, ImageTooSmallError):
        raise
    except Exception as error:  # hostile data makes Pillow raise nearly anything
        raise CorruptImageError(
            f"the {source.name.upper()} cannot be decoded: it is cut short or damaged"
        ) from error


def _check_size(size: tuple[int, int], max_source_pixels: int, min_side_px: int) -> None:
    width, height = size
    if width * height > max_source_pixels:
        # Rounded up, lest it read "50.0 MP exceeds the limit of 50.0 MP".
        megapixels = math.ceil(width * height / 1e5) / 10
        raise ImageTooLargeError(
            f"{megapixels:.1f} MP exceeds the limit of {max_source_pixels / 1e6:.1f} MP"
        )
    if min(size) < min_side_px:
        raise ImageTooSmallError(f"{width}x{height} px is below the least side of {min_side_px} px")


def _webp_canvas(data: bytes) -> tuple[int, int] | None:
    """Width and height of a WebP by its first chunk, or None where that is not valid."""
    if len(data) < 30:
        return None
    chunk, body = data[12:16], data[20:30]
    if chunk == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if chunk == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if chunk == b"VP8 ":
        width, height = struct.unpack("<HH", body[6:10])
        return width & 0x3FFF, height & 0x3FFF
    return None


def _fit(size: tuple[int, int], max_side_px: int) -> tuple[int, int]:
    """Shrink ``size`` to a longer side of at most ``max_side_px``; each side stays >= 1."""
    longer = max(size)
    if longer <= max_side_px:
        return size
    width, height = (max(1, round(side * max_side_px / longer)) for side in size)
    return width, height


def _to_photo(image: Image.Image, size: tuple[int, int]) -> Photo:
    orientation, profile = _orientation(image), image.info.get("icc_profile")
    image = _to_plain_mode(image)
    alpha = None
    if image.mode == "RGBA":
        # Premultiplied, or the colours of transparent pixels would tint the edges.
        image = _resize(image.convert("RGBa"), size).convert("RGBA")
        alpha = image.getchannel("A")
        image = image.convert("RGB")
    else:
        image = _resize(image, size)
    image = _to_srgb(image, profile)
    if alpha is not None and alpha.getextrema() == (255, 255):
        alpha = None
    if alpha is not None:
        image.paste("white", mask=alpha.point(lambda value: 255 * (value == 0)))
    turn = _TURNS.get(orientation)
    if turn is not None:  # a flip is 0
        image = image.transpose(turn)
        alpha = alpha and alpha.transpose(turn)
    return Photo(np.asarray(image), None if alpha is None else np.asarray(alpha))


def _to_plain_mode(image: Image.Image) -> Image.Image:
    """Convert to RGBA where anything is transparent, else to L, RGB or CMYK, 8 bits a channel."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        return image.convert("RGBA")
    if image.mode in {"L", "RGB", "CMYK"}:
        return image
    return image.convert("RGB")


def _resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert to RGB by the embedded profile; one that is broken or misfits is passed over."""
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if ImageCms.getProfileDescription(source).strip() not in _SRGB_NAMES:
                converted = ImageCms.profileToProfile(image, source, _SRGB, outputMode="RGB")
                if converted is not None:
                    return converted
        except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
            pass
    return image if image.mode == "RGB" else image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; a broken EXIF block is no reason to refuse the picture."""
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except (
        SyntaxError,
        OSError,
        ArithmeticError,
        ValueError,
        TypeError,
        LookupError,
        struct.error,
    ):
        return 1
