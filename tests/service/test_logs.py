from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING, Any

import pytest

from service.logs import REQUEST_ID_PATTERN, JsonFormatter

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.anyio


@pytest.fixture
def lines() -> Iterator[list[dict[str, Any]]]:
    """What the service logs, as a reader of its JSON lines sees it."""
    seen: list[dict[str, Any]] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            line = self.format(record)
            assert "\n" not in line
            seen.append(json.loads(line))

    collector = Collector()
    collector.setFormatter(JsonFormatter())
    logger = logging.getLogger("service")
    logger.addHandler(collector)
    logger.setLevel(logging.DEBUG)
    yield seen
    logger.removeHandler(collector)
    logger.setLevel(logging.NOTSET)


async def test_request_when_finished_then_one_line_tells_how(
    client: Any, photo_jpeg: bytes, lines: list[dict[str, Any]]
) -> None:
    response = await client.stylize(photo_jpeg, headers={"X-Request-ID": "order-66"})
    (line,) = [line for line in lines if line["event"] == "request_finished"]
    assert line["request_id"] == response.headers["x-request-id"] == "order-66"
    assert (line["method"], line["route"], line["status"]) == ("POST", "/stylize", 200)
    assert (line["style"], line["problem"], line["level"]) == ("ink", "", "info")
    assert set(line["stages_ms"]) == {"read", "decode", "queue", "stylize", "encode"}
    assert line["duration_ms"] >= line["stages_ms"]["stylize"]
    assert line["bytes_in"] > len(photo_jpeg)
    assert line["bytes_out"] == len(response.content)


async def test_request_when_refused_then_its_line_names_the_problem(
    client: Any, photo_jpeg: bytes, lines: list[dict[str, Any]]
) -> None:
    await client.stylize(photo_jpeg, "../../etc/passwd")
    assert (lines[-1]["status"], lines[-1]["problem"]) == (404, "style-not-found")
    assert lines[-1]["style"] == "unknown"


async def test_request_line_holds_no_file_name(
    client: Any, photo_jpeg: bytes, lines: list[dict[str, Any]]
) -> None:
    files = {"image": ("holiday-with-anna.jpg", photo_jpeg)}
    await client.http.post("/stylize", files=files, data={"style": "ink"})
    assert lines
    assert "anna" not in json.dumps(lines)


async def test_probes_are_logged_at_debug(client: Any, lines: list[dict[str, Any]]) -> None:
    await client.http.get("/livez")
    assert (lines[-1]["route"], lines[-1]["level"]) == ("/livez", "debug")


async def test_request_when_no_route_matches_then_the_line_says_unmatched(
    client: Any, lines: list[dict[str, Any]]
) -> None:
    await client.http.get("/wp-admin")
    assert lines[-1]["route"] == "unmatched"


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
