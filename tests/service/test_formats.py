from __future__ import annotations

import pytest

from service.formats import ENCODABLE, FORMATS, acceptable_formats, choose_format, detect_format

ALL = ["jpeg", "png", "webp"]


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", ALL),
        ("*/*", ALL),
        ("image/*", ALL),
        ("text/html, */*;q=0.1", ALL),
        ("image/webp", ["webp"]),
        ("IMAGE/WebP ; q=1.0", ["webp"]),
        ("image/webp, image/png", ["png", "webp"]),
        ("image/webp;q=0.2, image/png;q=0.4", ["png"]),
        ("image/*;q=0.5, image/png;q=0.9", ["png"]),
        ("image/png;q=0, image/*", ["jpeg", "webp"]),
        ("*/*;q=0", []),
        ("image/avif", []),
        ("text/html", []),
        ("image/jpeg;profile=x;q=0.5", ["jpeg"]),
        ("nonsense", []),
        ("image/png;q=much, image/webp", ["webp"]),
    ],
)
def test_acceptable_formats_are_those_of_the_highest_weight(
    accept: str, expected: list[str]
) -> None:
    assert [row.name for row in acceptable_formats(accept)] == expected


@pytest.mark.parametrize(
    ("candidates", "source", "has_alpha", "expected"),
    [
        (ALL, "png", False, "png"),
        (ALL, "avif", False, "jpeg"),
        (ALL, "gif", True, "png"),
        (["webp"], "jpeg", False, "webp"),
        (["jpeg"], "gif", True, "jpeg"),
        (["jpeg", "webp"], "png", True, "webp"),
    ],
)
def test_choose_format_prefers_the_sources_own_then_one_with_alpha(
    candidates: list[str], source: str, has_alpha: bool, expected: str
) -> None:
    rows = [FORMATS[name] for name in candidates]
    assert choose_format(rows, FORMATS[source], has_alpha=has_alpha).name == expected


@pytest.mark.parametrize(
    "data", [b"", b"GIF", b"BM" + bytes(60), b"RIFF\0\0\0\0WAVE", b"<svg/>", b"%PDF-1.7"]
)
def test_detect_format_when_nothing_matches_then_none(data: bytes) -> None:
    assert detect_format(data) is None


def test_detect_format_tells_avif_from_heic_by_the_brands_behind_the_first() -> None:
    box = b"\x00\x00\x00\x1cftyp" + b"mif1" + bytes(4)
    assert detect_format(box + b"mif1" + b"avif" + b"miaf" + bytes(40)) is FORMATS["avif"]
    assert detect_format(box + b"mif1" + b"heic" + b"miaf" + b"avif") is None
    assert detect_format(b"\xff\xff\xff\xffftypmif1" + bytes(4) + b"heic") is None


def test_formats_are_named_as_their_keys_and_have_distinct_media_types() -> None:
    assert [row.name for row in FORMATS.values()] == list(FORMATS)
    assert len({row.media_type for row in FORMATS.values()}) == len(FORMATS)
    assert [row.name for row in ENCODABLE] == ALL


def test_weights_after_a_space_count_and_a_hostile_header_costs_nothing() -> None:
    """One pattern over the whole header once backtracked for seconds on this."""
    liked = acceptable_formats("image/png; q=0.1, image/webp; q=.9")

    assert [row.name for row in liked] == ["webp"]
    assert not acceptable_formats("image/jpeg; q=0, image/x" + ";   " * 5000 + ";q=x")
