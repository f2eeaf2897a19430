"""create_app: the composition root, where every part of the service meets the others."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from opentelemetry import trace

from service import admin, live_routes, routes
from service.access import Access
from service.browser import BrowserHeadersMiddleware, add_docs, allow_origins
from service.errors import error_kinds
from service.head import HeadMiddleware
from service.live_hall import LiveHall
from service.logs import RequestLogMiddleware, RequestRecord, is_probe
from service.metrics import Metrics
from service.openapi import DocumentedApp
from service.page import add_page
from service.problems import UnhandledErrorMiddleware, install_error_handlers
from service.progress import ProgressBoard
from service.studio import LocalStudio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from fastapi import FastAPI

    from service.settings import Settings
    from service.studio import Studio
    from service.stylizer import StyleEngine

logger = logging.getLogger(__name__)

_OF_LIVE = (
    "Moving pictures have a WebSocket, `GET /live`, which this description has no words for: "
    "docs/live.md has them."
)


def service_version() -> str:
    """Version of the installed distribution, or ``unknown`` in a bare checkout."""
    try:
        return version("atelier")
    except PackageNotFoundError:
        return "unknown"


def create_app(
    settings: Settings,
    stylizer: StyleEngine | None = None,
    *,
    open_studio: Callable[[Settings, Metrics], Studio] | None = None,
    tracer_provider: trace.TracerProvider | None = None,
) -> FastAPI:
    """Build the application; its lifespan warms up and, at the end, finishes what is in flight.

    Args:
        settings: every knob.
        stylizer: another engine than the one that ``settings`` describe.
        open_studio: builds what paints, where that is not an engine in this process.
        tracer_provider: takes the spans, instead of what ``OTEL_*`` variables describe.

    Raises:
        DeviceUnavailableError: the settings ask for a device that is not there.
        ZooError: the zoo is empty, damaged, or does not fit its manifest.
    """
    metrics = Metrics(kind.slug for kind in error_kinds())
    studio = (
        open_studio(settings, metrics) if open_studio else LocalStudio(settings, metrics, stylizer)
    )
    metrics.describe_build(version=service_version(), device=studio.device, runtime=studio.runtime)

    def on_finished(record: RequestRecord) -> None:
        metrics.count_request(record.route, record.style, record.status, record.duration_s)
        metrics.observe_stages(record.stages_s)
        if record.problem:
            metrics.count_problem(record.problem)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:  # noqa: ARG001
        logger.info("service_started", extra={"fields": {"version": service_version()}})
        studio.start()
        yield
        await studio.aclose()
        logger.info("service_stopped")

    app = DocumentedApp(
        title="Atelier",
        summary="Paints photographs in the style of paintings, in one forward pass",
        description=_OF_LIVE if settings.live_sessions and studio.live_painter else "",
        version=service_version(),
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        lifespan=lifespan,
        # In the document, and so in clients made from it, operations are named as in routes.py.
        generate_unique_id_function=lambda route: route.name,
        # A redirect would lead to whatever Host the client or a proxy named.
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        # Spans alone, by OTEL_* variables: metrics and logs have their own ways out.
        telemetry={
            "tracer_provider": tracer_provider,
            "auto_configure": tracer_provider is None,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "exclude": is_probe,
        },
    )
    app.state.tracer = trace.get_tracer("atelier", service_version(), tracer_provider)
    app.state.settings, app.state.metrics, app.state.access = settings, metrics, Access(settings)
    app.state.zoos, app.state.reloader = studio.zoos, studio.reloader
    app.state.lifecycle, app.state.pipeline = studio.lifecycle, studio.pipeline
    app.state.progress = ProgressBoard()
    app.include_router(routes.router)
    if settings.admin_keys and studio.reloader is not None:
        app.include_router(admin.router)
    live = bool(settings.live_sessions) and studio.live_painter is not None
    if live:
        hall = LiveHall(settings.live_sessions, settings.live_sessions_per_client)
        app.state.live_painter, app.state.live_hall = studio.live_painter, hall
        metrics.watch(live_sessions=lambda: hall.sessions)
        app.include_router(live_routes.router)
    add_docs(app)
    if settings.page:
        add_page(app, settings, live=live)
    install_error_handlers(app)
    # The last added stands outermost.
    app.add_middleware(UnhandledErrorMiddleware)
    app.add_middleware(HeadMiddleware)
    if settings.origins:
        allow_origins(app, settings.origins)
    app.add_middleware(BrowserHeadersMiddleware)
    app.add_middleware(RequestLogMiddleware, on_finished=on_finished)
    return app
