"""Decoding and encoding: every kind of picture that people upload, and those that attackers do."""

from __future__ import annotations

import io
import random
import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from service.errors import (
    CorruptImageError,
    ImageTooLargeError,
    ImageTooSmallError,
    ServiceError,
)
from service.formats import ENCODABLE, FORMATS
from service.images import (
    Photo,
    blend,
    count_decoded_pixels,
    decode_image,
    encode_image,
    transfer_colors,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Photograph = Callable[..., Image.Image]
    Encode = Callable[..., bytes]

LOSSLESS = {"png": {}, "webp": {"lossless": True}, "avif": {"quality": 100}}


def decode(data: bytes, name: str = "png", **limits: int) -> Photo:
    defaults = {"max_side_px": 4096, "max_source_pixels": 10**6, "min_side_px": 1}
    return decode_image(data, FORMATS[name], **defaults | limits)


def mean_difference(a: NDArray[np.uint8], b: NDArray[np.uint8] | Image.Image) -> float:
    return float(np.abs(np.asarray(a, np.float32) - np.asarray(b, np.float32)).mean())


@pytest.mark.parametrize("name", FORMATS)
def test_decode_gives_the_picture_whatever_its_format(
    name: str, photograph: Photograph, encode: Encode
) -> None:
    photo = decode(encode(photograph(), name, **LOSSLESS.get(name, {})), name)
    assert photo.pixels.shape == (64, 96, 3)
    assert photo.pixels.dtype == np.uint8
    assert photo.alpha is None
    assert mean_difference(photo.pixels, photograph()) < 8


@pytest.mark.parametrize("max_side", [2000, 1000, 501, 500, 300, 64])
def test_decode_when_a_jpeg_shrinks_then_looks_as_if_decoded_in_full(
    max_side: int, photograph: Photograph, encode: Encode
) -> None:
    whole = photograph(1000, 700)
    photo = decode(encode(whole, quality=95), "jpeg", max_side_px=max_side)
    height, width = photo.pixels.shape[:2]
    assert max(width, height) == min(max_side, 1000)
    assert abs(height / width - 0.7) < 0.01
    expected = whole.resize((width, height), Image.Resampling.LANCZOS)
    assert mean_difference(photo.pixels, expected) < 3


def test_decode_when_very_narrow_then_no_side_vanishes(encode: Encode) -> None:
    narrow = encode(Image.new("RGB", (2000, 2)), "png")
    assert decode(narrow, max_side_px=100).pixels.shape == (1, 100, 3)


@pytest.mark.parametrize("name", ["jpeg", "png", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_decode_turns_the_picture_upright(
    orientation: int, name: str, photograph: Photograph, encode: Encode
) -> None:
    stored = photograph(160, 96)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(stored, name, exif=exif, **{"quality": 95} if name != "png" else {})
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    assert np.array_equal(decode(data, name).pixels, expected)

    expected.thumbnail((80, 80), Image.Resampling.LANCZOS)
    half = decode(data, name, max_side_px=80).pixels
    assert half.shape == np.asarray(expected).shape
    assert mean_difference(half, expected) < 4


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_decode_when_exif_is_broken_then_ignores_it(photograph: Photograph, encode: Encode) -> None:
    data = encode(photograph(), exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert decode(data, "jpeg").pixels.shape == (64, 96, 3)


def swapped_profile() -> bytes:
    """The sRGB profile with its red and blue primaries exchanged, under another name."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = srgb.replace(b"rXYZ", b"tmp_").replace(b"bXYZ", b"rXYZ").replace(b"tmp_", b"bXYZ")
    return swapped.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))


@pytest.mark.parametrize("name", ["jpeg", "png", "webp", "avif"])
def test_decode_when_a_profile_is_embedded_then_converts_to_srgb(name: str, encode: Encode) -> None:
    red = Image.new("RGB", (32, 32), (200, 20, 20))
    pixels = decode(encode(red, name, icc_profile=swapped_profile()), name).pixels
    assert mean_difference(pixels, Image.new("RGB", (32, 32), (20, 20, 200))) < 6


def test_decode_when_the_profile_is_srgb_then_leaves_every_pixel(
    photograph: Photograph, encode: Encode
) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = encode(photograph(), "png", icc_profile=profile)
    assert np.array_equal(decode(data).pixels, photograph())


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
@pytest.mark.parametrize(
    "profile",
    [
        b"no profile at all",
        swapped_profile()[:200],
        ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(),
    ],
    ids=["text", "cut", "misfit"],
)
def test_decode_when_the_profile_is_broken_then_ignores_it(
    profile: bytes, mode: str, photograph: Photograph, encode: Encode
) -> None:
    picture = photograph().convert(mode)
    pixels = decode(encode(picture, "png", icc_profile=profile)).pixels
    assert np.array_equal(pixels, picture.convert("RGB"))


def test_decode_when_grey_has_an_rgb_profile_then_stays_grey(
    photograph: Photograph, encode: Encode
) -> None:
    grey = photograph().convert("L")
    pixels = decode(encode(grey, "png", icc_profile=swapped_profile())).pixels
    assert np.array_equal(pixels, grey.convert("RGB"))


@pytest.mark.parametrize("profile", [None, b"broken"])
def test_decode_when_a_jpeg_is_cmyk_then_is_not_inverted(
    profile: bytes | None, photograph: Photograph, encode: Encode
) -> None:
    data = encode(photograph().convert("CMYK"), quality=95, icc_profile=profile)
    assert b"Adobe" in data  # whose CMYK is stored inverted
    assert mean_difference(decode(data, "jpeg").pixels, photograph()) < 5


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_decode_when_the_picture_has_few_colors_then_gives_rgb(
    mode: str, photograph: Photograph, encode: Encode
) -> None:
    picture = photograph().convert(mode)
    assert np.array_equal(decode(encode(picture, "png")).pixels, picture.convert("RGB"))


def test_decode_when_grey_has_16_bits_then_scales_instead_of_clipping(encode: Encode) -> None:
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    pixels = decode(encode(Image.fromarray(ramp), "png")).pixels
    assert np.array_equal(pixels[..., 0], ramp >> 8)


def test_decode_when_rgb_has_16_bits_then_keeps_the_high_byte() -> None:
    deep = np.linspace(0, 65535, 32 * 32 * 3).reshape(32, 32, 3).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in deep)
    assert np.array_equal(decode(png(32, 32, 16, 2, rows)).pixels, deep >> 8)


def png(width: int, height: int, bits: int, color_type: int, rows: bytes) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


@pytest.fixture
def cut_out(photograph: Photograph) -> Image.Image:
    """A photograph with a transparent left half that hides pure green."""
    picture = photograph().convert("RGBA")
    picture.paste((0, 255, 0, 0), (0, 0, 48, 64))
    return picture


@pytest.mark.parametrize("name", ["png", "webp", "avif"])
def test_decode_when_transparent_then_sets_alpha_aside_and_hides_no_color(
    name: str, cut_out: Image.Image, encode: Encode
) -> None:
    photo = decode(encode(cut_out, name, **LOSSLESS[name]), name)
    assert photo.alpha is not None
    assert np.array_equal(photo.alpha, cut_out.getchannel("A"))
    assert (photo.pixels[:, :48] == 255).all()
    assert mean_difference(photo.pixels[:, 48:], np.asarray(cut_out)[:, 48:, :3]) < 5


def test_decode_when_transparent_and_shrunk_then_edges_have_no_fringe(encode: Encode) -> None:
    picture = Image.new("RGBA", (64, 64), (0, 255, 0, 0))
    picture.paste((200, 0, 0, 255), (31, 0, 64, 64))
    photo = decode(encode(picture, "png"), max_side_px=16)
    assert photo.alpha is not None
    visible = photo.pixels[photo.alpha > 0]
    assert visible[:, 1].max() <= 2
    assert visible[:, 0].min() >= 150


@pytest.mark.parametrize("mode", ["LA", "P", "L", "RGB"])
def test_decode_when_transparency_comes_in_another_guise_then_finds_it(
    mode: str, encode: Encode
) -> None:
    picture = Image.new("L", (32, 32), 255)
    picture.paste(10, (0, 0, 16, 32))
    options: dict[str, Any] = {}
    if mode == "LA":
        picture.putalpha(picture.point(lambda value: 255 * (value == 255)))
    else:
        picture = picture.convert(mode)
        options["transparency"] = {"P": 10, "L": 10, "RGB": (10, 10, 10)}[mode]
    photo = decode(encode(picture, "png", **options))
    assert photo.alpha is not None
    assert (photo.alpha[:, :16] == 0).all()
    assert (photo.alpha[:, 16:] == 255).all()


def test_decode_when_a_gif_is_transparent_then_sets_alpha_aside(
    cut_out: Image.Image, encode: Encode
) -> None:
    photo = decode(encode(cut_out, "gif"), "gif")
    assert photo.alpha is not None
    assert set(np.unique(photo.alpha)) == {0, 255}


def test_decode_when_alpha_is_opaque_everywhere_then_drops_it(
    photograph: Photograph, encode: Encode
) -> None:
    assert decode(encode(photograph().convert("RGBA"), "png")).alpha is None


@pytest.mark.parametrize("name", ["gif", "webp", "png", "avif"])
def test_decode_when_animated_then_takes_the_first_frame(name: str, encode: Encode) -> None:
    frames = [Image.new("RGB", (32, 32), color) for color in ("red", "blue", "lime")]
    data = encode(frames[0], name, save_all=True, append_images=frames[1:], duration=100)
    assert mean_difference(decode(data, name).pixels, frames[0]) < 4


@pytest.mark.parametrize("name", FORMATS)
def test_decode_when_the_picture_is_too_large_then_says_both_numbers(
    name: str, encode: Encode
) -> None:
    data = encode(Image.new("RGB", (1500, 1000)), name)
    with pytest.raises(ImageTooLargeError, match=r"1\.5 MP exceeds the limit of 1\.4 MP"):
        decode(data, name, max_source_pixels=1_400_000)
    with pytest.raises(ImageTooLargeError, match=r"1\.5 MP exceeds the limit of 1\.4 MP"):
        decode(data, name, max_source_pixels=1_449_999)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        (
            "gif",
            b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\0\0\0,\0\0\0\0\1\0\1\0\0\2\2\0\0;",
        ),
        ("webp", b"RIFF\x20\0\0\0WEBPVP8X\x0a\0\0\0\2\0\0\0" + b"\xff\xff\0" * 2 + bytes(8)),
        ("webp", b"RIFF\x20\0\0\0WEBPVP8L\x0a\0\0\0\x2f\xff\xff\xff\x0f" + bytes(20)),
        ("webp", b"RIFF\x20\0\0\0WEBPVP8 \x0a\0\0\0\x30\1\0\x9d\1\x2a\xff\x3f\xff\x3f" + bytes(20)),
    ],
    ids=["gif screen", "webp canvas", "webp lossless", "webp lossy"],
)
def test_decode_when_only_the_header_is_huge_then_refuses_before_allocating(
    name: str, data: bytes
) -> None:
    with pytest.raises(ImageTooLargeError):
        decode(data, name, max_source_pixels=50_000_000)


def test_decode_when_a_side_is_too_short_then_refuses(encode: Encode) -> None:
    data = encode(Image.new("RGB", (15, 400)), "png")
    with pytest.raises(ImageTooSmallError, match="15x400 px is below the least side of 16 px"):
        decode(data, min_side_px=16)


@pytest.mark.parametrize("name", FORMATS)
def test_decode_when_cut_short_then_is_corrupt(
    name: str, photograph: Photograph, encode: Encode
) -> None:
    data = encode(photograph(), name)
    for length in (len(data) // 2, 40, 16):
        with pytest.raises(CorruptImageError):
            decode(data[:length], name)


@pytest.mark.parametrize("name", FORMATS)
def test_decode_when_bytes_are_damaged_then_fails_only_as_a_service_error(
    name: str, photograph: Photograph, encode: Encode
) -> None:
    random_bytes = random.Random(name)  # noqa: S311
    whole = encode(photograph().convert("P" if name == "gif" else "RGB"), name)
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(random_bytes.choice((1, 4, 16))):
            where = random_bytes.randrange(12, random_bytes.choice((64, len(data))))
            data[where] = random_bytes.randrange(256)
        try:
            decode(bytes(data), name)
        except ServiceError as error:
            assert error.status in {413, 422}  # noqa: PT017


@pytest.mark.filterwarnings("ignore:Image appears to be a malformed MPO")
def test_decode_when_a_multi_picture_jpeg_is_malformed_then_takes_its_first_picture(
    photograph: Photograph, encode: Encode
) -> None:
    data = encode(photograph())
    segment = b"MPF\0MM\0*\0\0\0\x08" + bytes(20)
    marker = b"\xff\xe2" + struct.pack(">H", len(segment) + 2) + segment
    assert decode(data[:2] + marker + data[2:], "jpeg").pixels.shape == (64, 96, 3)


@pytest.mark.parametrize("target", ENCODABLE, ids=lambda row: row.name)
def test_encode_keeps_alpha_where_the_format_can_and_shows_white_where_not(
    target: Any, photograph: Photograph
) -> None:
    alpha = np.zeros((64, 96), np.uint8)
    alpha[:, 48:] = 255
    photo = Photo(np.asarray(photograph()), alpha)
    answer = Image.open(io.BytesIO(encode_image(photo, target, quality=95)))
    if target.has_alpha:
        assert np.array_equal(answer.getchannel("A"), alpha)
    else:
        assert answer.mode == "RGB"
        assert mean_difference(np.asarray(answer)[:, :40], np.full((64, 40, 3), 255)) < 2


@pytest.mark.parametrize("target", ENCODABLE, ids=lambda row: row.name)
def test_encode_carries_no_metadata_over(
    target: Any, photograph: Photograph, encode: Encode
) -> None:
    exif = Image.Exif()
    exif[0x010E] = "home"
    data = encode(photograph(), exif=exif, icc_profile=swapped_profile(), comment=b"secret")
    answer = encode_image(decode(data, "jpeg"), target, quality=90)
    opened = Image.open(io.BytesIO(answer))
    assert not opened.getexif()
    assert not {"icc_profile", "exif", "comment"} & set(opened.info)


@pytest.mark.parametrize("target", ENCODABLE, ids=lambda row: row.name)
def test_encode_gives_the_same_bytes_each_time_and_smaller_ones_for_less_quality(
    target: Any, photograph: Photograph
) -> None:
    photo = Photo(np.asarray(photograph()))
    fine, again, coarse = [encode_image(photo, target, quality=q) for q in (95, 95, 20)]
    assert fine == again
    assert (len(coarse) < len(fine)) == target.has_quality


@pytest.mark.parametrize("target", ENCODABLE, ids=lambda row: row.name)
def test_encode_gives_the_same_bytes_where_no_more_files_may_be_open(
    target: Any, photograph: Photograph, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = Photo(np.asarray(photograph(400, 300)))
    answer = encode_image(photo, target, quality=90)

    def fail(_name: str) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("os.memfd_create", fail, raising=False)
    assert encode_image(photo, target, quality=90) == answer


def test_png_answers_hold_every_pixel(photograph: Photograph) -> None:
    photo = Photo(np.asarray(photograph()))
    answer = Image.open(io.BytesIO(encode_image(photo, FORMATS["png"], quality=1)))
    assert np.array_equal(answer, photo.pixels)


def test_blend_is_exact_at_both_ends_and_halfway_between(photograph: Photograph) -> None:
    photo = np.asarray(photograph())
    painting = np.asarray(photograph(name="astronaut"))
    assert np.array_equal(blend(photo, painting, 0), photo)
    assert np.array_equal(blend(photo, painting, 1), painting)
    middle = (photo.astype(int) + painting) / 2
    assert np.abs(blend(photo, painting, 0.5) - middle).max() <= 0.5


def test_transfer_colors_takes_luminance_from_one_and_chroma_from_the_other(
    photograph: Photograph,
) -> None:
    # Soft colours, whose every mixture lies inside RGB.
    photo, painting = (
        np.asarray(photograph(name=name)) // 4 + np.uint8(96) for name in ("coffee", "astronaut")
    )
    mixed = Image.fromarray(transfer_colors(painting, photo)).convert("YCbCr")
    luminance, *chroma = (np.asarray(band, int) for band in mixed.split())
    assert np.abs(luminance - np.asarray(Image.fromarray(painting).convert("L"), int)).max() <= 2
    _, *expected_chroma = Image.fromarray(photo).convert("YCbCr").split()
    for band, expected in zip(chroma, expected_chroma, strict=True):
        assert np.abs(band - np.asarray(expected, int)).max() <= 2


def count(data: bytes, name: str, **limits: int) -> int:
    defaults = {"max_side_px": 4096, "max_source_pixels": 10**6, "min_side_px": 1}
    return count_decoded_pixels(data, FORMATS[name], **defaults | limits)


@pytest.mark.parametrize("name", FORMATS)
def test_pixels_are_counted_before_decoding_whatever_the_format(
    name: str, photograph: Photograph, encode: Encode
) -> None:
    data = encode(photograph(), name)
    assert count(data, name) == 96 * 64
    with pytest.raises(ImageTooLargeError):
        count(data, name, max_source_pixels=96 * 64 - 1)
    with pytest.raises(ImageTooSmallError):
        count(data, name, min_side_px=65)
    with pytest.raises(CorruptImageError):
        count(data[:16], name)


def test_pixels_of_a_jpeg_are_those_it_is_decoded_at(
    photograph: Photograph, encode: Encode
) -> None:
    assert count(encode(photograph(800, 800)), "jpeg", max_side_px=100) == 100 * 100
    assert count(encode(photograph(800, 800)), "jpeg", max_side_px=101) == 200 * 200
    # All coefficients of a progressive one are held at full size, however it is decoded.
    progressive = encode(photograph(800, 800), progressive=True)
    assert count(progressive, "jpeg", max_side_px=100) == 800 * 800


def test_pixels_are_counted_though_the_rest_is_missing(
    photograph: Photograph, encode: Encode
) -> None:
    assert count(encode(photograph(), "png")[:60], "png") == 96 * 64
