"""LivePainter: one frame of a live session, in order: admission, decoding, painting, encoding."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from service.darkroom import decode_admitted, mix_with_photo
from service.deadlines import Deadline
from service.errors import UnsupportedMediaTypeError
from service.formats import ENCODABLE, FORMATS, ImageFormat, detect_format
from service.images import Photo, encode_image
from service.jobs import FrameJob, PaintedFrame
from service.mixtures import Choice, choose_style, label_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from model_zoo.cards import Manifest
    from service.batcher import Batched, Batcher
    from service.gate import AdmissionGate
    from service.jobs import Job, NormStatistics
    from service.live_messages import LiveParameters
    from service.settings import Settings
    from service.steadiness import Steadiness
    from service.zoos import Zoos

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frame:
    """What came from a camera, how it is to be painted, and when it came; ``number`` counts all."""

    number: int
    data: bytes
    parameters: LiveParameters
    arrived_s: float


@dataclass(frozen=True, slots=True, eq=False)
class Painting:
    """A painted frame, the photograph that it was, and how long it waited for the device."""

    frame: Frame
    photo: Photo
    painted: PaintedFrame
    waited_s: float = 0.0

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        height, width, _ = self.photo.pixels.shape
        return width, height


class LivePainter:
    """Paints frames between the pictures of requests, with the zoo that is served at the moment."""

    def __init__(
        self,
        zoos: Zoos,
        settings: Settings,
        *,
        gate: AdmissionGate,
        batcher: Batcher[Job, Any],
        codec_pool: Executor,
    ) -> None:
        self._zoos = zoos
        self._settings = settings
        self._gate = gate
        self._batcher = batcher
        self._codec_pool = codec_pool

    def check(self, parameters: LiveParameters) -> None:
        """See that there is such a style, or mixture.

        Raises:
            ServiceError: there is not.
        """
        choose_style(parameters.style, self._manifest)

    def label(self, parameters: LiveParameters) -> str:
        """A word for the log: the style, ``mixture``, or ``unknown``."""
        return label_of(parameters.style, self._manifest)

    async def paint(
        self, frame: Frame, side_px: int, steadiness: Steadiness[NormStatistics], owner: str
    ) -> Painting:
        """Paint ``frame`` at a longer side of at most ``side_px``, in the light of those before it.

        Raises:
            ServiceError: whichever kind says what went wrong.
        """
        deadline = Deadline.after(self._settings.request_timeout_s)
        with self._gate.admit(owner) as admission, self._zoos.use() as zoo:
            async with deadline.enforce():
                parameters = frame.parameters
                choice = choose_style(parameters.style, zoo.manifest)
                photo = await decode_admitted(
                    frame.data,
                    _detect(frame.data),
                    max_side_px=side_px,
                    settings=self._settings,
                    admission=admission,
                    on_codec_pool=self._on_codec_pool,
                )
                before, memory = steadiness.recall(
                    photo.pixels, _paint_as(choice), frame.arrived_s, parameters.steadiness
                )
                job = FrameJob(
                    choice.card, photo.pixels, before, memory, parameters.seed, choice.mix
                )
                batched: Batched[PaintedFrame] = await self._batcher.submit(job, deadline.at_s)
                steadiness.remember(batched.result.statistics)
                return Painting(frame, photo, batched.result, batched.queue_s)

    async def encode(self, painting: Painting) -> bytes:
        """Give a painted frame as a JPEG, mixed with its photograph as asked."""
        return await self._on_codec_pool(_finish, painting)

    @property
    def _manifest(self) -> Manifest:
        return self._zoos.current.manifest

    async def _on_codec_pool(
        self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        call = partial(function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._codec_pool, call)


def _detect(data: bytes) -> ImageFormat:
    source = detect_format(data)
    if source in ENCODABLE:
        return source
    names = ", ".join(row.name.upper() for row in ENCODABLE)
    raise UnsupportedMediaTypeError(f"the bytes are not a picture of a format for frames: {names}")


def _paint_as(choice: Choice) -> tuple[object, ...]:
    """What statistics belong to; those of another network or mixture say nothing of this one."""
    return choice.card.network, choice.mix


def _finish(painting: Painting) -> bytes:
    photo, parameters = painting.photo, painting.frame.parameters
    mixed = mix_with_photo(
        painting.painted.pixels,
        photo.pixels,
        keep_colors=parameters.keep_colors,
        strength=parameters.strength,
    )
    quality = parameters.quality or 1
    return encode_image(photo.with_pixels(mixed), FORMATS["jpeg"], quality=quality)
