"""Whole requests: what the parameters do to the picture, and what becomes of abandoned work."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from service.formats import FORMATS
from service.images import decode_image

if TYPE_CHECKING:
    from collections.abc import Callable


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
