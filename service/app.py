"""create_app: the composition root, where every part of the service meets the others."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from fastapi import FastAPI

from model_zoo.cards import Manifest, ZooError
from service.batcher import Batcher
from service.errors import UnhandledErrorMiddleware, install_error_handlers
from service.gate import AdmissionGate
from service.head import HeadMiddleware
from service.lifecycle import Lifecycle
from service.logs import RequestLogMiddleware, RequestRecord
from service.metrics import REJECTIONS, Metrics
from service.pipeline import StylizePipeline
from service.routes import router
from service.stylizer import StyleEngine, Stylizer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

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


def _read_previews(manifest: Manifest) -> dict[str, bytes]:
    """Read the previews, a few tens of kB each: an export may replace the files at any time."""
    try:
        return {card.style_id: manifest.preview_path(card).read_bytes() for card in manifest}
    except OSError as error:
        raise ZooError(f"{error.filename}: preview cannot be read: {error.strerror}") from error


def create_app(settings: Settings, stylizer: StyleEngine | None = None) -> FastAPI:
    """Build the application; its lifespan warms up and, at the end, finishes what is in flight.

    Args:
        settings: every knob.
        stylizer: another engine than the one that ``settings`` describe.

    Raises:
        DeviceUnavailableError: the settings ask for a device that is not there.
        ZooError: the zoo is empty, damaged, or does not fit its manifest.
    """
    manifest = Manifest.read(settings.zoo)
    if not len(manifest):
        raise ZooError(f"{settings.zoo / 'manifest.toml'}: holds no style; export one first")
    manifest.verify()
    previews = _read_previews(manifest)
    engine = stylizer or Stylizer(
        manifest,
        device=settings.device,
        runtime=settings.runtime,
        threads=settings.model_threads,
        memory_budget_bytes=settings.memory_budget_mib * 2**20,
    )
    metrics = Metrics()
    gate = AdmissionGate(
        settings.max_in_flight,
        max_pixels=settings.max_in_flight_pixels,
        max_body_bytes=settings.max_body_memory_bytes,
    )
    codec_pool = ThreadPoolExecutor(settings.codec_threads, thread_name_prefix="codec")
    model_pool = ThreadPoolExecutor(1, thread_name_prefix="model")
    batcher = Batcher(
        engine.run,
        key=lambda job: job.batch_key,
        cost=lambda job: job.pixel_count,
        max_jobs=settings.max_batch_jobs or (1 if engine.device == "cpu" else _BATCH_JOBS),
        max_cost=settings.max_batch_pixels,
        executor=model_pool,
        on_batch=metrics.observe_batch,
    )
    pipeline = StylizePipeline(
        manifest, settings, gate=gate, engine=engine, batcher=batcher, codec_pool=codec_pool
    )
    lifecycle = Lifecycle(
        manifest,
        settings,
        engine=engine,
        gate=gate,
        batcher=batcher,
        codec_pool=codec_pool,
        model_pool=model_pool,
    )
    metrics.watch(
        in_flight_requests=lambda: gate.in_flight,
        in_flight_pixels=lambda: gate.pixels,
        body_bytes=lambda: gate.body_bytes,
        device_up=lambda: lifecycle.is_alive,
        queue_jobs=lambda: len(batcher),
        styles_loaded=lambda: engine.styles_loaded,
        device_memory_bytes=None if engine.device == "cpu" else engine.device_memory_bytes,
    )

    def on_finished(record: RequestRecord) -> None:
        metrics.count_request(record.route, record.style, record.status)
        metrics.observe_stages(record.stages_s)
        if record.problem in REJECTIONS:
            metrics.count_rejection(record.problem)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:  # noqa: ARG001
        logger.info("service_started", extra={"fields": {"version": service_version()}})
        lifecycle.start()
        yield
        await lifecycle.aclose()
        logger.info("service_stopped")

    app = FastAPI(
        title="Atelier",
        summary="Paints photographs in the style of paintings, in one forward pass",
        version=service_version(),
        lifespan=lifespan,
        # A redirect would lead to whatever Host the client or a proxy named.
        redirect_slashes=False,
    )
    app.state.previews = previews
    app.state.settings, app.state.metrics = settings, metrics
    app.state.lifecycle, app.state.pipeline = lifecycle, pipeline
    app.include_router(router)
    install_error_handlers(app)
    # The last added stands outermost.
    app.add_middleware(UnhandledErrorMiddleware)
    app.add_middleware(HeadMiddleware)
    app.add_middleware(RequestLogMiddleware, on_finished=on_finished)
    return app
