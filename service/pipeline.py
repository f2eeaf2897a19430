"""StylizePipeline: one whole request, in order. Read this module first."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from service.darkroom import decode_admitted, mix_with_photo
from service.errors import (
    DeviceOutOfMemoryError,
    ImageTooLargeError,
    UnsupportedMediaTypeError,
)
from service.formats import FORMATS, ImageFormat, choose_format, detect_format
from service.images import Photo, add_residue, encode_image
from service.jobs import Job, StyleJob
from service.mixtures import Choice, choose_style
from service.progress import Progress
from service.stages import Stages
from service.tiled import paint_in_tiles

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    import numpy as np
    from numpy.typing import NDArray

    from model_zoo.cards import Manifest
    from service.batcher import Batched, Batcher
    from service.deadlines import Deadline
    from service.gate import AdmissionGate
    from service.settings import Settings
    from service.stylizer import StyleEngine
    from service.zoos import Zoos

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StyleRequest:
    """What to paint, how, by when and for whom.

    ``formats`` are those the client takes as an answer, at least one. ``owner`` is empty where
    callers are not known. ``stages`` is filled in as each stage ends, also where a later one fails;
    ``progress`` as each begins.
    """

    image: bytes
    style: str
    formats: tuple[ImageFormat, ...]
    deadline: Deadline
    max_side_px: int
    quality: int
    keep_colors: bool = False
    strength: float = 1.0
    seed: int = 0
    owner: str = ""
    stages: Stages = field(default_factory=Stages)
    progress: Progress = field(default_factory=Progress)


@dataclass(frozen=True, slots=True, eq=False)
class StylizedImage:
    """The painted picture, encoded."""

    data: bytes
    format: ImageFormat


class StylizePipeline:
    """Takes requests through admission, decoding, batching, painting and encoding."""

    def __init__(
        self,
        zoos: Zoos,
        settings: Settings,
        *,
        gate: AdmissionGate,
        engine: StyleEngine,
        batcher: Batcher[Job, Any],
        codec_pool: Executor,
    ) -> None:
        self.gate = gate
        self._zoos = zoos
        self._settings = settings
        self._engine = engine
        self._batcher = batcher
        self._codec_pool = codec_pool

    @property
    def manifest(self) -> Manifest:
        """The styles that a request which comes now may ask for."""
        return self._zoos.current.manifest

    async def stylize(self, request: StyleRequest) -> StylizedImage:
        """Carry out one request.

        Raises:
            ServiceError: whichever kind says what went wrong.
        """
        with self.gate.admit(request.owner) as admission, self._zoos.use() as zoo:
            async with request.deadline.enforce():
                choice = choose_style(request.style, zoo.manifest)
                source = _detect(request.image)
                request.progress.begin("decoding")
                with request.stages.timed("decode", format=source.name):
                    photo = await decode_admitted(
                        request.image,
                        source,
                        max_side_px=request.max_side_px,
                        settings=self._settings,
                        admission=admission,
                        on_codec_pool=partial(self._on_codec_pool, request),
                    )
                request.stages.describe(pixels=photo.pixel_count)
                target = _choose_target(request, source, photo)
                painted = await self._paint_as_strong(choice, photo, request)
                strength = 1.0 if choice.mix else request.strength
                request.progress.begin("encoding")
                with request.stages.timed("encode", format=target.name):
                    finish = partial(_finish, request, target, photo, painted, strength)
                    return await self._on_codec_pool(request, finish)

    async def _paint_as_strong(
        self, choice: Choice, photo: Photo, request: StyleRequest
    ) -> NDArray[np.uint8]:
        """Paint ``photo``, and weaken that as far as the network can do it better than blending."""

        async def paint_in(choice: Choice) -> NDArray[np.uint8]:
            job = StyleJob(choice.card, photo.pixels, request.seed, choice.mix)
            return await self._paint(job, request)

        if request.strength == 1 or not choice.mix:
            return await paint_in(choice)
        painting = await paint_in(choice.weaker(request.strength))
        identity = await paint_in(choice.weaker(0))
        share = 1 - request.strength
        add = partial(add_residue, photo.pixels, painting, identity, share)
        return await self._on_codec_pool(request, add)

    async def _paint(self, job: StyleJob, request: StyleRequest) -> NDArray[np.uint8]:
        """Paint whole what fits the device's memory, or turns out to; the rest in tiles."""

        async def submit(part: Job) -> Any:
            request.progress.queue(partial(self._batcher.jobs_ahead, part))
            batched: Batched[Any] = await self._batcher.submit(part, request.deadline.at_s)
            request.progress.begin("painting")
            request.stages.add("queue", batched.queue_s, ended_s_ago=batched.run_s)
            request.stages.add(
                "stylize", batched.run_s, batch_size=batched.jobs, pixels=part.pixel_count
            )
            return batched.result

        painted: NDArray[np.uint8]
        most_px = self._engine.most_px(job.card)
        if job.pixel_count <= most_px:
            try:
                painted = await submit(job)
            except DeviceOutOfMemoryError:
                # There is less memory than the budget says.
                layout = self._engine.layout(job.card)
                if layout is None:
                    raise
                layout = layout.within(job.pixel_count / 2)
            else:
                return painted
        else:
            layout = self._engine.layout(job.card)
            if layout is None:
                raise ImageTooLargeError(
                    f"{job.pixel_count:,} px exceed the {most_px:,} px that this style paints at "
                    "once, and it cannot be cut into tiles; ask for a smaller max_side"
                )
        pool = partial(self._on_codec_pool, request)
        try:
            return await paint_in_tiles(job, layout, submit=submit, on_codec_pool=pool)
        except DeviceOutOfMemoryError:
            layout = layout.within(layout.side_px**2 / 3)
        # Outside the except block, whose traceback would keep the first painting alive.
        return await paint_in_tiles(job, layout, submit=submit, on_codec_pool=pool)

    async def _on_codec_pool(
        self, request: StyleRequest, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Call ``function`` on a codec thread; cancelled or late in the queue, it never runs."""

        def call() -> R:
            request.deadline.check()
            return function(*args, **kwargs)

        return await asyncio.get_running_loop().run_in_executor(self._codec_pool, call)


def _detect(image: bytes) -> ImageFormat:
    if source := detect_format(image):
        return source
    names = ", ".join(name.upper() for name in FORMATS)
    raise UnsupportedMediaTypeError(f"the bytes are not a picture of an accepted format: {names}")


def _choose_target(request: StyleRequest, source: ImageFormat, photo: Photo) -> ImageFormat:
    """Choose the answer's format while nothing is painted yet."""
    longest_px = max(photo.pixels.shape[:2])
    able = tuple(row for row in request.formats if longest_px <= row.max_side_px)
    if not able:
        names = ", ".join(row.name for row in request.formats)
        most_px = max(row.max_side_px for row in request.formats)
        raise ImageTooLargeError(
            f"a side of {longest_px} px exceeds the {most_px} px that {names} can hold; "
            "ask for another format or a smaller max_side"
        )
    return choose_format(able, source, has_alpha=photo.alpha is not None)


def _finish(
    request: StyleRequest,
    target: ImageFormat,
    photo: Photo,
    painted: NDArray[np.uint8],
    strength: float,
) -> StylizedImage:
    """Mix the painting with its photograph as asked, and encode it."""
    mixed = mix_with_photo(
        painted, photo.pixels, keep_colors=request.keep_colors, strength=strength
    )
    data = encode_image(photo.with_pixels(mixed), target, quality=request.quality)
    return StylizedImage(data, target)
