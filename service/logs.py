"""JSON log lines, one event a request, and the ids of request and trace that tie them together."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import uuid
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from opentelemetry import context, trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.datastructures import Headers, MutableHeaders

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

REQUEST_ID_PATTERN = re.compile(r"[A-Za-z0-9._~:/+=@-]{1,128}")
"""What is taken over from a client: nothing that could break a header or forge a log line."""

UNMATCHED_ROUTE = "unmatched"
_PROBES = frozenset({"/livez", "/readyz", "/metrics"})
_PROGRESS = "/requests/"
_CLIENT_CLOSED_REQUEST = 499
_TRACE_CONTEXT = TraceContextTextMapPropagator()

_request_id: ContextVar[str] = ContextVar("request_id", default="")


@dataclass(slots=True)
class RequestRecord:
    """What one request turned out to be; routes fill in ``style`` and ``stages_s``.

    ``problem`` is the kind of error that it was answered with, if any. ``caller`` is the name of
    the key that it came with, never the key.
    """

    request_id: str
    method: str
    route: str = UNMATCHED_ROUTE
    status: int = _CLIENT_CLOSED_REQUEST
    caller: str = ""
    style: str = ""
    problem: str = ""
    duration_s: float = 0.0
    stages_s: dict[str, float] = field(default_factory=dict)
    bytes_in: int = 0
    bytes_out: int = 0

    def as_fields(self) -> dict[str, Any]:
        """Fields of the ``request_finished`` event; durations in milliseconds."""
        return {
            "method": self.method,
            "route": self.route,
            "status": self.status,
            "caller": self.caller,
            "style": self.style,
            "problem": self.problem,
            "duration_ms": round(self.duration_s * 1000, 1),
            "stages_ms": {name: round(s * 1000, 1) for name, s in self.stages_s.items()},
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
        }


class JsonFormatter(logging.Formatter):
    """Formats a log record as one line of JSON, the message being the event."""

    def format(self, record: logging.LogRecord) -> str:
        """Give ``record`` as JSON, with ``extra={"fields": {...}}`` beside the event."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        if request_id := _request_id.get():
            line["request_id"] = request_id
        line |= _trace_ids()
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure_logging(level: str) -> None:
    """Send every log line of the process to standard error as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(capture=True)
    # Below warning uvicorn narrates what service_started and request_finished already say.
    logging.getLogger("uvicorn").setLevel(max(root.level, logging.WARNING))
    # Both narrate the bytes they parse, at debug and at warning.
    logging.getLogger("PIL").setLevel(logging.WARNING)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)


class RequestLogMiddleware:
    """Gives each request an id, echoes it as X-Request-ID and logs how the request ended.

    Args:
        app: the application inside.
        on_finished: told each record after it is logged.
    """

    def __init__(self, app: ASGIApp, on_finished: Callable[[RequestRecord], None]) -> None:
        self.app = app
        self.on_finished = on_finished

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request inside its own record."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        record = RequestRecord(accept_request_id(headers), scope["method"])
        scope.setdefault("state", {}).update(request_id=record.request_id, record=record)

        async def counting_receive() -> Message:
            message = await receive()
            record.bytes_in += len(message.get("body", b""))
            return message

        async def counting_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                # Here, since the span of the request ends with the last byte of the answer.
                if problem := scope["state"].get("problem"):
                    span.set_attribute("atelier.problem", problem)
                MutableHeaders(scope=message)["X-Request-ID"] = record.request_id
            record.bytes_out += len(message.get("body", b""))
            await send(message)

        span = trace.get_current_span()
        span.set_attribute("atelier.request_id", record.request_id)
        token = _request_id.set(record.request_id)
        started = time.perf_counter()
        with _callers_trace(headers):
            try:
                await self.app(scope, counting_receive, counting_send)
            finally:
                record.duration_s = time.perf_counter() - started
                record.problem = scope["state"].get("problem", "")
                record.route = _route_template(scope)
                level = logging.DEBUG if is_probe(scope) else logging.INFO
                logger.log(level, "request_finished", extra={"fields": record.as_fields()})
                self.on_finished(record)
                _request_id.reset(token)


def request_ids() -> dict[str, str]:
    """The present request's id and place in its trace, as headers for another process."""
    ids = {"x-request-id": _request_id.get()}
    _TRACE_CONTEXT.inject(ids)
    return ids


@contextmanager
def continue_request(ids: dict[str, str]) -> Iterator[None]:
    """Log the block's events as those of the request whose :func:`request_ids` came here."""
    token = _request_id.set(ids.get("x-request-id", ""))
    attached = context.attach(_TRACE_CONTEXT.extract(ids))
    try:
        yield
    finally:
        context.detach(attached)
        _request_id.reset(token)


def is_probe(scope: Scope) -> bool:
    """Whether a request asks how things are, of which there are many, all alike."""
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    return path in _PROBES or path.startswith(_PROGRESS)


@contextmanager
def _callers_trace(headers: Headers) -> Iterator[None]:
    """Take part in the trace that the caller names, where tracing has not done so already."""
    offered = headers.getlist("traceparent")
    if len(offered) != 1 or trace.get_current_span().get_span_context().is_valid:
        yield
        return
    token = context.attach(_TRACE_CONTEXT.extract({"traceparent": offered[0]}))
    try:
        yield
    finally:
        context.detach(token)


def _trace_ids() -> dict[str, str]:
    """Give the ids of the current trace and of our span in it; without tracing, that is none."""
    span = trace.get_current_span().get_span_context()
    if not span.is_valid:
        return {}
    ids = {"trace_id": trace.format_trace_id(span.trace_id)}
    if not span.is_remote:
        ids["span_id"] = trace.format_span_id(span.span_id)
    return ids


def _route_template(scope: Scope) -> str:
    if "route" in scope:
        return str(scope["route"].path_format)
    # The documentation's routes leave no template, and have no parameters that would need one.
    return str(scope["path"]) if "endpoint" in scope else UNMATCHED_ROUTE


def accept_request_id(headers: Headers) -> str:
    """The id that a client gave its request, or a new one where that is of no use."""
    offered = headers.get("x-request-id", "")
    return offered if REQUEST_ID_PATTERN.fullmatch(offered) else uuid.uuid4().hex
