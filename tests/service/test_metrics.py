from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import Metric

pytestmark = pytest.mark.anyio

NAMES = {
    "atelier_requests",
    "atelier_stage_seconds",
    "atelier_batch_size",
    "atelier_batch_pixels",
    "atelier_queue_jobs",
    "atelier_in_flight_requests",
    "atelier_in_flight_pixels",
    "atelier_body_bytes",
    "atelier_device_up",
    "atelier_cut_connections",
    "atelier_rejected",
    "atelier_styles_loaded",
}


async def scrape(client: Any) -> dict[str, Metric]:
    response = await client.http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    families: Iterable[Metric] = text_string_to_metric_families(response.text)
    return {family.name: family for family in families if not family.name.endswith("_created")}


def series(family: Metric, suffix: str = "") -> dict[tuple[str, ...], float]:
    """Values by label values, in the order of the labels' names."""
    name = family.name + suffix
    return {
        tuple(s.labels[label] for label in sorted(s.labels)): s.value
        for s in family.samples
        if s.name == name
    }


async def test_metrics_are_those_documented(client: Any) -> None:
    families = await scrape(client)
    assert {name for name in families if name.startswith("atelier_")} == NAMES
    assert "process_resident_memory_bytes" in families
    assert "python_info" in families
    assert series(families["atelier_styles_loaded"]) == {(): 2}
    assert set(series(families["atelier_rejected"], "_total")) == {
        ("busy",),
        ("not-ready",),
        ("device-out-of-memory",),
        ("device-lost",),
        ("deadline-passed",),
    }
    cuts = series(families["atelier_cut_connections"], "_total")
    assert cuts == {("slow-sender",): 0, ("large-head",): 0, ("slow-reader",): 0}


async def test_metrics_count_requests_stages_and_batches(
    open_client: Any, photo_jpeg: bytes
) -> None:
    async with open_client() as client:
        for _ in range(2):
            await client.stylize(photo_jpeg)
        families = await scrape(client)
        requests = series(families["atelier_requests"], "_total")
        assert requests == {("/stylize", "200", "ink"): 2}
        stages = series(families["atelier_stage_seconds"], "_count")
        assert stages == dict.fromkeys(
            [("read",), ("decode",), ("queue",), ("stylize",), ("encode",)], 2
        )
        assert series(families["atelier_batch_size"], "_count") == {(): 2}
        assert series(families["atelier_batch_pixels"], "_sum") == {(): 2 * 96 * 64}
        for name in ("in_flight_requests", "in_flight_pixels", "body_bytes"):
            assert series(families[f"atelier_{name}"]) == {(): 0}
        assert series(families["atelier_device_up"]) == {(): 1}
        assert series(families["atelier_queue_jobs"]) == {(): 0}


async def test_labels_take_only_route_templates_and_known_styles(
    open_client: Any, photo_jpeg: bytes
) -> None:
    async with open_client() as client:
        for number in range(3):
            await client.http.get(f"/nowhere/{number}")
            await client.http.get(f"/styles/{number}")
            await client.stylize(photo_jpeg, f"style-{number}")
        requests = series((await scrape(client))["atelier_requests"], "_total")
        assert requests == {
            ("unmatched", "404", ""): 3,
            ("/styles/{style_id}", "404", ""): 3,
            ("/stylize", "404", "unknown"): 3,
        }


async def test_metrics_count_rejections_by_reason(
    open_client: Any, stub_engine: Any, photo_jpeg: bytes
) -> None:
    async with open_client(stub_engine) as client:
        stub_engine.gate.clear()
        await client.stylize(photo_jpeg, headers={"X-Request-Timeout-Seconds": "0.05"})
        rejected = series((await scrape(client))["atelier_rejected"], "_total")
        assert rejected[("deadline-passed",)] == 1
        stub_engine.gate.set()


def test_device_memory_is_a_metric_only_where_there_is_a_device() -> None:
    for read in (None, lambda: 42):
        metrics = Metrics()
        metrics.watch(
            in_flight_requests=int,
            in_flight_pixels=int,
            body_bytes=int,
            device_up=bool,
            queue_jobs=int,
            styles_loaded=int,
            device_memory_bytes=read,
        )
        assert (b"atelier_device_memory_bytes 42.0" in metrics.render()) == (read is not None)
