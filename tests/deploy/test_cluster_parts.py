"""The parts of service.cluster that need Ray's package and no cluster."""

from __future__ import annotations

import gc
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest
from pydantic import ValidationError

from model_zoo.cards import Manifest
from service.cluster import app
from service.cluster.on_demand import OnDemandEngine
from service.cluster.options import ClusterOptions
from service.cluster.work import Outcome, Work
from service.deadlines import Deadline
from service.errors import BusyError
from service.formats import FORMATS
from service.jobs import StyleJob
from service.logs import continue_request, request_ids
from service.pipeline import StyleRequest
from service.settings import SettingsError
from service.stylizer import Stylizer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Executor
    from pathlib import Path


@pytest.fixture
def model_pool() -> Iterator[Executor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture
def manifest(tiny_zoo: Path) -> Manifest:
    return Manifest.read(tiny_zoo)


@pytest.fixture
def stylizer(tiny_zoo: Path) -> Stylizer:
    """Holds no network."""
    return Stylizer(Manifest(tiny_zoo, ()), device="cpu", runtime="torch", threads=1)


def test_usage_reports_are_off_once_the_module_is_imported() -> None:
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


def test_request_crosses_with_what_is_left_of_its_time_and_its_ids() -> None:
    request = StyleRequest(
        image=b"bytes",
        style="ink:0.5,wash:0.5",
        formats=(FORMATS["png"], FORMATS["jpeg"]),
        deadline=Deadline.after(20),
        max_side_px=77,
        quality=81,
        keep_colors=True,
        strength=0.25,
        seed=9,
        owner="alice",
    )
    with continue_request({"x-request-id": "abc"}):
        work = pickle.loads(pickle.dumps(Work.of(request)))  # noqa: S301  # made here
    there = work.unpack()
    for name in ("image", "style", "formats", "max_side_px", "quality", "keep_colors"):
        assert getattr(there, name) == getattr(request, name)
    for name in ("strength", "seed", "owner"):
        assert getattr(there, name) == getattr(request, name)
    assert 19 < there.deadline.allowed_s <= 20
    with continue_request(work.ids):
        assert request_ids()["x-request-id"] == "abc"
    assert request_ids()["x-request-id"] == ""


def test_outcome_gives_the_picture_or_raises_the_error_of_the_engine() -> None:
    picture = pickle.loads(pickle.dumps(Outcome({"decode": 0.1}, b"jpeg", "jpeg")))  # noqa: S301
    assert picture.unpack().data == b"jpeg"
    assert picture.unpack().format is FORMATS["jpeg"]
    failed = pickle.loads(pickle.dumps(Outcome(error=BusyError("full", retry_after_s=4))))  # noqa: S301
    with pytest.raises(BusyError, match="full") as caught:
        failed.unpack()
    assert caught.value.headers == {"Retry-After": "4"}


@pytest.mark.anyio
async def test_engine_lets_go_of_a_network_that_nobody_holds_when_another_comes(
    stylizer: Stylizer, manifest: Manifest, model_pool: Executor
) -> None:
    engine = OnDemandEngine(stylizer, manifest.zoo, side_px=32)
    ink, wash = manifest.cards
    photo = np.zeros((32, 32, 3), np.uint8)
    held = await engine.hold(ink, model_pool)
    assert engine.run([StyleJob(ink, photo)])[0].shape == photo.shape
    other = await engine.hold(wash, model_pool)
    engine.run([StyleJob(ink, photo)])
    del held
    gc.collect()
    third = await engine.hold(wash, model_pool)
    with pytest.raises(KeyError):
        engine.run([StyleJob(ink, photo)])
    engine.run([StyleJob(wash, photo)])
    del other, third


def test_warm_up_of_an_engine_paints_in_one_style_alone(
    stylizer: Stylizer, manifest: Manifest
) -> None:
    engine = OnDemandEngine(stylizer, manifest.zoo, side_px=32)
    engine.load(manifest)
    ink, wash = manifest.cards
    engine.warm_up(manifest, 32)
    assert engine.most_px(ink)
    with pytest.raises(KeyError):
        engine.most_px(wash)


def test_options_out_of_order_or_beyond_what_an_engine_admits_are_refused(
    monkeypatch: pytest.MonkeyPatch, tiny_zoo: Path
) -> None:
    with pytest.raises(ValidationError, match="engines_min=3 exceeds engines_max=2"):
        ClusterOptions(engines_min=3, engines_max=2)
    with pytest.raises(ValidationError, match="engine_max"):
        ClusterOptions.model_validate({"engine_max": 2})
    monkeypatch.setenv("ATELIER_ZOO", str(tiny_zoo))
    monkeypatch.setenv("ATELIER_MAX_IN_FLIGHT", "4")
    with pytest.raises(SettingsError, match=r"ongoing_max=8 exceeds the 4 .*ATELIER_MAX_IN_FLIGHT"):
        app(ClusterOptions())
