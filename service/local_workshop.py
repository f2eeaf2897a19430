"""LocalWorkshop: paints in this process what a service with the same settings would."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

from model_zoo.cards import Manifest, ZooError
from service.deadlines import Deadline
from service.errors import BusyError, DeviceLostError, InvalidParameterError, ServiceError
from service.formats import ENCODABLE, FORMATS
from service.gate import AdmissionGate
from service.mixtures import choose_style
from service.pipeline import StyleRequest, StylizePipeline
from service.problems import problem_type
from service.studio import GPU_BATCH_JOBS, create_batcher, create_engine, create_model_pool
from service.stylizer import DeviceUnavailableError
from service.threads import step_back
from service.workshops import CannotPaintError, Painting, WorkshopLostError
from service.zoos import Zoo, Zoos

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from model_zoo.cards import StyleCard
    from service.schemas import StylizeParameters
    from service.settings import Settings

# Whoever waits for a painting can interrupt it.
_ALLOWED_S = 30 * 24 * 3600.0
# Until there is room for a picture that is not alone.
_PAUSE_S = 0.05


class LocalWorkshop:
    """Paints in this process, as a service with these settings would.

    The networks are loaded when the first picture comes, and only those that are wanted.

    Args:
        settings: every knob.
        wanted: how pictures will be painted.
        jobs: pictures at once.

    Raises:
        ServiceError: pictures cannot be painted so.
        ZooError: the zoo is empty or damaged.
    """

    def __init__(
        self, settings: Settings, wanted: Sequence[StylizeParameters], jobs: int | None = None
    ) -> None:
        # A full batch on a GPU. On a CPU they only wait, and a picture that waits is a few MB.
        self.jobs = min(jobs or settings.codec_threads + GPU_BATCH_JOBS, settings.max_in_flight)
        self.max_bytes = settings.max_body_bytes
        self._settings = settings
        self._zoo = Zoo.read(settings.zoo)
        self._cards = {each.style: self._card(each) for each in wanted}
        self._opening = asyncio.Lock()
        self._pipeline: StylizePipeline | None = None
        self._codec_pool = ThreadPoolExecutor(
            settings.codec_threads, thread_name_prefix="codec", initializer=step_back
        )
        self._model_pool: ThreadPoolExecutor | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for pool in filter(None, (self._model_pool, self._codec_pool)):
            # What nobody waits for any more is not begun.
            pool.shutdown(cancel_futures=True)

    def describe(self, parameters: StylizeParameters) -> dict[str, object]:
        """Name the parameters as they will be, and the network."""
        chosen = {"max_side": self._max_side_px(parameters), "quality": self._quality(parameters)}
        network = self._cards[parameters.style].network
        return parameters.model_dump() | chosen | {"network": network}

    async def paint(self, image: bytes, parameters: StylizeParameters) -> Painting:
        """Paint as ``POST /stylize`` does."""
        async with self._opening:
            if self._pipeline is None:
                self._pipeline = await self._open()
        try:
            return await self._paint(self._pipeline, image, parameters)
        except DeviceLostError as error:
            raise WorkshopLostError(error.detail) from error
        except ServiceError as error:
            raise CannotPaintError(
                error.detail, type=problem_type(error.slug), status=error.status
            ) from error

    async def _paint(
        self, pipeline: StylizePipeline, image: bytes, parameters: StylizeParameters
    ) -> Painting:
        if not image:
            raise InvalidParameterError("image: is empty")
        row = FORMATS[parameters.format] if parameters.format else None
        while True:
            request = StyleRequest(
                image=image,
                style=parameters.style,
                formats=(row,) if row else ENCODABLE,
                deadline=Deadline.after(_ALLOWED_S),
                max_side_px=self._max_side_px(parameters),
                quality=self._quality(parameters),
                keep_colors=parameters.keep_colors,
                strength=parameters.strength,
                seed=parameters.seed,
            )
            try:
                painted = await pipeline.stylize(request)
            except BusyError:
                # Large pictures beside it, and alone it is admitted.
                await asyncio.sleep(_PAUSE_S)
            else:
                return Painting(painted.data, painted.format.suffix)

    async def _open(self) -> StylizePipeline:
        """Load the networks.

        Raises:
            WorkshopLostError: they, or what they run on, cannot be had.
        """
        settings = self._settings
        manifest = Manifest(settings.zoo, tuple(self._cards.values()))
        try:
            engine = await asyncio.to_thread(create_engine, manifest, settings)
        except (DeviceUnavailableError, ZooError) as error:
            raise WorkshopLostError(str(error)) from error
        self._model_pool = create_model_pool(engine)
        batcher = create_batcher(engine, settings, self._model_pool)
        batcher.start()
        return StylizePipeline(
            Zoos(self._zoo),
            settings,
            gate=AdmissionGate(
                settings.max_in_flight,
                max_pixels=settings.max_in_flight_pixels,
                max_body_bytes=settings.max_body_memory_bytes,
            ),
            engine=engine,
            batcher=batcher,
            codec_pool=self._codec_pool,
        )

    def _card(self, parameters: StylizeParameters) -> StyleCard:
        limit_px = self._settings.max_side_px
        if self._max_side_px(parameters) > limit_px:
            raise InvalidParameterError(
                f"max_side: {parameters.max_side} exceeds the limit of {limit_px}"
            )
        return choose_style(parameters.style, self._zoo.manifest).card

    def _max_side_px(self, parameters: StylizeParameters) -> int:
        return parameters.max_side or self._settings.default_max_side_px

    def _quality(self, parameters: StylizeParameters) -> int:
        return parameters.quality or self._settings.default_quality
