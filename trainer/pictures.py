"""Picture files <-> tensors, for the trainer: style pictures, evaluation photographs, sheets."""

from __future__ import annotations

import io
import struct
import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageOps

from trainer.errors import TrainerError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from model_zoo.layers import Generator

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif"})
"""Lower-case endings by which a folder's pictures are found."""

DECODE_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    RuntimeError,  # corrupt AVIF
    ArithmeticError,
    LookupError,
    TypeError,
    struct.error,  # broken EXIF
    Image.DecompressionBombError,
)
"""What Pillow raises on files that are no picture, cut short or hostile."""


def open_picture(path: Path, *, at_least_px: int | None = None) -> Image.Image:
    """Decode a picture to upright RGB.

    Args:
        path: the file.
        at_least_px: where given, a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long as
            its shorter side keeps this many px, which is several times faster.

    Raises:
        one of DECODE_ERRORS.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # broken EXIF and palette oddities are not worth a line
        with Image.open(path) as image:
            if at_least_px is not None:
                image.draft("RGB", (at_least_px, at_least_px))
            upright = ImageOps.exif_transpose(image)
            if upright.has_transparency_data:
                upright = upright.convert("RGBA")
                paper = Image.new("RGBA", upright.size, "white")
                upright = Image.alpha_composite(paper, upright)
            return upright.convert("RGB")


def load_picture(path: Path, size_px: int | None = None) -> Tensor:
    """Read a picture as RGB in [0, 1], (1, 3, H, W), its longer side ``size_px`` where given.

    Raises:
        TrainerError: the file cannot be read as a picture.
    """
    try:
        image = open_picture(path)
    except DECODE_ERRORS as error:
        raise TrainerError(f"picture {path} cannot be read: {error}") from error
    return to_tensor(image if size_px is None else resized_to(image, size_px))


def resized_to(image: Image.Image, longer_side_px: int) -> Image.Image:
    """``image`` with a longer side of ``longer_side_px``, aspect kept."""
    factor = longer_side_px / max(image.size)
    width, height = (max(1, round(side * factor)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def to_tensor(image: Image.Image) -> Tensor:
    """RGB image -> [0, 1], (1, 3, H, W)."""
    pixels = torch.from_numpy(np.array(image))  # (H, W, 3) uint8
    return pixels.permute(2, 0, 1)[None].float() / 255


def as_seen(painted: Tensor) -> Tensor:
    """``painted`` as a user sees it, clamped to [0, 1] and rounded to 256 steps: same shape."""
    return painted.float().clamp(0, 1).mul(255).round() / 255


def stylized_by(generator: Generator, photos: Tensor) -> Tensor:
    """Answers of ``generator`` in evaluation mode, unclamped: (N, 3, H, W) -> same shape.

    The generator is left in the mode that it was in.
    """
    was_training = generator.training
    generator.eval()
    try:
        with torch.inference_mode():
            painted: Tensor = generator(photos)
            return painted
    finally:
        generator.train(was_training)


def to_image(photo: Tensor) -> Image.Image:
    """RGB in [0, 1], (3, H, W) or (1, 3, H, W), clamped and rounded -> image."""
    photo = photo[0] if photo.dim() == 4 else photo
    pixels = photo.detach().float().clamp(0, 1).mul(255).round().byte()
    return Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())


def jpeg_of_at_most(image: Image.Image, max_bytes: int, comment: str = "") -> bytes:
    """``image`` as a JPEG of the highest quality that ``max_bytes`` hold; of 24 if none does."""
    for quality in range(92, 20, -4):
        buffer = io.BytesIO()
        image.save(
            buffer, "JPEG", quality=quality, optimize=True, progressive=True, comment=comment
        )
        if buffer.tell() <= max_bytes:
            break
    return buffer.getvalue()


def find_pictures(folder: Path) -> list[Path]:
    """All picture files below ``folder``, sorted, hidden ones left out.

    Raises:
        TrainerError: the folder is absent or holds none.
    """
    if not folder.is_dir():
        raise TrainerError(f"photo folder {folder} does not exist")
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    if not found:
        raise TrainerError(
            f"photo folder {folder} holds no pictures; looked for {', '.join(sorted(SUFFIXES))} "
            "in it and below"
        )
    return found
