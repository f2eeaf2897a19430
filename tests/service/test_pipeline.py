"""Whole requests: what the parameters do to the picture, and what becomes of abandoned work."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from service.deadlines import Deadline
from service.errors import DeadlineError
from service.formats import FORMATS
from service.images import decode_image
from service.keys import hash_key
from service.pipeline import StyleRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx

pytestmark = pytest.mark.anyio


async def test_strength_0_is_the_resized_photograph_itself(client: Any, photo_jpeg: bytes) -> None:
    photo = decode_image(
        photo_jpeg, FORMATS["jpeg"], max_side_px=48, max_source_pixels=10**6, min_side_px=1
    )
    painted = await client.paint(photo_jpeg, strength="0", max_side="48")
    assert np.array_equal(painted, photo.pixels)


async def test_strength_lies_between_photograph_and_painting(
    client: Any, photo_jpeg: bytes
) -> None:
    photo, half, whole = [
        (await client.paint(photo_jpeg, strength=s)).astype(int) for s in ("0", "0.5", "1")
    ]
    assert np.abs(half - (photo + whole) / 2).max() <= 0.5
    assert not np.array_equal(photo, whole)


async def test_keep_colors_of_a_grey_photograph_gives_a_grey_painting(
    client: Any, photograph: Callable[..., Image.Image], encode: Callable[..., bytes]
) -> None:
    grey = encode(photograph().convert("L"), "png")
    colored = (await client.paint(grey)).astype(int)
    assert np.ptp(colored, axis=2).max() > 20
    kept = (await client.paint(grey, keep_colors="true")).astype(int)
    assert np.ptp(kept, axis=2).max() <= 1


async def test_transparency_comes_back_where_the_format_has_it(
    client: Any, photograph: Callable[..., Image.Image], encode: Callable[..., bytes]
) -> None:
    picture = photograph().convert("RGBA")
    picture.paste((0, 0, 0, 0), (0, 0, 30, 64))
    painted = await client.paint(encode(picture, "png"))
    assert np.array_equal(painted[..., 3], np.asarray(picture)[..., 3])


async def test_requests_of_one_style_and_size_share_a_batch(
    open_client: Any, stub_engine: Any, wait_until: Any, photo_jpeg: bytes
) -> None:
    async with open_client(stub_engine, max_batch_jobs=8) as client:
        stub_engine.gate.clear()
        requests = [asyncio.create_task(client.stylize(photo_jpeg))]
        await wait_until(lambda: stub_engine.batches == [1])
        requests += [asyncio.create_task(client.stylize(photo_jpeg)) for _ in range(3)]
        pipeline = client.app.state.pipeline
        await wait_until(lambda: len(pipeline._batcher) == 3)
        stub_engine.gate.set()
        assert {response.status_code for response in await asyncio.gather(*requests)} == {200}
    assert stub_engine.batches == [1, 3]


@pytest.mark.parametrize(("device", "batches"), [("cpu", [1, 1, 1]), ("cuda", [1, 2])])
async def test_batches_are_made_where_they_pay(
    open_client: Any,
    stub_engine: Any,
    wait_until: Any,
    photo_jpeg: bytes,
    device: str,
    batches: list[int],
) -> None:
    stub_engine.device = device
    async with open_client(stub_engine) as client:
        stub_engine.gate.clear()
        requests = [asyncio.create_task(client.stylize(photo_jpeg))]
        await wait_until(lambda: stub_engine.batches == [1])
        requests += [asyncio.create_task(client.stylize(photo_jpeg)) for _ in range(2)]
        await wait_until(lambda: len(client.app.state.pipeline._batcher) == 2)
        stub_engine.gate.set()
        await asyncio.gather(*requests)
    assert stub_engine.batches == batches


async def test_cancelled_request_is_never_painted_and_leaves_the_gate(
    open_client: Any, stub_engine: Any, wait_until: Any, photo_jpeg: bytes
) -> None:
    async with open_client(stub_engine) as client:
        stub_engine.gate.clear()
        pipeline = client.app.state.pipeline
        painting = asyncio.create_task(client.stylize(photo_jpeg))
        await wait_until(lambda: bool(stub_engine.batches))
        queued = asyncio.create_task(client.stylize(photo_jpeg))
        await wait_until(lambda: len(pipeline._batcher) == 1)
        queued.cancel()
        await wait_until(lambda: pipeline.gate.in_flight == 1)
        stub_engine.gate.set()
        assert (await painting).status_code == 200
        assert pipeline.gate.in_flight == 0
    assert stub_engine.batches == [1]


async def test_deadline_that_passes_in_the_queue_keeps_the_picture_from_being_painted(
    open_client: Any, stub_engine: Any, wait_until: Any, photo_jpeg: bytes
) -> None:
    async with open_client(stub_engine) as client:
        stub_engine.gate.clear()
        painting = asyncio.create_task(client.stylize(photo_jpeg))
        await wait_until(lambda: bool(stub_engine.batches))
        late = await client.stylize(photo_jpeg, headers={"X-Request-Timeout-Seconds": "0.1"})
        assert late.status_code == 504
        stub_engine.gate.set()
        assert (await painting).status_code == 200
    assert stub_engine.batches == [1]


class BusyPool(ThreadPoolExecutor):
    """One codec thread, which counts what it runs and is held up while ``free`` is not set."""

    def __init__(self) -> None:
        super().__init__(1)
        self.ran = 0
        self.free = threading.Event()
        self.free.set()

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        def run() -> Any:
            self.ran += 1
            return function(*args, **kwargs)

        return super().submit(run)

    def hold_up(self) -> None:
        self.free.clear()
        super().submit(self.free.wait, 20)


@pytest.fixture
def pool() -> Iterator[BusyPool]:
    with BusyPool() as pool:
        yield pool
        pool.free.set()


@pytest.mark.parametrize("how", ["deadline", "hang-up"])
async def test_abandoned_request_that_waits_for_a_codec_thread_is_never_decoded(
    open_client: Any, stub_engine: Any, wait_until: Any, pool: BusyPool, photo_jpeg: bytes, how: str
) -> None:
    async with open_client(stub_engine) as client:
        pipeline = client.app.state.pipeline
        pipeline._codec_pool = pool
        pool.hold_up()
        if how == "deadline":
            headers = {"X-Request-Timeout-Seconds": "0.1"}
            late = await client.stylize(photo_jpeg, headers=headers)
            assert late.status_code == 504
            assert "0.1 s" in late.json()["detail"]
        else:
            gone = asyncio.create_task(client.stylize(photo_jpeg))
            await wait_until(lambda: pipeline.gate.in_flight == 1)
            gone.cancel()
            await wait_until(lambda: pipeline.gate.in_flight == 0)
        pool.free.set()
        assert (await client.stylize(photo_jpeg)).status_code == 200
        assert pool.ran == 3  # of the second alone: its header, decoding, encoding
        assert stub_engine.batches == [1]


async def test_deadline_that_passes_before_encoding_keeps_the_answer_from_being_encoded(
    open_client: Any, stub_engine: Any, wait_until: Any, pool: BusyPool, photo_jpeg: bytes
) -> None:
    async with open_client(stub_engine) as client:
        client.app.state.pipeline._codec_pool = pool
        stub_engine.gate.clear()
        headers = {"X-Request-Timeout-Seconds": "1"}
        request = asyncio.create_task(client.stylize(photo_jpeg, headers=headers))
        await wait_until(lambda: stub_engine.batches == [1])
        pool.hold_up()
        stub_engine.gate.set()
        assert (await request).status_code == 504
        pool.free.set()
        pool.shutdown()
        assert pool.ran == 2


async def test_codec_thread_that_comes_free_too_late_runs_nothing(
    open_client: Any, stub_engine: Any, pool: BusyPool
) -> None:
    """Even where the event loop is too busy to notice the deadline itself."""
    async with open_client(stub_engine) as client:
        pipeline = client.app.state.pipeline
        pipeline._codec_pool = pool
        request = StyleRequest(
            image=b"no picture",
            style="ink",
            formats=(FORMATS["png"],),
            deadline=Deadline.after(0),
            max_side_px=64,
            quality=90,
        )
        with pytest.raises(DeadlineError):
            await pipeline._on_codec_pool(request, pytest.fail, "it ran")


@pytest.mark.parametrize(("asked", "own_timeout_s"), [("0.05", 3600), ("1e9", 0.05), ("inf", 0.05)])
async def test_the_shorter_of_the_clients_timeout_and_the_services_own_counts(
    open_client: Any, stub_engine: Any, photo_jpeg: bytes, asked: str, own_timeout_s: float
) -> None:
    async with open_client(stub_engine, request_timeout_s=own_timeout_s) as client:
        stub_engine.gate.clear()
        headers = {"X-Request-Timeout-Seconds": asked}
        assert (await client.stylize(photo_jpeg, headers=headers)).status_code == 504
        stub_engine.gate.set()


async def test_picture_whose_pixels_do_not_fit_is_refused_before_it_is_decoded(
    open_client: Any, stub_engine: Any, wait_until: Any, photo_jpeg: bytes, encode: Any
) -> None:
    # Its header is whole and nothing behind it, so that decoding it would be 422.
    large = encode(Image.new("RGB", (400, 300)), "png")[:60]
    async with open_client(stub_engine, max_in_flight_pixels=100_000) as client:
        stub_engine.gate.clear()
        gate = client.app.state.pipeline.gate
        first = asyncio.create_task(client.stylize(photo_jpeg))
        await wait_until(lambda: stub_engine.batches == [1])
        assert gate.pixels == 96 * 64
        refused = await client.stylize(large)
        assert refused.status_code == 429
        assert refused.headers["retry-after"]
        assert "120,000 more exceed the limit of 100,000" in refused.json()["detail"]
        assert gate.pixels == 96 * 64
        stub_engine.gate.set()
        assert (await first).status_code == 200
        assert (await client.stylize(large)).status_code == 422  # alone it has its turn
        assert gate.pixels == 0


async def test_large_picture_holds_only_what_is_left_of_it_once_decoded(
    open_client: Any, stub_engine: Any, wait_until: Any, encode: Any
) -> None:
    large = encode(Image.new("RGB", (400, 300)), "png")
    async with open_client(stub_engine) as client:
        stub_engine.gate.clear()
        request = asyncio.create_task(client.stylize(large, max_side="40"))
        await wait_until(lambda: stub_engine.batches == [1])
        assert client.app.state.pipeline.gate.pixels == 40 * 30
        stub_engine.gate.set()
        assert (await request).status_code == 200


async def test_one_caller_cannot_take_the_places_of_the_rest(
    open_client: Any, stub_engine: Any, wait_until: Any, photo_jpeg: bytes
) -> None:
    keys = ",".join(f"{caller}={hash_key(caller)}" for caller in ("greedy", "modest"))
    async with open_client(stub_engine, max_in_flight=4, api_keys=keys) as client:
        gate = client.app.state.pipeline.gate

        def stylize(caller: str) -> asyncio.Task[httpx.Response]:
            headers = {"X-API-Key": caller}
            return asyncio.create_task(client.stylize(photo_jpeg, headers=headers))

        stub_engine.gate.clear()
        greedy = [stylize("greedy") for _ in range(10)]
        await wait_until(lambda: sum(task.done() for task in greedy) == 8)
        assert gate.in_flight == 2
        modest = stylize("modest")
        await wait_until(lambda: gate.in_flight == 3)
        stub_engine.gate.set()
        assert (await modest).status_code == 200
        answers = await asyncio.gather(*greedy)
        refused = [answer for answer in answers if answer.status_code == 429]
        assert len(refused) == 8
        assert all("your share of 2 of 4" in r.json()["detail"] for r in refused)


async def test_format_that_cannot_hold_the_picture_is_refused_before_it_is_painted(
    open_client: Any, stub_engine: Any, encode: Callable[..., bytes]
) -> None:
    """WebP ends at 16,383 px; where the client takes another format as well, that answers."""
    strip = encode(Image.new("RGB", (16_384, 16), "white"), "png")
    async with open_client(stub_engine, max_side_px=16_384) as client:
        stub_engine.batches.clear()
        refused = await client.stylize(strip, max_side="16384", format="webp")
        assert refused.status_code == 413
        assert "16384 px exceeds the 16383 px" in refused.json()["detail"]
        assert stub_engine.batches == []
        headers = {"Accept": "image/webp, image/jpeg"}
        answered = await client.stylize(strip, max_side="16384", headers=headers)
        assert answered.status_code == 200
        assert answered.headers["content-type"] == "image/jpeg"
