from __future__ import annotations

from typing import Any

import pytest

from service.answers import CHUNK_BYTES, PictureResponse

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("length", [0, 1, CHUNK_BYTES, 3 * CHUNK_BYTES + 7])
async def test_answer_is_sent_in_parts_between_which_the_server_can_wait(length: int) -> None:
    body = bytes(range(256)) * (length // 256 + 1)
    messages: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        messages.append(message)

    await PictureResponse(body[:length], media_type="image/png")({}, None, send)  # type: ignore[arg-type]

    start, *parts = messages
    assert (start["type"], start["status"]) == ("http.response.start", 200)
    assert dict(start["headers"])[b"content-length"] == str(length).encode()
    assert b"".join(part["body"] for part in parts) == body[:length]
    assert max(len(part["body"]) for part in parts) <= CHUNK_BYTES
    assert [part["more_body"] for part in parts] == [True] * (len(parts) - 1) + [False]
