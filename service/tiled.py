"""Painting a picture in tiles: one job after the other, so that others' run between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from service.jobs import Job, MeasureJob, StyleJob, TileJob
from service.tiles import TileLayout, measure_contrast

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from numpy.typing import NDArray

    Submit = Callable[[Job], Awaitable[Any]]
    OnCodecPool = Callable[..., Awaitable[Any]]


async def paint_in_tiles(
    job: StyleJob, layout: TileLayout, *, submit: Submit, on_codec_pool: OnCodecPool
) -> NDArray[np.uint8]:
    """Paint ``job`` as if in one pass, but for what sampling misses of its statistics.

    Args:
        job: the whole picture.
        layout: how to cut it.
        submit: runs one job on a model thread.
        on_codec_pool: runs a function where it does not hold up the event loop.
    """
    measure = await on_codec_pool(_prepare_measure, job, layout)
    whole = await submit(measure)
    painting = np.empty_like(job.pixels)
    for tile in layout.tiles(*job.pixels.shape[:2]):
        pixels = layout.cut(job.pixels, tile)
        top, left = tile.rows.outer[0], tile.columns.outer[0]
        painted = await submit(TileJob(job.card, pixels, whole, top, left, job.mix))
        painting[tile.core] = painted[tile.rows.kept, tile.columns.kept]
    return painting


def _prepare_measure(job: StyleJob, layout: TileLayout) -> MeasureJob:
    contrast = measure_contrast(job.pixels)
    return MeasureJob(job.card, layout.sample(job.pixels), contrast, job.mix)
