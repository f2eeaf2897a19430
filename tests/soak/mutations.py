"""Pictures as no camera writes them: flipped, cut, spliced, mislabelled."""

from __future__ import annotations

import io
import random
from typing import TYPE_CHECKING

from PIL import Image
from skimage import data as skimage_data

if TYPE_CHECKING:
    from collections.abc import Iterator

FORMATS = ("jpeg", "png", "webp", "avif", "gif")
_HEADS = (b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"RIFF\xff\xff\xff\xffWEBP", b"GIF89a", b"BM")


def originals() -> dict[str, list[bytes]]:
    """Sound pictures of each format, plain and with what files may carry."""
    photo = Image.fromarray(skimage_data.astronaut()).resize((72, 72))
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a description"
    with_alpha = photo.convert("RGBA")
    with_alpha.putalpha(photo.convert("L"))
    variants = {
        "jpeg": [(photo, {"exif": exif}), (photo.convert("CMYK"), {}), (photo, {"progressive": 1})],
        "png": [(photo, {}), (with_alpha, {}), (photo.quantize(), {}), (photo.convert("I;16"), {})],
        "webp": [(photo, {"exif": exif}), (with_alpha, {"lossless": True})],
        "avif": [(photo, {}), (with_alpha, {})],
        "gif": [(photo.quantize(), {}), (photo.quantize(), {"save_all": True, "loop": 0})],
    }
    files: dict[str, list[bytes]] = {}
    for name, pictures in variants.items():
        for picture, options in pictures:
            buffer = io.BytesIO()
            picture.save(buffer, name, **options)
            files.setdefault(name, []).append(buffer.getvalue())
    return files


def mutated(count: int, seed: int) -> Iterator[bytes]:
    """So many broken pictures, of every format in turn; the same each time."""
    chance = random.Random(seed)  # noqa: S311  # bytes, not secrets
    files = originals()
    everything = [file for of_format in files.values() for file in of_format]
    changes = (_flip, _cut, _splice, _relabel, _repeat, _blank, _stretch)
    for number in range(count):
        data = bytearray(chance.choice(files[FORMATS[number % len(FORMATS)]]))
        for _ in range(chance.choice((1, 1, 1, 2, 4))):
            chance.choice(changes)(data, chance, chance.choice(everything))
        yield bytes(data)


def _span(data: bytearray, chance: random.Random, longest: int = 64) -> slice:
    first = chance.randrange(len(data) or 1)
    return slice(first, first + chance.randint(1, longest))


def _flip(data: bytearray, chance: random.Random, _other: bytes) -> None:
    for _ in range(chance.choice((1, 4, 32))):
        if data:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _cut(data: bytearray, chance: random.Random, _other: bytes) -> None:
    del data[chance.randrange(len(data) + 1) :]


def _splice(data: bytearray, chance: random.Random, other: bytes) -> None:
    at = chance.randrange(len(data) + 1)
    data[at:at] = other[_span(bytearray(other), chance, 512)]


def _relabel(data: bytearray, chance: random.Random, _other: bytes) -> None:
    head = chance.choice(_HEADS)
    data[: len(head)] = head


def _repeat(data: bytearray, chance: random.Random, _other: bytes) -> None:
    span = _span(data, chance, 256)
    data[span.start : span.start] = data[span] * chance.choice((1, 2, 50))


def _blank(data: bytearray, chance: random.Random, _other: bytes) -> None:
    span = _span(data, chance)
    data[span] = bytes([chance.choice((0, 255))]) * len(data[span])


def _stretch(data: bytearray, chance: random.Random, _other: bytes) -> None:
    """Numbers that say sizes and lengths lie in the first bytes of every format."""
    at = chance.randrange(min(len(data), 64) + 1)
    data[at : at + 4] = chance.choice(
        (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x00\x00\x00\x00")
    )
