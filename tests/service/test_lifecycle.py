"""Readiness, from warm-up over hangs and draining to the end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import httpx

pytestmark = pytest.mark.anyio


def assert_not_ready(response: httpx.Response, detail: str) -> None:
    assert response.status_code == 503, response.text
    assert response.json()["type"] == "urn:atelier:error:not-ready"
    assert detail in response.json()["detail"]


async def test_stylize_when_warming_up_then_503_with_retry_after(
    open_client: Any, stub_engine: Any, photo_jpeg: bytes
) -> None:
    stub_engine.gate.clear()
    async with open_client(stub_engine, until_ready=False) as client:
        assert (await client.http.get("/livez")).json() == {"status": "alive"}
        for response in (await client.stylize(photo_jpeg), await client.http.get("/readyz")):
            assert_not_ready(response, "warming up")
            assert response.headers["retry-after"]
        stub_engine.gate.set()


async def test_readyz_when_the_batcher_has_died_then_503(
    open_client: Any, stub_engine: Any
) -> None:
    async with open_client(stub_engine) as client:
        assert (await client.http.get("/readyz")).json() == {"status": "ready"}
        loop_task = client.app.state.lifecycle._batcher._loop_task
        loop_task.cancel()
        await asyncio.wait((loop_task,))
        assert_not_ready(await client.http.get("/readyz"), "batcher has ended")
        assert (await client.http.get("/livez")).status_code == 200
        client.app.state.lifecycle._batcher._loop_task = None


async def test_readyz_when_a_batch_hangs_then_503(
    open_client: Any, stub_engine: Any, wait_until: Any, photo_jpeg: bytes
) -> None:
    async with open_client(stub_engine, stall_timeout_s=0.05) as client:
        stub_engine.gate.clear()
        hanging = asyncio.create_task(client.stylize(photo_jpeg))
        await wait_until(lambda: stub_engine.batches == [1])
        await asyncio.sleep(0.1)
        assert_not_ready(await client.http.get("/readyz"), "0.05 s")
        stub_engine.gate.set()
        assert (await hanging).status_code == 200
        assert (await client.http.get("/readyz")).status_code == 200


async def test_draining_turns_readiness_off_and_goes_on_painting(
    client: Any, photo_jpeg: bytes
) -> None:
    lifecycle = client.app.state.lifecycle
    assert lifecycle.is_ready
    lifecycle.drain()
    try:
        readiness = await client.http.get("/readyz")
        assert readiness.status_code == 503
        assert "draining" in readiness.json()["detail"]
        assert (await client.stylize(photo_jpeg)).status_code == 200
    finally:
        lifecycle._state = "ready"


async def test_close_finishes_what_is_in_flight(
    open_client: Any, stub_engine: Any, wait_until: Any, photo_jpeg: bytes
) -> None:
    async with open_client(stub_engine) as client:
        stub_engine.gate.clear()
        request = asyncio.create_task(client.stylize(photo_jpeg))
        await wait_until(lambda: bool(stub_engine.batches))
        closing = asyncio.create_task(client.app.state.lifecycle.aclose())
        await asyncio.sleep(0.01)
        stub_engine.gate.set()
        await closing
        assert (await request).status_code == 200
        assert (await client.stylize(photo_jpeg)).status_code == 503


async def test_warm_up_that_fails_is_a_fault_and_never_ready(
    open_client: Any, stub_engine: Any
) -> None:
    stub_engine.fault = RuntimeError("no kernel for this device")
    async with open_client(stub_engine) as client:
        assert client.app.state.lifecycle.fault == "warm-up failed: no kernel for this device"
        assert (await client.http.get("/readyz")).status_code == 503
