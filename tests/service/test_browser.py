"""What browsers are told."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

PAGE = "https://gallery.example"


@pytest.fixture(scope="module")
async def shared(open_client: Any) -> AsyncIterator[Any]:
    async with open_client(
        cors_origins=f"{PAGE}, http://localhost:3000", runtime="torch"
    ) as client:
        yield client


@pytest.mark.parametrize(
    "path", ["/styles", "/styles/ink/preview", "/livez", "/metrics", "/nowhere", "/docs"]
)
async def test_every_answer_forbids_browsers_what_it_does_not_need(client: Any, path: str) -> None:
    headers = (await client.http.get(path)).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "server" not in headers


async def test_pictures_and_problems_have_the_headers_too(client: Any, photo_jpeg: bytes) -> None:
    for image in (photo_jpeg, b"no picture"):
        response = await client.stylize(image)
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["content-security-policy"].startswith("default-src 'none'")


async def test_docs_may_run_its_own_script_and_no_other(client: Any) -> None:
    response = await client.http.get("/docs")
    (script,) = re.findall(r"<script>(.*?)</script>", response.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = response.headers["content-security-policy"]
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert f"'sha256-{digest}'" in directives["script-src"]
    assert "unsafe" not in directives["script-src"]
    (origin,) = set(re.findall(r'(?:src|href)="(https://[^/"]+)', response.text))
    assert origin in directives["script-src"]
    assert directives["connect-src"] == "'self'"


async def test_no_other_page_may_call_unless_it_is_named(client: Any, photo_jpeg: bytes) -> None:
    response = await client.stylize(photo_jpeg, headers={"Origin": PAGE})
    assert not [name for name in response.headers if name.startswith("access-control")]
    preflight = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
    assert (await client.http.options("/stylize", headers=preflight)).status_code == 405


async def test_a_named_page_may_call_and_read_what_it_needs(shared: Any, photo_jpeg: bytes) -> None:
    asked = "authorization, x-api-key, x-request-id, x-request-timeout-seconds"
    preflight = await shared.http.options(
        "/stylize",
        headers={
            "Origin": PAGE,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": asked,
        },
    )
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == PAGE
    for image in (photo_jpeg, b"no picture"):
        response = await shared.stylize(image, headers={"Origin": PAGE})
        assert response.headers["access-control-allow-origin"] == PAGE
        assert "access-control-allow-credentials" not in response.headers
        readable = response.headers["access-control-expose-headers"]
        assert {"X-Request-ID", "Retry-After"} <= set(readable.split(", "))


async def test_a_page_that_is_not_named_may_not(shared: Any) -> None:
    headers = {"Origin": "https://gallery.example.evil.example"}
    answer = await shared.http.get("/styles", headers=headers)
    assert "access-control-allow-origin" not in answer.headers
    preflight = headers | {"Access-Control-Request-Method": "POST"}
    assert (await shared.http.options("/stylize", headers=preflight)).status_code == 400
