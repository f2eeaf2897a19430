"""Spans of a request and its stages, as the SDK of OpenTelemetry exports them."""

from __future__ import annotations

import asyncio
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, format_trace_id

from service.stages import Stages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.anyio

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
STAGES = {"read", "decode", "queue", "stylize", "encode"}


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def provider(exporter: InMemorySpanExporter) -> Iterator[TracerProvider]:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider
    provider.shutdown()


def split(exporter: InMemorySpanExporter) -> tuple[ReadableSpan, list[ReadableSpan]]:
    """The one span of a request, and those inside it."""
    spans = exporter.get_finished_spans()
    (server,) = [span for span in spans if span.kind is SpanKind.SERVER]
    return server, [span for span in spans if span is not server]


def attributes(span: ReadableSpan) -> dict[str, Any]:
    own = (span.attributes or {}).items()
    return {k.removeprefix("atelier."): v for k, v in own if k.startswith("atelier.")}


async def test_request_when_traced_then_every_stage_is_a_span_in_the_callers_trace(
    open_client: Any,
    provider: TracerProvider,
    exporter: InMemorySpanExporter,
    photo_jpeg: bytes,
    log_lines: list[dict[str, Any]],
) -> None:
    headers = {"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01", "X-Request-ID": "order-66"}
    async with open_client(tracer_provider=provider) as client:
        assert (await client.stylize(photo_jpeg, headers=headers)).status_code == 200
    server, stages = split(exporter)
    assert server.name == "POST /stylize"
    assert server.parent is not None
    assert server.parent.span_id == int(SPAN_ID, 16)
    assert attributes(server) == {"request_id": "order-66", "style": "ink", "pixels": 96 * 64}
    assert {span.name for span in stages} == STAGES
    for span in (server, *stages):
        assert format_trace_id(span.get_span_context().trace_id) == TRACE_ID
    for span in stages:
        assert span.parent is not None
        assert span.parent.span_id == server.get_span_context().span_id
        assert span.start_time <= span.end_time
    by_name = {span.name: span for span in stages}
    assert attributes(by_name["decode"]) == {"format": "jpeg"}
    assert attributes(by_name["stylize"]) == {"batch_size": 1, "pixels": 96 * 64}
    assert by_name["queue"].end_time <= by_name["stylize"].end_time
    (line,) = [line for line in log_lines if line["event"] == "request_finished"]
    assert line["trace_id"] == TRACE_ID
    assert line["span_id"] == f"{server.get_span_context().span_id:016x}"


async def test_request_when_its_trace_is_not_valid_then_a_new_one_begins(
    open_client: Any,
    stub_engine: Any,
    provider: TracerProvider,
    exporter: InMemorySpanExporter,
    log_lines: list[dict[str, Any]],
) -> None:
    async with open_client(stub_engine, tracer_provider=provider) as client:
        await client.http.get("/styles", headers={"traceparent": f"00-{TRACE_ID}-{SPAN_ID}"})
    server, _ = split(exporter)
    assert server.parent is None
    made = format_trace_id(server.get_span_context().trace_id)
    assert made != TRACE_ID
    (line,) = [line for line in log_lines if line["event"] == "request_finished"]
    assert line["trace_id"] == made


async def test_request_when_the_caller_did_not_sample_then_there_is_no_span_but_the_line_names_it(
    open_client: Any,
    stub_engine: Any,
    provider: TracerProvider,
    exporter: InMemorySpanExporter,
    photo_jpeg: bytes,
    log_lines: list[dict[str, Any]],
) -> None:
    async with open_client(stub_engine, tracer_provider=provider) as client:
        headers = {"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-00"}
        response = await client.stylize(photo_jpeg, headers=headers)
    assert response.status_code == 200
    assert exporter.get_finished_spans() == ()
    (line,) = [line for line in log_lines if line["event"] == "request_finished"]
    assert line["trace_id"] == TRACE_ID


async def test_requests_of_one_batch_say_how_many_shared_it(
    open_client: Any,
    stub_engine: Any,
    wait_until: Any,
    provider: TracerProvider,
    exporter: InMemorySpanExporter,
    photo_jpeg: bytes,
) -> None:
    async with open_client(stub_engine, tracer_provider=provider, max_batch_jobs=8) as client:
        stub_engine.gate.clear()
        requests = [asyncio.create_task(client.stylize(photo_jpeg))]
        await wait_until(lambda: stub_engine.batches == [1])
        requests += [asyncio.create_task(client.stylize(photo_jpeg)) for _ in range(2)]
        await wait_until(lambda: len(client.app.state.pipeline._batcher) == 2)
        stub_engine.gate.set()
        await asyncio.gather(*requests)
    stylize = [span for span in exporter.get_finished_spans() if span.name == "stylize"]
    assert sorted(attributes(span)["batch_size"] for span in stylize) == [1, 2, 2]


async def test_stage_that_fails_is_marked_and_the_request_names_its_problem(
    open_client: Any,
    stub_engine: Any,
    provider: TracerProvider,
    exporter: InMemorySpanExporter,
    photo_jpeg: bytes,
) -> None:
    async with open_client(stub_engine, tracer_provider=provider) as client:
        await client.stylize(photo_jpeg[: len(photo_jpeg) // 2])
    server, stages = split(exporter)
    assert attributes(server)["problem"] == "corrupt-image"
    assert server.status.status_code is StatusCode.UNSET  # the caller's fault
    status = {span.name: span.status.status_code for span in stages}
    assert status == {"read": StatusCode.UNSET, "decode": StatusCode.ERROR}


@pytest.mark.parametrize("root_path", ["", "/atelier"])
async def test_probes_leave_no_spans(
    open_client: Any,
    stub_engine: Any,
    provider: TracerProvider,
    exporter: InMemorySpanExporter,
    root_path: str,
) -> None:
    async with open_client(stub_engine, tracer_provider=provider) as client:
        transport = httpx.ASGITransport(client.app, root_path=root_path)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as http:
            for path in ("/livez", "/readyz", "/metrics"):
                assert (await http.get(root_path + path)).status_code == 200
    assert exporter.get_finished_spans() == ()


def test_stages_when_entered_again_then_add_up() -> None:
    stages = Stages()
    for seconds in (1.0, 0.5):
        stages.add("queue", seconds)
    assert stages.seconds == {"queue": 1.5}


def test_stage_when_its_block_fails_then_its_time_still_counts() -> None:
    stages = Stages()
    with pytest.raises(ZeroDivisionError), stages.timed("decode"):
        _ = 1 / 0
    assert set(stages.seconds) == {"decode"}


@pytest.mark.slow
def test_process_when_otel_variables_name_a_collector_then_spans_reach_it(
    start_service: Callable[..., Any], photo_jpeg: bytes
) -> None:
    received: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((self.path, body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as collector:
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
            "OTEL_SERVICE_NAME": "atelier-of-this-test",
            "NO_PROXY": "127.0.0.1",
        }
        try:
            with start_service(**variables) as server:
                answer = httpx.post(
                    f"{server.url}/stylize", files={"image": photo_jpeg}, data={"style": "ink"}
                )
                status, _ = server.stop()
        finally:
            collector.shutdown()
            thread.join(20)
    assert (answer.status_code, status) == (200, 0)
    assert {path for path, _ in received} == {"/v1/traces"}
    sent = b"".join(body for _, body in received)
    for word in (b"atelier-of-this-test", b"POST /stylize", b"encode", b"atelier.batch_size"):
        assert word in sent
