from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.app import service_version
from service.errors import (
    DeviceLostError,
    DeviceOutOfMemoryError,
    StylizationError,
    error_kinds,
)
from service.metrics import CUTS, FAULTS, RELOADS, Metrics, _BusyTime

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from prometheus_client import Metric

pytestmark = pytest.mark.anyio

NAMES = {
    "atelier_requests",
    "atelier_request_seconds",
    "atelier_stage_seconds",
    "atelier_batch_size",
    "atelier_batch_pixels",
    "atelier_queue_jobs",
    "atelier_in_flight_requests",
    "atelier_problems",
    "atelier_in_flight_pixels",
    "atelier_body_memory_bytes",
    "atelier_device_up",
    "atelier_cut_connections",
    "atelier_styles_loaded",
    "atelier_ready",
    "atelier_batcher_alive",
    "atelier_model_busy_seconds",
    "atelier_model_busy_for_seconds",
    "atelier_memory_budget_bytes",
    "atelier_live_sessions",
    "atelier_live_frames",
    "atelier_live_frame_seconds",
    "atelier_runtime_faults",
    "atelier_reloads",
    "atelier_build_info",
    "atelier_zoo_info",
}
OF_THE_PROCESS = {
    "process_resident_memory_bytes",
    "process_cpu_seconds",
    "process_open_fds",
    "process_max_fds",
    "process_start_time_seconds",
    "python_info",
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


async def test_metrics_are_those_expected(client: Any) -> None:
    families = await scrape(client)
    assert {name for name in families if name.startswith("atelier_")} == NAMES
    assert set(families) >= OF_THE_PROCESS
    assert series(families["atelier_styles_loaded"]) == {(): 2}
    assert series(families["atelier_ready"]) == series(families["atelier_batcher_alive"]) == {(): 1}


async def test_counters_exist_before_their_first_event(client: Any) -> None:
    families = await scrape(client)
    problems = set(series(families["atelier_problems"], "_total"))
    assert problems >= {(kind.slug,) for kind in error_kinds()}
    assert set(series(families["atelier_runtime_faults"], "_total")) == {(f,) for f in FAULTS}
    assert set(series(families["atelier_reloads"], "_total")) == {(o,) for o in RELOADS}
    cuts = series(families["atelier_cut_connections"], "_total")
    assert cuts == {(reason,): 0 for reason in CUTS}


async def test_build_and_zoo_are_named(
    open_client: Any, stub_engine: Any, make_zoo: Any, tmp_path: Path
) -> None:
    digests = []
    make_zoo(tmp_path)
    for title in ("Ink", "Ink", "Chalk"):
        manifest = tmp_path / "manifest.toml"
        manifest.write_text(manifest.read_text().replace('title = "Ink"', f'title = "{title}"'))
        async with open_client(stub_engine, zoo=tmp_path) as client:
            families = await scrape(client)
            (sample,) = families["atelier_build_info"].samples
            assert sample.labels == {
                "version": service_version(),
                "device": "cpu",
                "runtime": "stub",
            }
            (sample,) = families["atelier_zoo_info"].samples
            digests.append(sample.labels["digest"])
    assert digests[0] == digests[1] != digests[2]


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
        for name in ("in_flight_requests", "in_flight_pixels", "body_memory_bytes"):
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


async def test_requests_are_timed_by_route_and_class_of_status(
    open_client: Any, stub_engine: Any, photo_jpeg: bytes
) -> None:
    async with open_client(stub_engine) as client:
        await client.stylize(photo_jpeg)
        await client.stylize(photo_jpeg, "cubism")
        await client.stylize(photo_jpeg, "cubism")
        timed = series((await scrape(client))["atelier_request_seconds"], "_count")
    assert timed == {("/stylize", "2xx"): 1, ("/stylize", "4xx"): 2}


async def test_problems_are_counted_by_type(
    open_client: Any, stub_engine: Any, photo_jpeg: bytes
) -> None:
    async with open_client(stub_engine) as client:
        stub_engine.gate.clear()
        await client.stylize(photo_jpeg, headers={"X-Request-Timeout-Seconds": "0.05"})
        stub_engine.gate.set()
        await client.stylize(b"no picture")
        await client.http.delete("/stylize")
        counted = series((await scrape(client))["atelier_problems"], "_total")
    assert {problem: count for problem, count in counted.items() if count} == {
        ("deadline-passed",): 1,
        ("unsupported-media-type",): 1,
        ("method-not-allowed",): 1,
    }


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (RuntimeError("the device is gone"), "internal"),
        (DeviceOutOfMemoryError("too much"), "device-out-of-memory"),
        (DeviceLostError("the device broke down"), "device-lost"),
    ],
)
async def test_faults_of_the_model_thread_are_counted(
    open_client: Any, stub_engine: Any, photo_jpeg: bytes, fault: Exception, kind: str
) -> None:
    async with open_client(stub_engine) as client:
        await client.stylize(photo_jpeg)
        before = await scrape(client)
        stub_engine.fault = fault
        await client.stylize(photo_jpeg)
        families = await scrape(client)
    counted = series(families["atelier_runtime_faults"], "_total")
    assert {fault: count for fault, count in counted.items() if count} == {(kind,): 1}
    busy = [series(f["atelier_model_busy_seconds"], "_total")[()] for f in (before, families)]
    assert 0 < busy[0] < busy[1]


def test_picture_that_fails_alone_is_a_fault_of_the_runtime_too() -> None:
    metrics = Metrics()
    run = metrics.watch_passes(lambda jobs: [StylizationError("not a number"), *jobs[1:]])
    assert run([1, 2])[1] == 2
    assert b'atelier_runtime_faults_total{fault="stylization-failed"} 1.0' in metrics.render()


async def test_pass_that_goes_on_shows_for_how_long(
    open_client: Any, stub_engine: Any, wait_until: Any, photo_jpeg: bytes
) -> None:
    async with open_client(stub_engine) as client:
        stub_engine.gate.clear()
        request = asyncio.create_task(client.stylize(photo_jpeg))
        await wait_until(lambda: stub_engine.batches == [1])
        assert series((await scrape(client))["atelier_model_busy_for_seconds"])[()] > 0
        stub_engine.gate.set()
        await request
        assert series((await scrape(client))["atelier_model_busy_for_seconds"])[()] == 0


async def test_readiness_is_a_metric(open_client: Any, stub_engine: Any) -> None:
    async with open_client(stub_engine) as client:
        client.app.state.lifecycle.drain()
        families = await scrape(client)
    assert series(families["atelier_ready"]) == {(): 0}
    assert series(families["atelier_batcher_alive"]) == {(): 1}


def test_reloads_are_counted_by_outcome() -> None:
    metrics = Metrics()
    metrics.count_reload("failed")
    assert b'atelier_reloads_total{outcome="failed"} 1.0' in metrics.render()
    assert b'atelier_reloads_total{outcome="done"} 0.0' in metrics.render()


def test_device_memory_is_a_metric_only_where_there_is_a_device() -> None:
    for read in (None, lambda: 42):
        metrics = Metrics()
        metrics.watch(device_memory_bytes=read)
        assert (b"atelier_device_memory_bytes 42.0" in metrics.render()) == (read is not None)


def test_busy_time_counts_overlapping_passes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 3.0, 5.0, 10.0, 11.0])
    monkeypatch.setattr("service.metrics.time.perf_counter", lambda: next(clock))
    busy = _BusyTime()
    busy.begin()  # at 0
    busy.begin()
    assert busy.end() == 3.0
    assert busy.end() == 2.0
    busy.begin()  # at 10
    assert busy.end() == 1.0
