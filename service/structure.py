"""Structure: files whose parts are too many to be honest, told before a decoder meets them.

A decoder's time is bounded by a picture's pixels only as long as each is decoded once. A JPEG may
ask for all of them again in every scan, of which a few bytes make one; and Pillow steps over the
parts of a header in Python, one after the other.
"""

from __future__ import annotations

import re

MAX_SCANS = 100
"""Of a JPEG. Encoders write up to about 20; 20 MiB of empty ones would be decoded for hours."""

MAX_SEGMENTS = 2_000
"""Of a JPEG. A colour profile of the largest size is 255 of them."""

MAX_CHUNKS = 50_000
"""Of a PNG. 20 MiB are 2,500 of the size that libpng writes."""

MAX_BLOCKS = 20_000
"""Of a GIF, before its first picture. Pillow joins them to one comment, at 25 times their size."""

_MAX_FILL_BYTES = 65_536
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_START_OF_PICTURE, _START_OF_EXTENSION = 0x2C, 0x21
# Neither data (FF 00), fill bytes nor markers that have no length.
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])", re.DOTALL)


def find_excess(data: bytes, source: str) -> str | None:
    """Say what a file of the format ``source`` has too much of, both numbers in it; else None."""
    if source == "jpeg":
        return _excess_of_jpeg(data)
    if source == "png":
        return _excess_of_png(data)
    if source == "gif":
        return _excess_of_gif(data)
    return None


def _excess_of_jpeg(data: bytes) -> str | None:
    scans, at = 0, 2
    for _ in range(MAX_SEGMENTS):
        marker = _MARKER.search(data, at)
        if marker is None or marker[1][0] == _END_OF_IMAGE:
            return None
        if not scans and marker.start() - at > _MAX_FILL_BYTES:
            return f"has {marker.start() - at:,} bytes of filling, over {_MAX_FILL_BYTES:,}"
        scans += marker[1][0] == _START_OF_SCAN
        if scans > MAX_SCANS:
            return f"has over {MAX_SCANS} scans"
        at = marker.end()
        at += max(2, int.from_bytes(data[at : at + 2], "big"))
    return f"has over {MAX_SEGMENTS:,} segments"


def _excess_of_png(data: bytes) -> str | None:
    at = 8
    for _ in range(MAX_CHUNKS):
        if at + 8 > len(data) or data[at + 4 : at + 8] == b"IEND":
            return None
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return f"has over {MAX_CHUNKS:,} chunks"


def _excess_of_gif(data: bytes) -> str | None:
    colors = 2 << (data[10] & 7) if len(data) > 10 and data[10] & 0x80 else 0
    at, inside = 13 + 3 * colors, False
    for _ in range(MAX_BLOCKS):
        if at >= len(data) or (not inside and data[at] == _START_OF_PICTURE):
            return None
        if inside:
            inside = data[at] > 0
            at += 1 + data[at]
        elif data[at] == _START_OF_EXTENSION:
            inside = True
            at += 2
        else:
            at += 1
    return f"has over {MAX_BLOCKS:,} blocks before its picture"
