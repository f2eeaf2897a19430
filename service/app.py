"""create_app: the composition root, where every part of the service meets the others."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from opentelemetry import trace

from service import admin, routes
from service.access import Access
from service.batcher import Batcher
from service.browser import BrowserHeadersMiddleware, add_docs, allow_origins
from service.errors import UnhandledErrorMiddleware, error_kinds, install_error_handlers
from service.gate import AdmissionGate
from service.head import HeadMiddleware
from service.lifecycle import Lifecycle
from service.logs import RequestLogMiddleware, RequestRecord, is_probe
from service.metrics import Metrics
from service.openapi import DocumentedApp
from service.pipeline import StylizePipeline
from service.reloader import ZooReloader
from service.stylizer import StyleEngine, Stylizer
from service.threads import step_back
from service.zoos import Zoo, Zoos

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fastapi import FastAPI

    from model_zoo.cards import Manifest
    from service.settings import Settings

# Greedy batches fill themselves; docs/decisions/0008 has the figures.
_BATCH_JOBS = 8

logger = logging.getLogger(__name__)


def service_version() -> str:
    """Version of the installed distribution, or ``unknown`` in a bare checkout."""
    try:
        return version("atelier")
    except PackageNotFoundError:
        return "unknown"


def create_engine(manifest: Manifest, settings: Settings) -> StyleEngine:
    """Build the engine that ``settings`` describe, with the generators of ``manifest`` loaded.

    Raises:
        DeviceUnavailableError: the settings ask for a device that is not there.
        ZooError: a weights file cannot be loaded.
    """
    return Stylizer(
        manifest,
        device=settings.device,
        runtime=settings.runtime,
        threads=settings.model_threads,
        memory_budget_bytes=settings.memory_budget_mib * 2**20,
    )


def create_app(
    settings: Settings,
    stylizer: StyleEngine | None = None,
    *,
    tracer_provider: trace.TracerProvider | None = None,
) -> FastAPI:
    """Build the application; its lifespan warms up and, at the end, finishes what is in flight.

    Args:
        settings: every knob.
        stylizer: another engine than the one that ``settings`` describe.
        tracer_provider: takes the spans, instead of what ``OTEL_*`` variables describe.

    Raises:
        DeviceUnavailableError: the settings ask for a device that is not there.
        ZooError: the zoo is empty, damaged, or does not fit its manifest.
    """
    zoo = Zoo.read(settings.zoo)
    zoos = Zoos(zoo)
    engine = stylizer or create_engine(zoo.manifest, settings)
    # Nothing to do for the engine above; another one may have read another zoo, or none.
    engine.load(zoo.manifest)
    metrics = Metrics(kind.slug for kind in error_kinds())
    metrics.describe_build(version=service_version(), device=engine.device, runtime=engine.runtime)
    metrics.describe_zoo(zoo.digest)
    gate = AdmissionGate(
        settings.max_in_flight,
        max_pixels=settings.max_in_flight_pixels,
        max_body_bytes=settings.max_body_memory_bytes,
    )
    codec_pool = ThreadPoolExecutor(
        settings.codec_threads, thread_name_prefix="codec", initializer=step_back
    )
    model_pool = ThreadPoolExecutor(engine.passes_at_once, thread_name_prefix="model")
    batcher = Batcher(
        metrics.watch_passes(engine.run),
        key=lambda job: job.batch_key,
        cost=lambda job: job.pixel_count,
        max_jobs=settings.max_batch_jobs or (1 if engine.device == "cpu" else _BATCH_JOBS),
        max_cost=settings.max_batch_pixels,
        executor=model_pool,
        at_once=engine.passes_at_once,
        on_batch=metrics.observe_batch,
    )
    pipeline = StylizePipeline(
        zoos, settings, gate=gate, engine=engine, batcher=batcher, codec_pool=codec_pool
    )
    lifecycle = Lifecycle(
        zoo.manifest,
        settings,
        engine=engine,
        gate=gate,
        batcher=batcher,
        codec_pool=codec_pool,
        model_pool=model_pool,
        on_hang=lambda: metrics.count_fault("stalled"),
    )

    def on_reload(outcome: str) -> None:
        metrics.count_reload(outcome)
        metrics.describe_zoo(zoos.current.digest)

    reloader = ZooReloader(
        zoos,
        settings,
        engine=engine,
        lifecycle=lifecycle,
        model_pool=model_pool,
        on_outcome=on_reload,
    )
    metrics.watch(
        ready=lambda: lifecycle.is_ready,
        batcher_alive=lambda: batcher.alive,
        in_flight_requests=lambda: gate.in_flight,
        in_flight_pixels=lambda: gate.pixels,
        body_memory_bytes=lambda: gate.body_bytes,
        device_up=lambda: lifecycle.is_alive,
        queue_jobs=lambda: len(batcher),
        styles_loaded=lambda: len(zoos.current.manifest),
        model_busy_for_seconds=lambda: batcher.busy_for_s,
        memory_budget_bytes=lambda: settings.memory_budget_mib * 2**20,
        device_memory_bytes=None if engine.device == "cpu" else engine.device_memory_bytes,
    )

    def on_finished(record: RequestRecord) -> None:
        metrics.count_request(record.route, record.style, record.status, record.duration_s)
        metrics.observe_stages(record.stages_s)
        if record.problem:
            metrics.count_problem(record.problem)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:  # noqa: ARG001
        logger.info("service_started", extra={"fields": {"version": service_version()}})
        lifecycle.start()
        reloader.start()
        yield
        await reloader.aclose()
        await lifecycle.aclose()
        logger.info("service_stopped")

    app = DocumentedApp(
        title="Atelier",
        summary="Paints photographs in the style of paintings, in one forward pass",
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
    app.state.zoos, app.state.reloader, app.state.access = zoos, reloader, Access(settings)
    app.state.settings, app.state.metrics = settings, metrics
    app.state.lifecycle, app.state.pipeline = lifecycle, pipeline
    app.include_router(routes.router)
    if settings.admin_keys:
        app.include_router(admin.router)
    add_docs(app)
    install_error_handlers(app)
    # The last added stands outermost.
    app.add_middleware(UnhandledErrorMiddleware)
    app.add_middleware(HeadMiddleware)
    if settings.origins:
        allow_origins(app, settings.origins)
    app.add_middleware(BrowserHeadersMiddleware)
    app.add_middleware(RequestLogMiddleware, on_finished=on_finished)
    return app
