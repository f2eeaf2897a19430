"""The parts of service.cluster that need Ray's package and no cluster."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import pickle
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pydantic import ValidationError
from ray.exceptions import ActorDiedError, ObjectLostError, OutOfMemoryError
from ray.serve.exceptions import BackPressureError

from model_zoo.cards import Manifest, ZooError
from service.cluster import app
from service.cluster.engine import Engine, _bare
from service.cluster.ingress import BehindRaysProxy
from service.cluster.on_demand import OnDemandEngine
from service.cluster.options import ClusterOptions
from service.cluster.remote import RemotePipeline
from service.cluster.work import Outcome, Work
from service.deadlines import Deadline
from service.errors import (
    BusyError,
    CorruptImageError,
    DeadlineError,
    NotReadyError,
    ServiceError,
    StyleNotFoundError,
)
from service.formats import FORMATS
from service.gate import AdmissionGate
from service.jobs import StyleJob
from service.logs import continue_request, request_ids
from service.pipeline import StyleRequest, StylizedImage
from service.settings import SettingsError
from service.stylizer import Stylizer
from service.zoos import Zoo, Zoos

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterator
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
    ink, wash = manifest.cards
    absent = replace(wash, weights="absent.safetensors", sha256="0" * 64)
    engine.warm_up([ink, absent], 32)
    with pytest.raises(ZooError, match="absent"):
        engine.warm_up([absent], 32)


def test_reload_of_many_styles_leaves_no_more_networks_than_are_held(
    stylizer: Stylizer, manifest: Manifest
) -> None:
    engine = OnDemandEngine(stylizer, manifest.zoo, side_px=32)
    for card in manifest:
        engine.warm_up([card], 32)
    for card in manifest:
        with pytest.raises(KeyError):
            engine.most_px(card)


def test_error_that_crosses_keeps_neither_picture_nor_network_alive() -> None:
    """Without the collector of cycles, which may come late."""

    class Picture:
        pass

    def fail(picture: Picture) -> Outcome:
        held = weakref.ref(picture)
        try:
            try:
                {}["nothing"]
            except KeyError as cause:
                raise BusyError("full", retry_after_s=1) from cause
        except BusyError as error:
            assert held() is picture
            return Outcome(error=_bare(error))

    picture = Picture()
    seen = weakref.ref(picture)
    gc.disable()
    try:
        outcome = fail(picture)
        del picture
        assert seen() is None
    finally:
        gc.enable()
    assert outcome.error is not None
    assert outcome.error.__cause__ is None


def test_health_is_asked_on_the_event_loop() -> None:
    """Ray runs methods that are not async on other threads, where futures may not be answered."""
    assert inspect.iscoroutinefunction(Engine.check_health)


class Engines:
    """A handle whose engines answer as they are told to, one call after the other."""

    def __init__(self, *answers: Outcome | BaseException) -> None:
        self.answers = list(answers)
        self.networks: list[str] = []
        self.calls = 0
        self.cancelled = 0
        self.stylize = self

    def options(self, *, multiplexed_model_id: str) -> Engines:
        self.networks.append(multiplexed_model_id)
        return self

    def remote(self, work: Work) -> Engines:
        assert work.image
        self.calls += 1
        return self

    def __await__(self) -> Generator[Any, None, Outcome]:
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        if not answer.format and answer.error is None:
            yield from asyncio.sleep(60).__await__()
        return answer

    def cancel(self) -> None:
        self.cancelled += 1


@pytest.fixture
def paint(tiny_zoo: Path) -> Callable[..., Awaitable[StylizedImage]]:
    """Have engines paint one request."""
    gate = AdmissionGate(4, max_pixels=100, max_body_bytes=100)
    zoos = Zoos(Zoo.read(tiny_zoo))

    async def paint(engines: Engines, allowed_s: float = 20) -> StylizedImage:
        request = StyleRequest(
            image=b"bytes",
            style="wash",
            formats=(FORMATS["jpeg"],),
            deadline=Deadline.after(allowed_s),
            max_side_px=64,
            quality=90,
        )
        try:
            return await RemotePipeline(zoos, gate, engines).stylize(request)
        finally:
            assert gate.in_flight == 0

    return paint


@pytest.mark.anyio
async def test_request_goes_by_network_and_once_more_where_its_engine_is_lost(
    paint: Callable[..., Awaitable[StylizedImage]], manifest: Manifest
) -> None:
    for loss in (ActorDiedError(), ObjectLostError("1", "1", "1")):
        engines = Engines(loss, Outcome({}, b"jpeg", "jpeg"))
        assert (await paint(engines)).data == b"jpeg"
        assert engines.calls == 2
        assert engines.networks == [manifest.card("wash").network]
    engines = Engines(*[ActorDiedError() for _ in range(9)])
    with pytest.raises(NotReadyError, match="no engine can be reached"):
        await paint(engines)
    assert engines.calls == 2, "a picture that kills engines does not go on"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (BackPressureError(num_queued_requests=3, max_queued_requests=2), BusyError),
        (OutOfMemoryError("killed"), NotReadyError),
        (Outcome(error=StyleNotFoundError("no style 'wash'")), NotReadyError),
        (Outcome(error=CorruptImageError("broken")), CorruptImageError),
    ],
    ids=["full", "killed", "zoo not yet read", "its own error"],
)
async def test_engine_that_does_not_paint_is_one_of_our_errors(
    paint: Callable[..., Awaitable[StylizedImage]],
    answer: Outcome | BaseException,
    kind: type[ServiceError],
) -> None:
    with pytest.raises(kind) as caught:
        await paint(Engines(answer))
    assert (caught.value.status in {429, 503}) == ("Retry-After" in caught.value.headers)


@pytest.mark.anyio
async def test_engine_is_told_when_the_time_is_over(
    paint: Callable[..., Awaitable[StylizedImage]],
) -> None:
    engines = Engines(Outcome())
    with pytest.raises(DeadlineError):
        await paint(engines, allowed_s=0.05)
    assert engines.cancelled == 1


@pytest.mark.anyio
async def test_ingress_answers_before_rays_proxy_and_leaves_the_id_to_it() -> None:
    seen: dict[str, Any] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001
        seen.update(scope)
        headers = [(b"x-request-id", b"abc"), (b"vary", b"Accept")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    async def send(message: Any) -> None:
        seen["answer"] = message

    headers = [(b"x-request-id", b"abc"), (b"x-request-timeout-seconds", b"10")]
    await BehindRaysProxy(app)({"type": "http", "headers": headers}, None, send)  # type: ignore[arg-type]
    assert dict(seen["headers"])[b"x-request-timeout-seconds"] == b"9"
    assert seen["answer"]["headers"] == [(b"vary", b"Accept")]
    headers = [(b"x-request-id", b"un safe"), (b"x-request-timeout-seconds", b"soon")]
    await BehindRaysProxy(app)({"type": "http", "headers": headers}, None, send)  # type: ignore[arg-type]
    assert dict(seen["headers"])[b"x-request-timeout-seconds"] == b"soon"
    assert (b"x-request-id", b"abc") in seen["answer"]["headers"]


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
