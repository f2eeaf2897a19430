"""Reading a request body: what is a form, what is a picture, and what is neither."""

from __future__ import annotations

from typing import Any

import pytest

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
