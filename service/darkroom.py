"""What pictures go through before they are painted, and after; stills and moving ones alike."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from service.images import blend, count_decoded_pixels, decode_image, transfer_colors

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import numpy as np
    from numpy.typing import NDArray

    from service.formats import ImageFormat
    from service.gate import Admission
    from service.images import Photo
    from service.settings import Settings

    OnCodecPool = Callable[..., Awaitable[Any]]


async def decode_admitted(
    data: bytes,
    source: ImageFormat,
    *,
    max_side_px: int,
    settings: Settings,
    admission: Admission,
    on_codec_pool: OnCodecPool,
) -> Photo:
    """Decode once there is room for it, and keep only the room that the result needs.

    Args:
        data: a picture of the format ``source``.
        source: its format.
        max_side_px: longest side of the result.
        settings: its other bounds.
        admission: where room is reserved.
        on_codec_pool: runs a function where it does not hold up the event loop.

    Raises:
        ServiceError: it is too large, too small, corrupt, or there is no room.
    """
    limits = {
        "max_side_px": max_side_px,
        "max_source_pixels": settings.max_source_pixels,
        "min_side_px": settings.min_side_px,
    }
    count = partial(count_decoded_pixels, data, source, **limits)
    admission.reserve_pixels(await on_codec_pool(count))
    photo: Photo = await on_codec_pool(partial(decode_image, data, source, **limits))
    admission.reserve_pixels(photo.pixel_count)
    return photo


def mix_with_photo(
    painting: NDArray[np.uint8], photo: NDArray[np.uint8], *, keep_colors: bool, strength: float
) -> NDArray[np.uint8]:
    """``painting`` in the colours of ``photo``, and blended with it, each if asked for."""
    if keep_colors:
        painting = transfer_colors(painting, photo)
    return blend(photo, painting, strength) if strength < 1 else painting
