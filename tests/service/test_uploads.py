"""Reading a request body: what is a form, what is a picture, and what is neither."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

FORM = "multipart/form-data; boundary=x"


def part(disposition: str, value: bytes = b"ink") -> bytes:
    return b"--x\r\nContent-Disposition: form-data; " + disposition.encode() + b"\r\n\r\n" + value


async def post(client: Any, body: bytes, content_type: str = FORM, query: str = "") -> Any:
    headers = {"Content-Type": content_type} if content_type else {}
    response = await client.http.post("/stylize" + query, content=body, headers=headers)
    return response.status_code, "" if response.status_code == 200 else response.json()["detail"]


async def test_form_when_well_formed_then_is_read(client: Any, photo_jpeg: bytes) -> None:
    parts = [part('name="image"; filename="a.jpg"', photo_jpeg), part('name="style"')]
    status, _ = await post(client, b"\r\n".join([*parts, b"--x--\r\n"]))
    assert status == 200


async def test_form_may_take_parameters_from_the_query(client: Any, photo_jpeg: bytes) -> None:
    body = part('name="image"; filename="a.jpg"', photo_jpeg) + b"\r\n--x--\r\n"
    assert (await post(client, body, query="?style=ink"))[0] == 200
    status, detail = await post(client, body, query="?style=ink&style=ink")
    assert (status, detail) == (422, "style: is given more than once")


@pytest.mark.parametrize(
    ("parts", "status", "detail"),
    [
        ([part('name="style"')], 422, "image: is missing"),
        ([part('name="style"'), part('name="image"', b"text")], 422, "image: must be a file"),
        ([part('name="style"'), part('name="image"; filename=""', b"")], 422, "image: is empty"),
        ([part('name="image"; filename="a"', b"x")], 422, "style: is missing"),
        (
            [part('name="style"'), part('name="photo"; filename="a"', b"x")],
            422,
            "photo: is no parameter; there are image, style",
        ),
        (
            [part('name="image"; filename="a"', b"x"), part('name="image"; filename="b"', b"y")],
            422,
            "image: is given more than once",
        ),
        ([part("nonsense")], 400, '"name"'),
        ([part('name="style"', b"i" * 5000)], 400, "maximum size"),
        ([part(f'name="f{i}"') for i in range(40)], 400, "Too many fields"),
    ],
)
async def test_form_when_a_field_is_wrong_then_says_which(
    client: Any, parts: list[bytes], status: int, detail: str
) -> None:
    actual, said = await post(client, b"\r\n".join([*parts, b"--x--\r\n"]))
    assert actual == status
    assert detail in said


@pytest.mark.parametrize(
    ("body", "content_type"),
    [(b"--y\r\n", FORM), (b"", "multipart/form-data"), (b"--x\r\nno colon here\r\n\r\n", FORM)],
)
async def test_form_when_malformed_then_400(client: Any, body: bytes, content_type: str) -> None:
    status, detail = await post(client, body, content_type)
    assert status == 400
    assert "multipart body does not parse" in detail


async def test_form_when_its_closing_boundary_is_missing_then_400(
    client: Any, photo_jpeg: bytes
) -> None:
    parts = [part('name="image"; filename="a.jpg"', photo_jpeg), part('name="style"')]
    status, detail = await post(client, b"\r\n".join([*parts, b"--x"]))
    assert status == 400
    assert "ends before its closing boundary" in detail


@pytest.mark.parametrize("charset", ["idna", "utf-16", "punycode"])
async def test_form_when_the_charset_is_odd_then_400_or_as_usual(
    client: Any, photo_jpeg: bytes, charset: str
) -> None:
    body = part('name="image"; filename="\xe9.jpg"', photo_jpeg) + b"\r\n"
    body += part('name="style"') + b"\r\n--x--\r\n"
    status, _ = await post(client, body, f"{FORM}; charset={charset}")
    assert status in {200, 400, 404, 422}


async def test_raw_body_needs_no_content_type(client: Any, photo_jpeg: bytes) -> None:
    assert (await post(client, photo_jpeg, "", "?style=ink"))[0] == 200


async def test_raw_body_when_empty_then_422(client: Any) -> None:
    assert await post(client, b"", "image/png", "?style=ink") == (422, "image: is empty")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "imagejpeg"])
async def test_raw_body_when_no_picture_type_then_415_says_what_to_send(
    client: Any, photo_jpeg: bytes, kind: str
) -> None:
    status, detail = await post(client, photo_jpeg, kind, "?style=ink")
    assert status == 415
    assert kind in detail
    assert "image/*" in detail


async def test_body_of_exactly_the_limit_is_read_and_one_byte_more_is_not(
    open_client: Any, photo_jpeg: bytes
) -> None:
    async with open_client(max_body_bytes=len(photo_jpeg)) as client:
        assert (await post(client, photo_jpeg, "image/jpeg", "?style=ink"))[0] == 200
        status, detail = await post(client, photo_jpeg + b"\0", "image/jpeg", "?style=ink")
        assert status == 413
        assert "exceeds the limit of" in detail


class Body:
    """A body that sends ``first`` and then waits for ``go_on`` before the rest."""

    def __init__(self, whole: bytes, first: int) -> None:
        self.whole = whole
        self.first = first
        self.opened = False
        self.began = asyncio.Event()
        self.go_on = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.opened = True
        yield self.whole[: self.first]
        self.began.set()
        await self.go_on.wait()
        yield self.whole[self.first :]


def post_raw(client: Any, body: Any, **headers: str) -> asyncio.Task[Any]:
    headers["Content-Type"] = "image/jpeg"
    return asyncio.create_task(
        client.http.post("/stylize?style=ink", content=body, headers=headers)
    )


async def test_body_when_a_byte_comes_now_and_then_then_408_says_how_fast(
    open_client: Any, stub_engine: Any
) -> None:
    async def drip() -> AsyncIterator[bytes]:
        while True:
            yield b"\xff"
            await asyncio.sleep(0.005)

    async with open_client(stub_engine, body_timeout_s=0.1) as client:
        response = await post_raw(client, drip())
        assert response.status_code == 408
        assert response.json()["type"] == "urn:atelier:error:upload-too-slow"
        assert "16 KiB/s" in response.json()["detail"]
        assert response.headers["connection"] == "close"
        assert client.app.state.pipeline.gate.body_bytes == 0


async def test_body_has_a_second_more_for_each_16_kib_that_came(
    open_client: Any, stub_engine: Any, photo_jpeg: bytes
) -> None:
    whole = photo_jpeg + bytes(2**20)
    async with open_client(stub_engine, body_timeout_s=0.5) as client:
        body = Body(whole, 2**20)  # worth 64 s
        request = post_raw(client, body)
        await body.began.wait()
        await asyncio.sleep(0.7)
        body.go_on.set()
        assert (await request).status_code == 200


async def test_body_when_the_deadline_is_before_its_own_limit_then_504(
    open_client: Any, stub_engine: Any
) -> None:
    async with open_client(stub_engine) as client:
        response = await post_raw(client, Body(b"", 0), **{"X-Request-Timeout-Seconds": "0.05"})
        assert response.status_code == 504


@pytest.mark.parametrize("announced", [True, False])
async def test_body_that_does_not_fit_beside_others_is_refused_before_it_is_read(
    open_client: Any, stub_engine: Any, photo_jpeg: bytes, announced: bool
) -> None:
    length = {"Content-Length": str(len(photo_jpeg))}
    budget = len(photo_jpeg) + len(photo_jpeg) // 2
    async with open_client(stub_engine, max_body_memory_bytes=budget) as client:
        gate = client.app.state.pipeline.gate
        first = Body(photo_jpeg, 1)
        slow = post_raw(client, first, **length)
        await first.began.wait()
        assert gate.body_bytes == len(photo_jpeg)  # what it announced, not what came

        second = Body(photo_jpeg, len(photo_jpeg) - 1)
        refused = await post_raw(client, second, **(length if announced else {}))
        assert refused.status_code == 429
        assert refused.headers["retry-after"]
        assert "bytes of bodies" in refused.json()["detail"]
        assert second.opened == (not announced)
        assert gate.body_bytes == len(photo_jpeg)

        first.go_on.set()
        assert (await slow).status_code == 200
        assert (await post_raw(client, photo_jpeg)).status_code == 200
        assert gate.body_bytes == 0


async def test_body_larger_than_the_memory_for_all_is_read_alone(
    open_client: Any, stub_engine: Any, photo_jpeg: bytes
) -> None:
    async with open_client(stub_engine, max_body_memory_bytes=1024) as client:
        assert len(photo_jpeg) > 1024
        assert (await post(client, photo_jpeg, "image/jpeg", "?style=ink"))[0] == 200
