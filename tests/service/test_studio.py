"""What is built around an engine."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from model_zoo.cards import Manifest
from service.jobs import StyleJob
from service.studio import create_batcher, create_model_pool

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("at_once", "crowd", "overlaps", "beside"),
    [(2, 3, True, 2), (3, 3, True, 3), (2, 4, True, 1), (2, 3, False, 1)],
)
async def test_as_many_batches_run_beside_each_other_as_the_engine_says(
    stub_engine: Any,
    tiny_zoo: Path,
    make_settings: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    at_once: int,
    crowd: int,
    overlaps: bool,
    beside: int,
) -> None:
    stub_engine.passes_at_once, stub_engine.crowd = at_once, crowd
    monkeypatch.setattr(stub_engine, "overlaps", lambda _: overlaps)
    stub_engine.gate.clear()
    job = StyleJob(Manifest.read(tiny_zoo).cards[0], np.zeros((8, 8, 3), np.uint8))
    with create_model_pool(stub_engine) as model_pool:
        batcher = create_batcher(stub_engine, make_settings(), model_pool)
        batcher.start()
        tasks = [asyncio.create_task(batcher.submit(job, math.inf)) for _ in range(3)]
        for _ in range(5):
            await asyncio.sleep(0.01)
        began = len(stub_engine.batches)
        stub_engine.gate.set()
        await asyncio.gather(*tasks)
        await batcher.aclose()
    assert began == beside
    assert stub_engine.batches == [1, 1, 1]
