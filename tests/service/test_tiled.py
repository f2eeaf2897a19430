"""Large pictures over HTTP: painted in tiles, between the jobs of others."""

from __future__ import annotations

import asyncio
import io
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from model_zoo.cards import Manifest
from service.jobs import Job, MeasureJob, StyleJob, TileJob
from service.stylizer import Stylizer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from model_zoo.cards import StyleCard
    from service.tiles import TileLayout

pytestmark = pytest.mark.anyio

SMALL_BUDGET_BYTES = 16 * 2**20
TILES = 12


class WatchedStylizer(Stylizer):
    """Remembers its jobs; has no memory for passes over more than ``largest_px``."""

    largest_px = 10**9

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.jobs: list[Job] = []

    def layout(self, card: StyleCard) -> TileLayout | None:
        """Cut as ever, but measure the whole: a sample tells little of random weights."""
        layout = super().layout(card)
        return layout and replace(layout, sample_px=10**9)

    def _run(self, jobs: Sequence[Job], pixel_count: int) -> list[Any]:
        self.jobs += jobs
        if pixel_count > self.largest_px:
            raise MemoryError
        return super()._run(jobs, pixel_count)

    def count(self, kind: type) -> int:
        return sum(isinstance(job, kind) for job in self.jobs)


@pytest.fixture
def make_engine(tiny_zoo: Path) -> Callable[..., WatchedStylizer]:
    def make(memory_budget_bytes: int = SMALL_BUDGET_BYTES) -> WatchedStylizer:
        manifest = Manifest.read(tiny_zoo)
        return WatchedStylizer(
            manifest, device="cpu", threads=1, memory_budget_bytes=memory_budget_bytes
        )

    return make


@pytest.fixture(scope="module")
def large_photo(photograph: Callable[..., Image.Image], encode: Callable[..., bytes]) -> bytes:
    """431x302 px: ``TILES`` of them, within ``SMALL_BUDGET_BYTES``."""
    return encode(photograph(431, 302))


def read_png(data: bytes) -> NDArray[np.int_]:
    return np.asarray(Image.open(io.BytesIO(data))).astype(int)


async def test_picture_over_the_budget_is_painted_in_tiles_as_if_whole(
    open_client: Any, make_engine: Any, large_photo: bytes
) -> None:
    small, ample = make_engine(), make_engine(2**30)
    async with open_client(small) as client:
        tiled = await client.stylize(large_photo, format="png", keep_colors="true")
    async with open_client(ample) as client:
        whole = await client.stylize(large_photo, format="png", keep_colors="true")
    assert tiled.status_code == whole.status_code == 200
    assert small.count(MeasureJob) == 1
    assert small.count(TileJob) == TILES
    assert ample.count(TileJob) == 0
    difference = np.abs(read_png(tiled.content) - read_png(whole.content))
    assert difference.max() <= 3  # 1 of each tile's pixels, and what the way to YCbCr makes of it
    assert difference.mean() < 0.1
    assert "stylize;dur=" in tiled.headers["server-timing"]


async def test_picture_that_runs_out_of_memory_is_painted_in_tiles(
    open_client: Any, make_engine: Any, large_photo: bytes
) -> None:
    """The budget was more than there is: batches split, then pictures, and nothing is lost."""
    engine = make_engine()
    engine.most_px = lambda card: 10**9  # noqa: ARG005
    async with open_client(engine, max_batch_jobs=8) as client:
        engine.largest_px = 431 * 302
        whole = read_png((await client.stylize(large_photo, format="png")).content)
        assert engine.count(TileJob) == 0
        engine.largest_px = 431 * 302 // 2
        responses = await asyncio.gather(
            *(client.stylize(large_photo, format="png") for _ in range(3))
        )
    assert {response.status_code for response in responses} == {200}
    assert engine.count(TileJob) >= 3 * TILES
    for response in responses:
        # Of a sample of half the picture, hence not the same; but the same picture.
        tiled = read_png(response.content)
        assert np.corrcoef(tiled.ravel(), whole.ravel())[0, 1] > 0.8


async def test_tiles_that_run_out_of_memory_are_cut_smaller(
    open_client: Any, make_engine: Any, large_photo: bytes
) -> None:
    engine = make_engine()
    engine.largest_px = 224**2  # one patch; the tiles of this budget have 264 px a side
    async with open_client(engine) as client:
        assert (await client.stylize(large_photo)).status_code == 200
    assert engine.count(MeasureJob) == 2
    assert engine.count(TileJob) > TILES


async def test_picture_whose_tiles_do_not_fit_either_is_503_and_the_next_is_served(
    open_client: Any, make_engine: Any, large_photo: bytes, photo_jpeg: bytes
) -> None:
    engine = make_engine()
    engine.largest_px = 96 * 64
    async with open_client(engine) as client:
        response = await client.stylize(large_photo)
        assert response.status_code == 503
        assert response.json()["type"] == "urn:atelier:error:device-out-of-memory"
        assert "smaller max_side" in response.json()["detail"]
        assert (await client.stylize(photo_jpeg)).status_code == 200
        assert (await client.http.get("/readyz")).status_code == 200


async def test_picture_that_cannot_be_cut_is_refused_when_it_does_not_fit(
    open_client: Any, make_engine: Any, large_photo: bytes, tiny_zoo: Path
) -> None:
    engine = make_engine()
    engine._painters[Manifest.read(tiny_zoo).card("ink").network].generator.noise_channels = 3
    engine.largest_px = 96 * 64
    async with open_client(engine) as client:
        response = await client.stylize(large_photo)
        assert response.status_code == 413
        assert "130,162 px exceed the " in response.json()["detail"]
        engine.most_px = lambda card: 10**9  # noqa: ARG005
        assert (await client.stylize(large_photo)).status_code == 503
    assert engine.count(MeasureJob) == 0


async def test_others_are_served_between_the_tiles(
    open_client: Any, make_engine: Any, large_photo: bytes, photo_jpeg: bytes, wait_until: Any
) -> None:
    engine = make_engine()
    async with open_client(engine) as client:
        engine.jobs.clear()
        large = asyncio.create_task(client.stylize(large_photo))
        await wait_until(lambda: engine.count(TileJob) == 1)
        assert (await client.stylize(photo_jpeg)).status_code == 200
        assert not large.done()
        assert (await large).status_code == 200
    kinds = [type(job) for job in engine.jobs]
    assert TileJob in kinds[: kinds.index(StyleJob)]
    assert TileJob in kinds[kinds.index(StyleJob) :]


async def test_deadline_that_passes_between_tiles_ends_the_painting(
    open_client: Any, make_engine: Any, large_photo: bytes
) -> None:
    engine = make_engine()
    async with open_client(engine) as client:
        response = await client.stylize(large_photo, headers={"X-Request-Timeout-Seconds": "0.05"})
        assert response.status_code == 504
    assert engine.count(TileJob) < TILES
