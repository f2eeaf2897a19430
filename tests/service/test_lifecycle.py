"""Readiness, from warm-up over hangs and draining to the end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from service.errors import DeviceLostError

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

pytestmark = pytest.mark.anyio


def assert_not_ready(response: httpx.Response, detail: str, slug: str = "not-ready") -> None:
    assert response.status_code == 503, response.text
    assert response.json()["type"] == f"urn:atelier:error:{slug}"
    assert detail in response.json()["detail"]


def let_pass_run_longer(client: Any, seconds: float) -> None:
    """Turn back the moment at which the present pass began."""
    client.app.state.lifecycle._batcher._running[0].started_s -= seconds


@pytest.fixture
def events(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Events of the lifecycle so far."""
    caplog.set_level("INFO", "service.lifecycle")
    return lambda: [r.getMessage() for r in caplog.records if r.name == "service.lifecycle"]


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
        (loop_task,) = client.app.state.lifecycle._batcher._loop_tasks
        loop_task.cancel()
        await asyncio.wait((loop_task,))
        for path in ("/readyz", "/livez"):
            assert_not_ready(await client.http.get(path), "batcher has ended", "device-lost")
        client.app.state.lifecycle._batcher._loop_tasks = []


async def test_device_when_it_hangs_then_503_with_the_reason_and_one_log_line(
    open_client: Any,
    stub_engine: Any,
    wait_until: Any,
    photo_jpeg: bytes,
    events: Callable[[], list[str]],
) -> None:
    async with open_client(stub_engine, stall_timeout_s=60) as client:
        lifecycle = client.app.state.lifecycle
        stub_engine.gate.clear()
        requests = [asyncio.create_task(client.stylize(photo_jpeg)) for _ in range(2)]
        await wait_until(lambda: stub_engine.batches == [1] and len(lifecycle._batcher) == 1)
        assert lifecycle.look() is None
        let_pass_run_longer(client, 61)
        for path in ("/readyz", "/livez"):
            assert_not_ready(await client.http.get(path), "longer than 60 s", "device-lost")
        assert "atelier_device_up 0.0" in (await client.http.get("/metrics")).text
        assert_not_ready(await client.stylize(photo_jpeg), "61 s", "device-lost")

        assert "longer than 60 s" in lifecycle.look()
        assert lifecycle.look()
        for response in await asyncio.gather(*requests):  # though the device still holds one
            assert_not_ready(response, "another instance", "device-lost")
        assert events().count("device_lost") == 1
        stalls = 'atelier_runtime_faults_total{fault="stalled"} 1.0'
        assert stalls in (await client.http.get("/metrics")).text

        stub_engine.gate.set()
        await wait_until(lambda: lifecycle.look() is None)
        assert (await client.stylize(photo_jpeg)).status_code == 200
        assert "atelier_device_up 1.0" in (await client.http.get("/metrics")).text
    assert stub_engine.batches == [1, 1]  # the one that waited was never painted


async def test_pass_of_many_megapixels_is_no_hang_for_as_many_times_the_limit(
    open_client: Any, stub_engine: Any, wait_until: Any, encode: Any
) -> None:
    large = encode(Image.new("RGB", (2048, 2048), "white"), "png")
    async with open_client(stub_engine, stall_timeout_s=60) as client:
        stub_engine.gate.clear()
        request = asyncio.create_task(client.stylize(large, max_side="2048"))
        await wait_until(lambda: stub_engine.batches == [1])
        let_pass_run_longer(client, 200)
        assert (await client.http.get("/livez")).status_code == 200
        let_pass_run_longer(client, 60)
        assert_not_ready(await client.http.get("/livez"), "251.658 s", "device-lost")
        stub_engine.gate.set()
        assert (await request).status_code == 200


async def test_device_when_it_hangs_in_warm_up_then_is_lost(
    open_client: Any, stub_engine: Any, wait_until: Any
) -> None:
    stub_engine.gate.clear()
    async with open_client(stub_engine, until_ready=False, stall_timeout_s=60) as client:
        lifecycle = client.app.state.lifecycle
        assert (await client.http.get("/livez")).status_code == 200
        await wait_until(lambda: lifecycle._warm_up_began_s is not None)
        lifecycle._warm_up_began_s -= 121  # of two styles
        assert_not_ready(await client.http.get("/livez"), "longer than 120 s", "device-lost")
        stub_engine.gate.set()
        await lifecycle.settle()
        assert (await client.http.get("/readyz")).status_code == 200


async def test_device_when_it_breaks_down_then_is_lost_for_good(
    open_client: Any, stub_engine: Any, photo_jpeg: bytes
) -> None:
    async with open_client(stub_engine) as client:
        stub_engine.fault = DeviceLostError("the device broke down")
        assert_not_ready(await client.stylize(photo_jpeg), "broke down", "device-lost")
        stub_engine.fault = None
        for path in ("/readyz", "/livez"):
            assert_not_ready(await client.http.get(path), "broke down", "device-lost")
        assert client.app.state.lifecycle.look() == "the device broke down"


async def test_batch_that_fails_loses_no_device(
    open_client: Any, stub_engine: Any, photo_jpeg: bytes
) -> None:
    async with open_client(stub_engine) as client:
        stub_engine.fault = RuntimeError("a kernel of this pass alone")
        assert (await client.stylize(photo_jpeg)).status_code == 500
        stub_engine.fault = None
        assert (await client.http.get("/livez")).status_code == 200
        assert (await client.stylize(photo_jpeg)).status_code == 200


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


async def test_close_when_the_device_hangs_then_ends_and_says_so(
    open_client: Any,
    stub_engine: Any,
    wait_until: Any,
    photo_jpeg: bytes,
    events: Callable[[], list[str]],
) -> None:
    async with open_client(stub_engine) as client:
        lifecycle = client.app.state.lifecycle
        stub_engine.gate.clear()
        request = asyncio.create_task(client.stylize(photo_jpeg))
        await wait_until(lambda: bool(stub_engine.batches))
        await lifecycle.aclose(within_s=0.01)
        assert lifecycle.unfinished
        assert events()[-1] == "shutdown_unfinished"
        assert not request.done()
        stub_engine.gate.set()
        await request


async def test_close_when_warm_up_hangs_then_ends_and_the_warm_up_is_not_cancelled(
    open_client: Any, stub_engine: Any
) -> None:
    stub_engine.gate.clear()
    async with open_client(stub_engine, until_ready=False) as client:
        lifecycle = client.app.state.lifecycle
        await lifecycle.aclose(within_s=0.01)
        assert lifecycle.unfinished
        stub_engine.gate.set()
        await lifecycle.settle()
        assert lifecycle.fault is None


async def test_warm_up_that_fails_is_a_fault_and_never_ready(
    open_client: Any, stub_engine: Any
) -> None:
    stub_engine.fault = RuntimeError("no kernel for this device")
    async with open_client(stub_engine) as client:
        assert client.app.state.lifecycle.fault == "warm-up failed: no kernel for this device"
        assert (await client.http.get("/readyz")).status_code == 503
