"""The HTTP contract, through real requests to the application."""

from __future__ import annotations

import asyncio
import io
import struct
import zlib
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from service.formats import ENCODABLE, FORMATS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import httpx

pytestmark = pytest.mark.anyio


def open_answer(response: httpx.Response) -> Image.Image:
    assert response.status_code == 200, response.text
    return Image.open(io.BytesIO(response.content))


def assert_problem(response: httpx.Response, status: int, *, slug: str, detail: str = "") -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["type"] == f"urn:atelier:error:{slug}"
    assert problem["status"] == status
    assert problem["request_id"] == response.headers["x-request-id"]
    assert problem["instance"] == response.request.url.path
    assert problem["title"]
    assert detail in problem["detail"]


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises width x height pixels and holds none."""
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


async def test_stylize_when_asked_by_form_then_paints_at_the_same_size(
    client: Any, photo_jpeg: bytes
) -> None:
    response = await client.stylize(photo_jpeg)
    answer = open_answer(response)
    assert answer.size == (96, 64)
    assert answer.format == "JPEG"
    assert response.headers["content-type"] == "image/jpeg"
    assert response.headers["vary"] == "Accept"
    assert response.headers["content-disposition"] == 'inline; filename="ink.jpg"'


async def test_stylize_when_asked_by_raw_body_then_gives_the_same_bytes(
    client: Any, photo_jpeg: bytes
) -> None:
    form = await client.stylize(photo_jpeg, keep_colors="true", strength="0.5")
    for media_type in ("image/jpeg", "application/octet-stream", "image/made-up"):
        raw = await client.http.post(
            "/stylize?style=ink&keep_colors=true&strength=0.5",
            content=photo_jpeg,
            headers={"Content-Type": media_type},
        )
        assert raw.content == form.content


async def test_stylize_when_repeated_then_gives_the_same_bytes(
    client: Any, photo_jpeg: bytes
) -> None:
    first, second = [await client.stylize(photo_jpeg, format="png") for _ in range(2)]
    assert first.content == second.content


async def test_stylize_when_style_differs_then_the_picture_differs(
    client: Any, photo_jpeg: bytes
) -> None:
    ink, wash = [await client.stylize(photo_jpeg, style) for style in ("ink", "wash")]
    assert ink.content != wash.content


async def test_stylize_then_server_timing_names_every_stage(client: Any, photo_jpeg: bytes) -> None:
    timing = (await client.stylize(photo_jpeg)).headers["server-timing"]
    stages = dict(entry.split(";dur=") for entry in timing.split(", "))
    assert list(stages) == ["decode", "queue", "stylize", "encode"]
    assert all(float(milliseconds) >= 0 for milliseconds in stages.values())


@pytest.mark.parametrize("side", [338, 17])
async def test_stylize_when_side_is_no_multiple_then_keeps_it(
    client: Any,
    side: int,
    photograph: Callable[..., Image.Image],
    encode: Callable[..., bytes],
) -> None:
    response = await client.stylize(encode(photograph(side, 33), "png"))
    assert open_answer(response).size == (side, 33)


async def test_stylize_when_max_side_is_given_then_shrinks_and_never_enlarges(
    client: Any, photo_jpeg: bytes
) -> None:
    assert open_answer(await client.stylize(photo_jpeg, max_side="48")).size == (48, 32)
    assert open_answer(await client.stylize(photo_jpeg, max_side="2000")).size == (96, 64)


@pytest.mark.parametrize("target", ENCODABLE, ids=lambda row: row.name)
@pytest.mark.parametrize("source", FORMATS.values(), ids=lambda row: row.name)
async def test_stylize_reads_every_format_and_writes_every_encodable_one(
    client: Any,
    source: Any,
    target: Any,
    photograph: Callable[..., Image.Image],
    encode: Callable[..., bytes],
) -> None:
    response = await client.stylize(encode(photograph(48, 32), source.name), format=target.name)
    answer = open_answer(response)
    assert (answer.format or "").lower() == target.name
    assert response.headers["content-type"] == target.media_type
    assert answer.size == (48, 32)


@pytest.mark.parametrize(
    ("source", "accept", "expected"),
    [
        ("png", "", "image/png"),
        ("webp", "*/*", "image/webp"),
        ("avif", "", "image/jpeg"),
        ("gif", "image/*", "image/jpeg"),
        ("jpeg", "image/webp", "image/webp"),
        ("jpeg", "image/webp;q=0.5, image/png", "image/png"),
        ("png", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "image/png"),
        ("webp", "image/png, image/jpeg, image/webp;q=0", "image/jpeg"),
    ],
)
async def test_stylize_when_no_format_is_asked_then_accept_and_the_source_decide(
    client: Any,
    source: str,
    accept: str,
    expected: str,
    photograph: Callable[..., Image.Image],
    encode: Callable[..., bytes],
) -> None:
    image = encode(photograph(32, 32), source)
    response = await client.stylize(image, headers={"Accept": accept})
    assert response.headers["content-type"] == expected


async def test_stylize_when_accept_is_repeated_then_all_of_it_counts(
    client: Any, photo_jpeg: bytes
) -> None:
    headers = [("Accept", "text/html"), ("Accept", "image/webp")]
    response = await client.stylize(photo_jpeg, headers=headers)
    assert response.headers["content-type"] == "image/webp"


async def test_stylize_when_format_is_asked_then_it_wins_over_accept(
    client: Any, photo_jpeg: bytes
) -> None:
    response = await client.stylize(photo_jpeg, format="png", headers={"Accept": "text/html"})
    assert response.headers["content-type"] == "image/png"


async def test_stylize_when_nothing_is_acceptable_then_406(client: Any, photo_jpeg: bytes) -> None:
    response = await client.stylize(photo_jpeg, headers={"Accept": "text/html, image/avif"})
    assert_problem(response, 406, slug="not-acceptable", detail="image/webp")


async def test_stylize_when_the_style_is_unknown_then_404(client: Any, photo_jpeg: bytes) -> None:
    response = await client.stylize(photo_jpeg, "cubism")
    assert_problem(response, 404, slug="style-not-found", detail="ink, wash")


async def test_stylize_when_the_picture_is_missing_then_422(client: Any) -> None:
    response = await client.http.post("/stylize", files={}, params={"style": "ink"})
    assert_problem(response, 422, slug="invalid-parameter", detail="image")


async def test_stylize_when_text_is_sent_as_a_picture_then_415(client: Any) -> None:
    response = await client.stylize(b"I am no picture")
    assert_problem(response, 415, slug="unsupported-media-type", detail="JPEG, PNG")


async def test_stylize_when_the_body_is_json_then_415(client: Any) -> None:
    response = await client.http.post("/stylize", json={"style": "ink"})
    assert_problem(response, 415, slug="unsupported-media-type", detail="multipart/form-data")


async def test_stylize_when_the_jpeg_is_cut_short_then_422(client: Any, photo_jpeg: bytes) -> None:
    response = await client.stylize(photo_jpeg[: len(photo_jpeg) // 2])
    assert_problem(response, 422, slug="corrupt-image", detail="JPEG")


async def test_stylize_when_the_picture_is_one_pixel_then_422(
    client: Any, encode: Callable[..., bytes]
) -> None:
    response = await client.stylize(encode(Image.new("RGB", (1, 1)), "png"))
    assert_problem(response, 422, slug="image-too-small", detail="1x1 px is below the least side")


async def test_stylize_when_the_header_promises_too_many_pixels_then_413(client: Any) -> None:
    response = await client.stylize(png_header(10_000, 6_100))
    assert_problem(
        response, 413, slug="image-too-large", detail="61.0 MP exceeds the limit of 50.0 MP"
    )


async def test_stylize_when_the_body_is_too_large_then_413(client: Any) -> None:
    response = await client.stylize(b"\xff\xd8\xff" + bytes(21 * 2**20))
    assert_problem(response, 413, slug="body-too-large", detail="exceeds the limit of 20.0 MiB")


async def test_stylize_when_a_chunked_body_is_too_large_then_413(
    open_client: Any, photo_jpeg: bytes
) -> None:
    async def chunks() -> Any:
        for _ in range(10):
            yield photo_jpeg

    async with open_client(max_body_bytes=4 * len(photo_jpeg)) as client:
        response = await client.http.post(
            "/stylize?style=ink", content=chunks(), headers={"Content-Type": "image/jpeg"}
        )
        assert_problem(response, 413, slug="body-too-large", detail="MiB")


@pytest.mark.parametrize(
    ("parameters", "detail"),
    [
        ({"strength": "2"}, "strength: "),
        ({"strength": "nan"}, "strength: "),
        ({"quality": "0"}, "quality: "),
        ({"max_side": "0"}, "max_side: "),
        ({"max_side": "5000"}, "max_side: 5000 exceeds the limit of 4096"),
        ({"keep_colors": "perhaps"}, "keep_colors: "),
        ({"format": "gif"}, "format: "),
        ({"seed": "-1"}, "seed: "),
        ({"styel": "ink"}, "styel: is no parameter"),
        ({"style": ["ink", "wash"]}, "style: is given more than once"),
    ],
)
async def test_stylize_when_a_parameter_is_bad_then_422_names_it(
    client: Any, photo_jpeg: bytes, parameters: dict[str, Any], detail: str
) -> None:
    response = await client.stylize(photo_jpeg, **parameters)
    assert_problem(response, 422, slug="invalid-parameter", detail=detail)


async def test_stylize_when_the_timeout_header_is_bad_then_422_names_it(
    client: Any, photo_jpeg: bytes
) -> None:
    headers = {"X-Request-Timeout-Seconds": "soon"}
    response = await client.stylize(photo_jpeg, headers=headers)
    assert_problem(response, 422, slug="invalid-parameter", detail="timeout-seconds")


async def test_stylize_when_too_many_are_in_flight_then_429_with_retry_after(
    open_client: Any, stub_engine: Any, wait_until: Any, photo_jpeg: bytes
) -> None:
    async with open_client(stub_engine, max_in_flight=1) as client:
        stub_engine.gate.clear()
        first = asyncio.create_task(client.stylize(photo_jpeg))
        await wait_until(lambda: stub_engine.batches == [1])
        response = await client.stylize(photo_jpeg)
        assert_problem(response, 429, slug="busy", detail="limit of 1")
        assert 1 <= int(response.headers["retry-after"]) <= 60
        stub_engine.gate.set()
        assert (await first).status_code == 200
        assert (await client.stylize(photo_jpeg)).status_code == 200


async def test_stylize_when_the_clients_deadline_passes_then_504(
    open_client: Any, stub_engine: Any, photo_jpeg: bytes
) -> None:
    async with open_client(stub_engine) as client:
        stub_engine.gate.clear()
        headers = {"X-Request-Timeout-Seconds": "0.2"}
        response = await client.stylize(photo_jpeg, headers=headers)
        assert_problem(response, 504, slug="deadline-passed", detail="0.2 s")
        stub_engine.gate.set()


async def test_stylize_when_the_engine_fails_then_500_without_internals(
    open_client: Any, stub_engine: Any, photo_jpeg: bytes
) -> None:
    async with open_client(stub_engine) as client:
        stub_engine.fault = RuntimeError("secret path /etc")
        response = await client.stylize(photo_jpeg)
        assert_problem(response, 500, slug="internal")
        assert "secret" not in response.text


async def test_styles_lists_the_zoo_in_order(client: Any) -> None:
    styles = (await client.http.get("/styles")).json()["styles"]
    assert [style["id"] for style in styles] == ["ink", "wash"]
    assert styles[0] == (await client.http.get("/styles/ink")).json()
    assert styles[0]["preview_url"] == "/styles/ink/preview"
    assert styles[0]["weights_license"] == "Apache-2.0"


@pytest.mark.parametrize("path", ["/styles", "/styles/ink/preview", "/livez", "/metrics"])
async def test_head_is_answered_as_get_without_the_body(client: Any, path: str) -> None:
    get, head = await client.http.get(path), await client.http.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == get.headers["content-type"]


async def test_a_slash_too_many_is_404_and_leads_nowhere_else(client: Any) -> None:
    response = await client.http.get("/styles/", headers={"Host": "elsewhere.example"})
    assert_problem(response, 404, slug="not-found")


async def test_preview_is_served_though_an_export_replaced_its_file(
    make_zoo: Any, open_client: Any, tmp_path: Path
) -> None:
    previews = sorted(make_zoo(tmp_path).glob("*.jpg"))
    async with open_client(zoo=tmp_path) as client:
        for path in previews:
            path.unlink()
        assert (await client.http.get("/styles/ink/preview")).status_code == 200


async def test_preview_is_a_jpeg(client: Any) -> None:
    answer = open_answer(await client.http.get("/styles/wash/preview"))
    assert answer.format == "JPEG"


@pytest.mark.parametrize("path", ["/styles", "/styles/ink", "/styles/ink/preview"])
async def test_styles_when_the_client_holds_the_etag_then_304(client: Any, path: str) -> None:
    first = await client.http.get(path)
    etag = first.headers["etag"]
    assert etag.startswith('"')
    assert "max-age" in first.headers["cache-control"]
    for held in (etag, f'W/"other", W/{etag}', "*"):
        again = await client.http.get(path, headers={"If-None-Match": held})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == etag
    changed = await client.http.get(path, headers={"If-None-Match": '"other"'})
    assert changed.content == first.content


@pytest.mark.parametrize("path", ["/styles/none", "/styles/none/preview"])
async def test_styles_when_the_style_is_unknown_then_404(client: Any, path: str) -> None:
    assert_problem(await client.http.get(path), 404, slug="style-not-found", detail="none")


async def test_openapi_documents_bodies_pictures_and_problems(client: Any) -> None:
    operation = (await client.http.get("/openapi.json")).json()["paths"]["/stylize"]["post"]
    assert set(operation["requestBody"]["content"]) == {
        "multipart/form-data",
        "image/*",
        "application/octet-stream",
    }
    form = operation["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert {"image", "style", "max_side", "keep_colors", "strength", "seed"} < set(
        form["properties"]
    )
    assert form["required"] == ["image", "style"]
    assert set(operation["responses"]["200"]["content"]) == {row.media_type for row in ENCODABLE}
    for status in (400, 404, 406, 408, 413, 415, 422, 429, 500, 503, 504):
        assert "application/problem+json" in operation["responses"][str(status)]["content"]
