from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest

from service.logs import REQUEST_ID_PATTERN, JsonFormatter

pytestmark = pytest.mark.anyio


TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


async def test_request_when_finished_then_one_line_tells_how(
    client: Any, photo_jpeg: bytes, log_lines: list[dict[str, Any]]
) -> None:
    response = await client.stylize(photo_jpeg, headers={"X-Request-ID": "order-66"})
    (line,) = [line for line in log_lines if line["event"] == "request_finished"]
    assert line["request_id"] == response.headers["x-request-id"] == "order-66"
    assert (line["method"], line["route"], line["status"]) == ("POST", "/stylize", 200)
    assert (line["style"], line["problem"], line["level"]) == ("ink", "", "info")
    assert set(line["stages_ms"]) == {"read", "decode", "queue", "stylize", "encode"}
    assert line["duration_ms"] >= line["stages_ms"]["stylize"]
    assert line["bytes_in"] > len(photo_jpeg)
    assert line["bytes_out"] == len(response.content)


async def test_request_when_refused_then_its_line_names_the_problem(
    client: Any, photo_jpeg: bytes, log_lines: list[dict[str, Any]]
) -> None:
    await client.stylize(photo_jpeg, "../../etc/passwd")
    assert (log_lines[-1]["status"], log_lines[-1]["problem"]) == (404, "style-not-found")
    assert log_lines[-1]["style"] == "unknown"


async def test_request_line_holds_no_file_name(
    client: Any, photo_jpeg: bytes, log_lines: list[dict[str, Any]]
) -> None:
    files = {"image": ("holiday-with-anna.jpg", photo_jpeg)}
    await client.http.post("/stylize", files=files, data={"style": "ink"})
    assert log_lines
    assert "anna" not in json.dumps(log_lines)


async def test_probes_are_logged_at_debug(client: Any, log_lines: list[dict[str, Any]]) -> None:
    await client.http.get("/livez")
    assert (log_lines[-1]["route"], log_lines[-1]["level"]) == ("/livez", "debug")


async def test_request_when_no_route_matches_then_the_line_says_unmatched(
    client: Any, log_lines: list[dict[str, Any]]
) -> None:
    await client.http.get("/wp-admin")
    assert log_lines[-1]["route"] == "unmatched"


@pytest.mark.parametrize("offered", ["", "a b", "x" * 129, "tab\there", 'quote"', "{}", "é"])
async def test_request_id_when_the_offered_one_is_unsafe_then_is_made_anew(
    client: Any, offered: str
) -> None:
    headers = {"X-Request-ID": offered.encode()}
    made = (await client.http.get("/livez", headers=headers)).headers["x-request-id"]
    assert made != offered
    assert REQUEST_ID_PATTERN.fullmatch(made)


async def test_request_ids_differ(client: Any) -> None:
    made = {(await client.http.get("/livez")).headers["x-request-id"] for _ in range(3)}
    assert len(made) == 3


@pytest.mark.parametrize("flags", ["00", "01"])
async def test_request_when_the_caller_names_a_trace_then_its_line_does_without_tracing(
    client: Any, log_lines: list[dict[str, Any]], flags: str
) -> None:
    headers = {"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-{flags}", "X-Request-ID": "order-66"}
    await client.http.get("/styles", headers=headers)
    assert (log_lines[-1]["trace_id"], log_lines[-1]["request_id"]) == (TRACE_ID, "order-66")
    assert "span_id" not in log_lines[-1]  # there is no span of ours
    await client.http.get("/styles")
    assert "trace_id" not in log_lines[-1]


@pytest.mark.parametrize(
    "offered",
    [
        "",
        "no trace",
        f"00-{TRACE_ID}-{SPAN_ID}",
        f"00-{TRACE_ID.upper()}-{SPAN_ID}-01",
        f"00-{'0' * 32}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"ff-{TRACE_ID}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{SPAN_ID}-01-more",
        f"00-{TRACE_ID}-{SPAN_ID}-01" + "-" + "x" * 600,
    ],
)
async def test_request_when_the_trace_is_not_valid_then_it_is_ignored(
    client: Any, log_lines: list[dict[str, Any]], offered: str
) -> None:
    response = await client.http.get("/styles", headers={"traceparent": offered})
    assert response.status_code == 200
    assert "trace_id" not in log_lines[-1]


async def test_request_when_two_traces_are_named_then_neither_is_believed(
    client: Any, log_lines: list[dict[str, Any]]
) -> None:
    headers = [("traceparent", f"00-{n * 32}-{SPAN_ID}-01") for n in ("1", "2")]
    await client.http.get("/styles", headers=headers)
    assert "trace_id" not in log_lines[-1]


def test_formatter_keeps_a_traceback_on_one_line() -> None:
    try:
        int("one\ntwo")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "", 1, "oops %s", ("!",), sys.exc_info())
    line = JsonFormatter().format(record)
    assert "\n" not in line
    parsed = json.loads(line)
    assert parsed["event"] == "oops !"
    assert "ValueError: invalid literal" in parsed["exception"]
