"""LiveSession: frames in, painted frames out, the newest first. Plain asyncio, without sockets."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from service.errors import DeviceLostError, NotReadyError, ServiceError
from service.live_channel import Outbox, SessionEnd
from service.live_messages import (
    INTERNAL_ERROR,
    NORMAL_CLOSURE,
    POLICY_VIOLATION,
    error_message,
    picture_message,
    read_change,
    ready_message,
    statistics_message,
)
from service.live_painter import Frame
from service.live_quality import PaintedSide
from service.steadiness import Steadiness

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from service.live_channel import Channel
    from service.live_messages import LiveParameters
    from service.live_painter import Painting
    from service.settings import Settings

logger = logging.getLogger(__name__)

PAINTED, DROPPED, REFUSED = "painted", "dropped", "refused"

_STATISTICS_EVERY_S = 1.0
_SAME_ERROR_EVERY_S = 1.0
# After these nothing will be painted here any more.
_FATAL = (DeviceLostError, NotReadyError)


class Painter(Protocol):
    """What paints frames; service.live_painter has it."""

    def check(self, parameters: LiveParameters) -> None:
        """See that there is such a style; raises ServiceError."""

    async def paint(
        self, frame: Frame, side_px: int, steadiness: Steadiness[Any], owner: str
    ) -> Painting:
        """Paint one frame; raises ServiceError."""

    async def encode(self, painting: Painting) -> bytes:
        """Give a painted frame as a JPEG."""


@dataclass(slots=True)
class Tally:
    """What a session has done so far: frames by outcome, and bytes."""

    received: int = 0
    painted: int = 0
    dropped: int = 0
    refused: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


class LiveSession:
    """One client's stream of frames, from its first message to its end.

    At most one frame waits to be painted, which a newer one replaces, and one that is painted waits
    to be sent: a client that sends faster than the device paints, or reads slower, costs no memory.

    Args:
        channel: to the client.
        painter: paints, for all sessions.
        settings: every knob.
        parameters: what the client asked for first.
        owner: on whose behalf frames are admitted; empty where nobody is known.
        request_id: names the session in the log.
        on_frame: told the outcome of each frame, and the seconds from its arrival to its answer
            where there was one.

    Raises:
        ServiceError: the parameters are out of bounds, or the style is not there.
    """

    def __init__(
        self,
        channel: Channel,
        painter: Painter,
        settings: Settings,
        parameters: LiveParameters,
        *,
        owner: str = "",
        request_id: str = "",
        on_frame: Callable[[str, float | None], None] = lambda outcome, seconds: None,  # noqa: ARG005
    ) -> None:
        self.tally = Tally()
        self._channel = channel
        self._painter = painter
        self._settings = settings
        self._owner = owner
        self._request_id = request_id
        self._on_frame = on_frame
        self._asked = parameters
        self.parameters = parameters.agree(settings)
        painter.check(self.parameters)
        self._side = PaintedSide(*self._aim(self.parameters))
        self._steadiness: Steadiness[Any] = Steadiness()
        self._waiting: Frame | None = None
        self._frame_came = asyncio.Event()
        self._outbox = Outbox()
        self._to_send = asyncio.Event()
        self._sendable = asyncio.Event()
        self._size = (0, 0)
        self._said_at_s: dict[str, float] = {}

    async def run(self) -> SessionEnd:
        """Go on until the session ends; say why it did. The channel is then still to be closed."""
        self._say_ready()
        parts = (self._read(), self._paint(), self._answer(), self._report(), self._expire())
        tasks = [asyncio.create_task(_until_end(part)) for part in parts]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return next(task.result() for task in tasks if task in done)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self) -> None:
        """Take what the client sends, at once, whatever else goes on."""
        idle_s = self._settings.live_idle_timeout_s
        while True:
            try:
                async with asyncio.timeout(idle_s):
                    message = await self._channel.receive()
            except TimeoutError:
                text = f"nothing came for {idle_s:g} s"
                raise SessionEnd("idle", POLICY_VIOLATION, text) from None
            self.tally.bytes_in += len(message)
            if isinstance(message, bytes):
                self._take_frame(message)
            else:
                self._change(message)

    def _take_frame(self, data: bytes) -> None:
        self.tally.received += 1
        if self._waiting is not None:
            self._count(DROPPED)
        self._waiting = Frame(
            number=self.tally.received,
            data=data,
            parameters=self.parameters,
            arrived_s=time.monotonic(),
        )
        self._frame_came.set()

    def _change(self, text: str) -> None:
        """Paint the frames that come from now on by other parameters, unless they are not valid."""
        try:
            asked = read_change(text, self._asked)
            agreed = asked.agree(self._settings)
            self._painter.check(agreed)
        except ServiceError as error:
            self._say_error(error)
            return
        if self._aim(agreed) != self._aim(self.parameters):
            self._side.aim(*self._aim(agreed))
        self._asked, self.parameters = asked, agreed
        self._say_ready()

    def _aim(self, parameters: LiveParameters) -> tuple[int, int, float]:
        """Bounds of the painted side, and the seconds that a frame may take."""
        low_px = parameters.min_side or self._settings.live_min_side_px
        high_px = parameters.max_side or self._settings.live_max_side_px
        return low_px, high_px, 1 / self._rate(parameters)

    def _rate(self, parameters: LiveParameters) -> float:
        return parameters.frames_per_second or self._settings.live_frame_rate

    async def _paint(self) -> None:
        """Paint the newest frame, hand it over, and so on, no faster than was asked for."""
        due_s = time.monotonic()
        while True:
            await asyncio.sleep(due_s - time.monotonic())
            await self._frame_came.wait()
            self._frame_came.clear()
            frame, self._waiting = self._waiting, None
            if frame is None:
                continue
            began_s, period_s = time.monotonic(), 1 / self._rate(frame.parameters)
            # A frame that came late does not delay those after it.
            due_s = max(due_s, began_s - period_s) + period_s
            try:
                painting = await self._painter.paint(
                    frame, self._side.px, self._steadiness, self._owner
                )
            except ServiceError as error:
                self._count(REFUSED)
                if isinstance(error, _FATAL):
                    raise SessionEnd.of(error) from error
                self._say_error(error, frame.number)
                continue
            await self._sendable.wait()
            self._size = painting.size
            self._outbox.painting = painting
            self._sendable.clear()
            self._to_send.set()
            own_s = time.monotonic() - began_s - painting.waited_s
            self._side.note(own_s, max(painting.size), painting.waited_s)

    async def _answer(self) -> None:
        """Send what is there to be sent; the only one who does."""
        while True:
            if self._outbox.painting is None:
                self._sendable.set()
            message = self._outbox.take()
            if message is None:
                self._to_send.clear()
                await self._to_send.wait()
            elif isinstance(message, str):
                await self._send(message)
            else:
                frame = message.frame
                await self._send(picture_message(frame.number, await self._painter.encode(message)))
                self._count(PAINTED, time.monotonic() - frame.arrived_s)

    async def _send(self, message: str | bytes) -> None:
        limit_s = self._settings.send_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                await self._channel.send(message)
        except TimeoutError:
            text = f"an answer was not taken for {limit_s:g} s"
            raise SessionEnd("slow-reader", POLICY_VIOLATION, text) from None
        self.tally.bytes_out += len(message)

    async def _report(self) -> None:
        """Say about once a second how it goes."""
        painted, since_s = 0, time.monotonic()
        while True:
            await asyncio.sleep(_STATISTICS_EVERY_S)
            now_s = time.monotonic()
            rate = (self.tally.painted - painted) / (now_s - since_s)
            painted, since_s = self.tally.painted, now_s
            width, height = self._size
            self._outbox.statistics = statistics_message(
                frames_per_second=round(rate, 2),
                painted=painted,
                dropped=self.tally.dropped,
                refused=self.tally.refused,
                width=width,
                height=height,
                painted_side=self._side.px,
            )
            self._to_send.set()

    async def _expire(self) -> None:
        longest_s = self._settings.live_session_s
        await asyncio.sleep(longest_s)
        text = f"a session lasts at most {longest_s:g} s; begin another"
        raise SessionEnd("expired", NORMAL_CLOSURE, text)

    def _say_ready(self) -> None:
        self._outbox.ready = ready_message(
            self.parameters,
            from_frame=self.tally.received + 1,
            request_id=self._request_id,
            painted_side=self._side.px,
        )
        self._to_send.set()

    def _say_error(self, error: ServiceError, frame: int | None = None) -> None:
        """Tell the client, but of a fault that every frame has not with every frame."""
        now_s = time.monotonic()
        if frame is not None:
            if now_s - self._said_at_s.get(error.slug, -_SAME_ERROR_EVERY_S) < _SAME_ERROR_EVERY_S:
                return
            self._said_at_s[error.slug] = now_s
        self._outbox.errors.append(error_message(error, request_id=self._request_id, frame=frame))
        self._to_send.set()

    def _count(self, outcome: str, seconds: float | None = None) -> None:
        setattr(self.tally, outcome, getattr(self.tally, outcome) + 1)
        self._on_frame(outcome, seconds)


async def _until_end(part: Coroutine[Any, Any, None]) -> SessionEnd:
    try:
        await part
    except SessionEnd as end:
        return end
    except Exception:
        logger.exception("live_session_failed")
        own = ServiceError("the service met an error of its own; its log names the cause")
        return SessionEnd("internal", INTERNAL_ERROR, own.title, own)
    raise AssertionError("a part of a session ends by SessionEnd alone")
