"""What attackers send: pictures, forms and headers that are made to hurt (docs/security.md)."""

from __future__ import annotations

import ast
import asyncio
import io
import json
import logging
import pickle
import socket
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image, ImageCms

from model_zoo.cards import ZooError
from model_zoo.checkpoints import load_generator
from service.errors import (
    CorruptImageError,
    ImageTooLargeError,
    ServiceError,
    UnsupportedMediaTypeError,
)
from service.formats import FORMATS, detect_format
from service.images import decode_image
from service.logs import JsonFormatter
from service.pipeline import _detect
from service.structure import MAX_BLOCKS, MAX_CHUNKS, MAX_SCANS, MAX_SEGMENTS, find_excess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from service.images import Photo

    Encode = Callable[..., bytes]

MIB = 2**20


def decode(data: bytes) -> Photo:
    source = detect_format(data)
    assert source is not None
    return decode_image(
        data, source, max_side_px=1024, max_source_pixels=50_000_000, min_side_px=16
    )


def chunk(name: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


@pytest.fixture(scope="module")
def whole(encode: Encode) -> dict[str, bytes]:
    """An honest picture of each format, 64x64 px, of one colour."""
    picture = Image.new("RGB", (64, 64), (200, 30, 90))
    return {name: encode(picture, name) for name in FORMATS}


@pytest.fixture(scope="module")
def with_chunks(whole: dict[str, bytes]) -> Callable[..., bytes]:
    """The PNG with chunks behind its header."""

    def with_chunks(*chunks: bytes) -> bytes:
        return whole["png"][:33] + b"".join(chunks) + whole["png"][33:]

    return with_chunks


@pytest.fixture(scope="module")
def deflated() -> bytes:
    """256 MiB of zeros, as 255 kB."""
    packer = zlib.compressobj(9)
    zeros = bytes(MIB)
    return b"".join(packer.compress(zeros) for _ in range(256)) + packer.flush()


# --- bombs


@pytest.mark.parametrize(
    ("name", "head"),
    [(b"iCCP", b"x\0\0"), (b"zTXt", b"x\0\0"), (b"iTXt", b"x\0\1\0\0\0")],
    ids=["colour profile", "text", "international text"],
)
@pytest.mark.parametrize("place", ["before the picture", "after it"])
def test_a_png_whose_metadata_is_a_bomb_is_refused(
    with_chunks: Callable[..., bytes],
    whole: dict[str, bytes],
    deflated: bytes,
    name: bytes,
    head: bytes,
    place: str,
) -> None:
    bomb = chunk(name, head + deflated)
    end = len(whole["png"]) - 12
    behind = whole["png"][:end] + bomb + whole["png"][end:]
    data = behind if place == "after it" else with_chunks(bomb)
    with pytest.raises(CorruptImageError):
        decode(data)


def test_many_small_texts_of_a_png_may_not_fill_the_memory(
    with_chunks: Callable[..., bytes],
) -> None:
    text = chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(1_000_000), 9))
    with pytest.raises(CorruptImageError):
        decode(with_chunks(*[text] * 100))


def test_more_pixels_than_the_header_says_are_not_unpacked(
    whole: dict[str, bytes], deflated: bytes
) -> None:
    data = whole["png"][:33] + chunk(b"IDAT", deflated) + chunk(b"IEND")
    assert not decode(data).pixels.any()
    assert decode(data).pixels.shape == (64, 64, 3)


@pytest.mark.parametrize("side", [60_000, 2**31 - 1])
def test_a_header_of_huge_dimensions_is_refused_by_its_numbers(side: int) -> None:
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT") + chunk(b"IEND")
    with pytest.raises(ImageTooLargeError, match=r"exceeds the limit of 50\.0 MP"):
        decode(data)


def test_an_animation_that_promises_billions_of_frames_is_one_picture(
    with_chunks: Callable[..., bytes],
) -> None:
    frames = chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0))
    assert decode(with_chunks(frames)).pixels.shape == (64, 64, 3)


def test_a_jpeg_of_too_many_scans_is_refused_before_the_first(encode: Encode) -> None:
    """Each asks for all of the picture again: 300 kB would take hours at 50 megapixels."""
    data = encode(Image.new("RGB", (256, 256), "red"), progressive=True)
    start = data.rindex(b"\xff\xda")
    scan = data[start : start + 10] + b"\0"
    assert 5 < data.count(b"\xff\xda") < 20
    for scans in (0, 50):
        assert decode(data[:-2] + scan * scans + data[-2:]).pixels.shape == (256, 256, 3)
    with pytest.raises(CorruptImageError, match=f"over {MAX_SCANS} scans; save it again"):
        decode(data[:-2] + scan * MAX_SCANS + data[-2:])


@pytest.mark.parametrize("disguise", [b"\xff", b"\xff\x01", b"\xff\xd0", b"\0\0"])
def test_scans_are_counted_however_they_hide(encode: Encode, disguise: bytes) -> None:
    """Fill bytes, markers without a length, and garbage, over which decoders step."""
    data = encode(Image.new("RGB", (64, 64), "red"), progressive=True)
    start = data.rindex(b"\xff\xda")
    scan = disguise + data[start : start + 10] + b"\0"
    assert find_excess(data[:-2] + scan * MAX_SCANS + data[-2:], "jpeg")


def test_what_stands_behind_a_jpeg_or_in_its_metadata_counts_for_no_scan(
    whole: dict[str, bytes],
) -> None:
    """Phones put films there, and a thumbnail is a JPEG of its own."""
    like_scans = b"\xff\xda" * 1000
    segment = b"\xff\xe3" + struct.pack(">H", len(like_scans) + 2) + like_scans
    jpeg = whole["jpeg"]
    assert decode(jpeg[:2] + segment + jpeg[2:] + like_scans).pixels.shape == (64, 64, 3)


@pytest.mark.parametrize(
    ("name", "place", "part", "limit"),
    [
        ("jpeg", 2, b"\xff\xef\0\2", MAX_SEGMENTS),
        ("jpeg", 2, b"\xff\xe1\0\x08Exif\0\0", MAX_SEGMENTS),
        ("jpeg", 2, b"\xff" * 1000, 66),
        ("png", 33, chunk(b"aaAa"), MAX_CHUNKS),
        ("png", 33, chunk(b"IDAT"), MAX_CHUNKS),
        ("gif", 13, b"\x21\xfe\1a\0", MAX_BLOCKS // 2),
        ("gif", 13, b"\0", MAX_BLOCKS),
    ],
    ids=["app", "exif", "fill", "chunks", "data chunks", "comments", "zeros"],
)
def test_a_picture_of_countless_parts_is_refused(
    whole: dict[str, bytes], name: str, place: int, part: bytes, limit: int
) -> None:
    """Pillow takes 5 s of Python for 20 MiB of them, and for a GIF 500 MiB."""
    data = whole[name]
    if name == "gif":
        place += 3 * (2 << (data[10] & 7))
    few, many = (data[:place] + part * count + data[place:] for count in (limit // 10, limit))
    assert decode(few).pixels.shape == (64, 64, 3)
    with pytest.raises(CorruptImageError, match=r"save it again"):
        decode(many)


# --- lies


def lying_profile() -> bytes:
    """A profile that says it is 2 GiB long."""
    honest = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return struct.pack(">I", 2**31 - 1) + honest[4:]


def endless_profile() -> bytes:
    """A profile of 100,000 tags that are not there."""
    honest = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return honest[:128] + struct.pack(">I", 100_000) + bytes(12_000)


@pytest.mark.parametrize("profile", [lying_profile(), endless_profile()], ids=["size", "tags"])
@pytest.mark.parametrize("name", ["jpeg", "png", "webp", "avif"])
def test_a_profile_that_lies_is_passed_over(encode: Encode, name: str, profile: bytes) -> None:
    data = encode(Image.new("RGB", (64, 64), "red"), name, icc_profile=profile)
    assert decode(data).pixels[0, 0, 0] > 200


@pytest.mark.parametrize(
    "entry",
    [
        struct.pack(">HHIHH", 0x0112, 3, 2**31 - 1, 6, 0),
        struct.pack(">HHII", 0x8769, 4, 1, 8),
        struct.pack(">HHII", 0x0112, 2, 2**31 - 1, 2**31 - 1),
    ],
    ids=["count", "loop", "offset"],
)
@pytest.mark.filterwarnings("ignore")
def test_exif_that_lies_is_passed_over(whole: dict[str, bytes], entry: bytes) -> None:
    block = b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + entry + struct.pack(">I", 8)
    segment = b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block
    jpeg = whole["jpeg"]
    assert decode(jpeg[:2] + segment + jpeg[2:]).pixels.shape == (64, 64, 3)


@pytest.mark.parametrize("name", ["webp", "avif"])
def test_sizes_of_boxes_that_lie_are_a_corrupt_picture_or_no_matter(
    whole: dict[str, bytes], name: str
) -> None:
    data = whole[name]
    for place in range(0, min(len(data) - 4, 200), 4):
        for number in (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"):
            try:
                lying = data[:place] + number + data[place + 4 :]
                if detect_format(lying) is FORMATS[name]:
                    decode(lying)
            except ServiceError as error:
                assert error.status in {413, 422}  # noqa: PT017


# --- pictures that are something else as well


@pytest.mark.parametrize(
    "data",
    [
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"<html><script>alert(1)</script></html>",
        b"%PDF-1.7\n",
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        b"II*\0" + bytes(100),
        b"BM" + bytes(100),
        b"\x8aMNG\r\n\x1a\n" + bytes(100),
        b"PK\3\4" + bytes(100),
        b"\x80\4\x95" + bytes(100),
        b"#!/bin/sh\n",
    ],
    ids=["svg", "html", "pdf", "postscript", "tiff", "bmp", "mng", "zip", "pickle", "script"],
)
def test_only_five_formats_ever_meet_a_decoder(data: bytes) -> None:
    with pytest.raises(UnsupportedMediaTypeError):
        _detect(data)


@pytest.mark.anyio
@pytest.mark.parametrize("name", FORMATS)
async def test_of_a_polyglot_only_the_picture_comes_back(
    client: Any, whole: dict[str, bytes], name: str
) -> None:
    payload = b"<script>alert(document.cookie)</script>PK\3\4%PDF-1.7"
    response = await client.stylize(whole[name] + payload)
    assert response.status_code in {200, 422}  # some decoders want nothing behind the picture
    assert b"script" not in response.content
    assert response.headers["x-content-type-options"] == "nosniff"


# --- forms


@pytest.mark.anyio
class TestForms:
    HEAD = b"--x\r\nContent-Disposition: form-data; name="

    async def post(self, client: Any, body: bytes, boundary: str = "x") -> Any:
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        return await client.http.post("/stylize?style=ink", content=body, headers=headers)

    @pytest.mark.parametrize("part", [b'"f"\r\n\r\nx\r\n', b'"f"; filename="f"\r\n\r\nx\r\n'])
    async def test_thousands_of_parts_are_refused(self, client: Any, part: bytes) -> None:
        response = await self.post(client, (self.HEAD + part) * 20_000 + b"--x--\r\n")
        assert response.status_code == 400
        assert "Too many" in response.json()["detail"]

    async def test_a_form_inside_a_form_is_a_file_and_no_picture(
        self, client: Any, photo_jpeg: bytes
    ) -> None:
        inner = b'--y\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        inner += photo_jpeg + b"\r\n--y--\r\n"
        body = self.HEAD + b'"image"; filename="a"\r\n'
        body += b"Content-Type: multipart/mixed; boundary=y\r\n\r\n" + inner + b"\r\n--x--\r\n"
        assert (await self.post(client, body)).status_code == 415

    async def test_headers_of_a_part_without_end_are_refused(self, client: Any) -> None:
        body = b"--x\r\nContent-Disposition: form-data; name=" + b"a" * MIB
        assert (await self.post(client, body)).status_code == 400
        body = b"--x\r\n" + b"X-Header: a\r\n" * 100_000
        assert (await self.post(client, body)).status_code == 400

    @pytest.mark.parametrize("boundary", ["", "y", "x" * 5000])
    async def test_a_boundary_that_never_comes_is_refused(
        self, client: Any, boundary: str, photo_jpeg: bytes
    ) -> None:
        body = self.HEAD + b'"image"; filename="a"\r\n\r\n' + photo_jpeg + b"\r\n--x--\r\n"
        assert (await self.post(client, body, boundary)).status_code == 400

    @pytest.mark.parametrize(
        "name", ["../../etc/passwd", "..\\..\\boot.ini", "/etc/passwd", "a\0.jpg", "a" * 4000]
    )
    async def test_the_name_of_a_file_is_never_looked_at(
        self, client: Any, photo_jpeg: bytes, name: str
    ) -> None:
        body = self.HEAD + b'"image"; filename="' + name.encode() + b'"\r\n\r\n'
        response = await self.post(client, body + photo_jpeg + b"\r\n--x--\r\n")
        assert response.status_code == 200
        assert response.headers["content-disposition"] == 'inline; filename="ink.jpg"'


@pytest.mark.anyio
async def test_a_body_that_never_ends_is_given_up_at_the_deadline(client: Any) -> None:
    forever = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"\xff\xd8\xff"
        await forever.wait()

    headers = {"Content-Type": "image/jpeg", "X-Request-Timeout-Seconds": "0.2"}
    response = await client.http.post("/stylize?style=ink", content=body(), headers=headers)
    assert response.status_code == 504


# --- names and numbers


@pytest.mark.anyio
@pytest.mark.parametrize(
    "path",
    [
        "/styles/..%2f..%2fetc%2fpasswd",
        "/styles/%2e%2e/preview",
        "/styles/ink%00/preview",
        "/styles/..%5c..%5cink/preview",
        "/styles/ink%0d%0aSet-Cookie:%20a=b/preview",
        "/styles/" + "a" * 5000,
    ],
)
async def test_a_style_is_a_word_that_is_looked_up_and_never_a_path(client: Any, path: str) -> None:
    response = await client.http.get(path)
    assert response.status_code == 404
    assert "set-cookie" not in response.headers


@pytest.mark.anyio
async def test_a_style_that_would_break_a_header_is_unknown(client: Any, photo_jpeg: bytes) -> None:
    for style in ('ink"\r\nSet-Cookie: a=b', "ink\0", "../ink", "ink," * 1000):
        response = await client.http.post("/stylize", params={"style": style}, content=photo_jpeg)
        assert response.status_code in {404, 422}
        assert "set-cookie" not in response.headers


@pytest.mark.anyio
async def test_numbers_without_end_are_refused(client: Any, photo_jpeg: bytes) -> None:
    for name, value in (
        ("seed", "9" * 5000),
        ("max_side", "1e400"),
        ("strength", "0." + "0" * 5000 + "x"),
        ("quality", "9" * 5000),
        ("style", "ink:" + "9" * 5000 + ",wash:1"),
    ):
        response = await client.http.post(
            "/stylize", params={"style": "ink"} | {name: value}, content=photo_jpeg
        )
        assert response.status_code == 422, name
        assert len(response.content) < 10_000


# --- headers, on a socket


def ask(port: int, *lines: bytes) -> tuple[bytes, list[bytes]]:
    """Send a request's head; give the status line and the headers of the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(b"\r\n".join((*lines, b"Connection: close", b"", b"")))
        with connection.makefile("rb") as stream:
            head = stream.read().partition(b"\r\n\r\n")[0]
    status, *headers = head.split(b"\r\n")
    return status, [header.lower() for header in headers]


@pytest.mark.parametrize(
    "offered",
    [b"a\r\n Set-Cookie: a=b", b"a\rSet-Cookie: a=b", b"a\nSet-Cookie: a=b", b"a\0b", b"a\x85b"],
    ids=["folded", "carriage return", "line feed", "null", "next line"],
)
def test_a_request_id_can_add_no_header(server: Any, offered: bytes) -> None:
    status, headers = ask(
        server.port, b"GET /livez HTTP/1.1", b"Host: a", b"X-Request-ID: " + offered
    )
    assert status.split()[1] in {b"200", b"400"}
    assert not [header for header in headers if header.startswith(b"set-cookie")]
    (made,) = [h for h in headers if h.startswith(b"x-request-id")] or [b"x-request-id: none"]
    assert b"a=b" not in made


@pytest.mark.anyio
async def test_nothing_that_a_client_sends_can_forge_a_line_of_the_log(
    client: Any, photo_jpeg: bytes
) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("service")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    forged = '"}\n{"event":"forged","status":200}'
    try:
        await client.http.get("/" + quote(forged))
        await client.http.get("/styles/" + quote(forged))
        await client.http.post("/stylize", params={"style": forged}, content=photo_jpeg)
        await client.http.post("/stylize", files={forged: (forged, photo_jpeg, forged)})
        await client.http.get("/livez", headers={"X-Request-ID": forged.encode()})
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["request_finished"] * 5
    assert "forged" not in stream.getvalue()


# --- weights


def test_the_service_can_read_no_pickle() -> None:
    """Neither torch's nor numpy's: whoever may write one may run code."""
    root = Path(__file__).parents[2]
    for path in (*(root / "service").rglob("*.py"), *(root / "model_zoo").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", "")}
                assert not names & {"pickle", "marshal", "shelve", "dill", "joblib"}, path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                called = ast.unparse(node.func)
                assert called not in {"torch.load", "np.load", "numpy.load", "jit.load"}, path


def test_weights_that_are_a_pickle_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "style.safetensors"
    path.write_bytes(pickle.dumps({"weights": np.zeros(3)}))
    with pytest.raises(ZooError, match=r"style\.safetensors: is not a safetensors file"):
        load_generator(path, "johnson_half", {})
