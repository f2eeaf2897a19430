"""Studio: all that paints behind one door, built from the settings; an application serves it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

from service.batcher import Batcher
from service.gate import AdmissionGate
from service.lifecycle import Health, Lifecycle
from service.live_painter import LivePainter
from service.pipeline import StylizePipeline
from service.reloader import ZooReloader
from service.stylizer import StyleEngine, Stylizer
from service.threads import step_back
from service.zoos import Zoo, Zoos

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor

    from model_zoo.cards import Manifest
    from service.jobs import Job
    from service.metrics import Metrics
    from service.pipeline import StyleRequest, StylizedImage
    from service.settings import Settings

GPU_BATCH_JOBS = 8
"""Most in a batch on a GPU, unless a setting says so; docs/decisions/0008 has the figures."""


class Pipeline(Protocol):
    """Carries out requests."""

    @property
    def gate(self) -> AdmissionGate:
        """What is asked before a body is read, and holds it."""

    @property
    def manifest(self) -> Manifest:
        """The styles that a request which comes now may ask for."""

    async def stylize(self, request: StyleRequest) -> StylizedImage:
        """Carry out one request.

        Raises:
            ServiceError: whichever kind says what went wrong.
        """


class Studio(Protocol):
    """What an application serves. ``reloader`` is None where reloads are not asked for here."""

    @property
    def device(self) -> str:
        """Name of the device, for the metrics."""

    @property
    def runtime(self) -> str:
        """Name of what computes on it, for the metrics."""

    @property
    def zoos(self) -> Zoos:
        """The styles."""

    @property
    def pipeline(self) -> Pipeline:
        """Carries out requests."""

    @property
    def live_painter(self) -> LivePainter | None:
        """Paints the frames of live sessions; None where there cannot be any."""

    @property
    def lifecycle(self) -> Health:
        """Knows whether it can."""

    @property
    def reloader(self) -> ZooReloader | None:
        """Puts another zoo in place."""

    def start(self) -> None:
        """Begin, on the running event loop."""

    async def aclose(self) -> None:
        """Finish what was taken on."""


def create_engine(manifest: Manifest, settings: Settings) -> Stylizer:
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


def create_model_pool(engine: StyleEngine) -> ThreadPoolExecutor:
    """As many threads as may run passes of ``engine`` at once."""
    return ThreadPoolExecutor(engine.passes_at_once, thread_name_prefix="model")


def create_batcher(
    engine: StyleEngine,
    settings: Settings,
    model_pool: Executor,
    *,
    run: Callable[..., Sequence[Any]] | None = None,
    on_batch: Callable[[int, int], None] = lambda jobs, cost: None,  # noqa: ARG005
) -> Batcher[Job, Any]:
    """Build what gathers jobs for ``engine``, on the threads of ``model_pool``.

    Args:
        engine: paints.
        settings: bound the batches.
        model_pool: of :func:`create_model_pool`.
        run: what to call in place of the engine's own.
        on_batch: told the jobs and the pixels of each batch.
    """
    return Batcher(
        run or engine.run,
        key=lambda job: job.batch_key,
        cost=lambda job: job.pixel_count,
        max_jobs=settings.max_batch_jobs or (1 if engine.device == "cpu" else GPU_BATCH_JOBS),
        max_cost=settings.max_batch_pixels,
        executor=model_pool,
        at_once=engine.passes_at_once,
        crowd=engine.crowd,
        overlaps=engine.overlaps,
        on_batch=on_batch,
    )


class LocalStudio:
    """Paints in this process.

    Args:
        settings: every knob.
        metrics: told what happens.
        engine: another one than the one that ``settings`` describe.

    Raises:
        DeviceUnavailableError: the settings ask for a device that is not there.
        ZooError: the zoo is empty, damaged, or does not fit its manifest.
    """

    def __init__(
        self, settings: Settings, metrics: Metrics, engine: StyleEngine | None = None
    ) -> None:
        zoo = Zoo.read(settings.zoo)
        self.zoos = Zoos(zoo)
        metrics.describe_zoo(zoo.digest)
        self._engine: StyleEngine = engine or create_engine(zoo.manifest, settings)
        # Nothing to do for the engine above; another one may have read another zoo, or none.
        self._engine.load(zoo.manifest)
        gate = AdmissionGate(
            settings.max_in_flight,
            max_pixels=settings.max_in_flight_pixels,
            max_body_bytes=settings.max_body_memory_bytes,
        )
        codec_pool = ThreadPoolExecutor(
            settings.codec_threads, thread_name_prefix="codec", initializer=step_back
        )
        self.model_pool = model_pool = create_model_pool(self._engine)
        batcher = create_batcher(
            self._engine,
            settings,
            model_pool,
            run=metrics.watch_passes(self._engine.run),
            on_batch=metrics.observe_batch,
        )
        self.pipeline = StylizePipeline(
            self.zoos,
            settings,
            gate=gate,
            engine=self._engine,
            batcher=batcher,
            codec_pool=codec_pool,
        )
        self.live_painter = LivePainter(
            self.zoos, settings, gate=gate, batcher=batcher, codec_pool=codec_pool
        )
        self.lifecycle = lifecycle = Lifecycle(
            zoo.manifest,
            settings,
            engine=self._engine,
            gate=gate,
            batcher=batcher,
            codec_pool=codec_pool,
            model_pool=model_pool,
            on_hang=lambda: metrics.count_fault("stalled"),
        )

        def on_reload(outcome: str) -> None:
            metrics.count_reload(outcome)
            metrics.describe_zoo(self.zoos.current.digest)

        self.reloader = ZooReloader(
            self.zoos,
            settings,
            engine=self._engine,
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
            styles_loaded=lambda: len(self.zoos.current.manifest),
            model_busy_for_seconds=lambda: batcher.busy_for_s,
            memory_budget_bytes=lambda: settings.memory_budget_mib * 2**20,
            device_memory_bytes=None if self.device == "cpu" else self._engine.device_memory_bytes,
        )

    @property
    def device(self) -> str:
        """``cpu``, or ``cuda``."""
        return self._engine.device

    @property
    def runtime(self) -> str:
        """Name of what computes on it."""
        return self._engine.runtime

    def start(self) -> None:
        """Begin to warm up, and to look for another zoo where the settings ask for it."""
        self.lifecycle.start()
        self.reloader.start()

    async def aclose(self) -> None:
        """Finish what was taken on, then let the threads go."""
        await self.reloader.aclose()
        await self.lifecycle.aclose()
