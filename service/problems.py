"""Problems: errors on the wire, RFC 9457 application/problem+json, and who turns them into it."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from service.errors import ClientClosedRequestError, InvalidParameterError, ServiceError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

PROBLEM_MEDIA_TYPE = "application/problem+json"


def problem_type(slug: str) -> str:
    """Give the ``type`` of a problem document, a URN that stays the same."""
    return f"urn:atelier:error:{slug}"


def problem_document(error: ServiceError, *, instance: str, request_id: str) -> dict[str, Any]:
    """Give the members of a problem document; ``instance`` is the path of what met ``error``."""
    return {
        "type": problem_type(error.slug),
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "instance": instance,
        "request_id": request_id,
    }


class ProblemResponse(JSONResponse):
    """A JSON response of the media type that RFC 9457 registers."""

    media_type = PROBLEM_MEDIA_TYPE


def problem_response(request: Request, error: ServiceError) -> ProblemResponse:
    """Render ``error``; ``instance`` is the path of the request that met it."""
    return _render(request, error.status, error.slug, error.title, error.detail, error.headers)


def install_error_handlers(app: FastAPI) -> None:
    """Make every failure of ``app`` a problem document."""
    app.add_exception_handler(ServiceError, _on_service_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(ClientDisconnect, _on_client_disconnect)


class UnhandledErrorMiddleware:
    """Answers 500 for what nothing else handled, and logs its traceback.

    Starlette's own handler for ``Exception`` stands outside all middleware, so its answer would
    miss the request id and the log line.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and answer for it if that fails before a response began."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        response_started = False

        async def watch_start(message: Message) -> None:
            nonlocal response_started
            response_started = response_started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, watch_start)
        except Exception:
            logger.exception("unhandled_error")
            if response_started:
                raise
            error = ServiceError("the service met an error of its own; its log names the cause")
            await problem_response(Request(scope), error)(scope, receive, send)


def _render(
    request: Request,
    status: int,
    slug: str,
    title: str,
    detail: str,
    headers: Mapping[str, str] | None = None,
) -> ProblemResponse:
    problem = {
        "type": problem_type(slug),
        "title": title,
        "status": status,
        "detail": detail,
        "instance": request.url.path,
        "request_id": getattr(request.state, "request_id", ""),
    }
    request.state.problem = slug  # for the log line and the metrics
    return ProblemResponse(problem, status_code=status, headers=headers)


async def _on_service_error(request: Request, error: Any) -> ProblemResponse:
    if error.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.error("service_error", exc_info=error)
    return problem_response(request, error)


async def _on_http_exception(request: Request, error: Any) -> ProblemResponse:
    title = HTTPStatus(error.status_code).phrase
    slug = title.lower().replace(" ", "-")
    detail = f"{request.method} {request.url.path}: {str(error.detail).lower()}"
    return _render(request, error.status_code, slug, title, detail, error.headers)


async def _on_validation_error(request: Request, error: Any) -> ProblemResponse:
    faults = "; ".join(f"{fault['loc'][-1]}: {fault['msg']}" for fault in error.errors())
    return problem_response(request, InvalidParameterError(faults))


async def _on_client_disconnect(request: Request, error: Any) -> ProblemResponse:  # noqa: ARG001
    return problem_response(request, ClientClosedRequestError("the client hung up"))
