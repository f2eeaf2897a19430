"""A live session without a socket: what is read, painted, dropped, answered, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from service.errors import CorruptImageError, DeviceLostError, StyleNotFoundError
from service.images import Photo
from service.jobs import PaintedFrame
from service.live import LiveSession
from service.live_channel import SessionEnd
from service.live_messages import LiveParameters
from service.live_painter import Frame, Painting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from service.settings import Settings

pytestmark = pytest.mark.anyio

LEFT = SessionEnd("client-left", 1000)


class Line:
    """A client's connection: what the test puts in, the session reads."""

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[str | bytes | SessionEnd] = asyncio.Queue()
        self.sent: list[str | bytes] = []
        self.open = asyncio.Event()
        self.open.set()

    async def receive(self) -> str | bytes:
        message = await self.incoming.get()
        if isinstance(message, SessionEnd):
            raise message
        return message

    async def send(self, message: str | bytes) -> None:
        await self.open.wait()
        self.sent.append(message)

    def says(self, **message: Any) -> None:
        self.incoming.put_nowait(json.dumps(message))

    @property
    def numbers(self) -> list[int]:
        return [int.from_bytes(it[:4], "big") for it in self.sent if isinstance(it, bytes)]

    def told(self, kind: str) -> list[dict[str, Any]]:
        said = [json.loads(it) for it in self.sent if isinstance(it, str)]
        return [it for it in said if it["type"] == kind]


class Brush:
    """Paints with whatever the test asks of it; holds each frame until ``gate`` is open."""

    def __init__(self) -> None:
        self.begun: list[Frame] = []
        self.sides: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.encoding = asyncio.Event()
        self.encoding.set()
        self.cancelled = 0
        self.fault: Exception | None = None
        self.seconds: Callable[[int], float] = lambda side_px: 0.0  # noqa: ARG005

    def check(self, parameters: LiveParameters) -> None:
        if parameters.style not in {"ink", "wash"}:
            raise StyleNotFoundError(f"no style {parameters.style!r}")

    async def paint(self, frame: Frame, side_px: int, steadiness: Any, owner: str) -> Painting:
        assert steadiness is not None
        assert owner == "alice"
        self.begun.append(frame)
        self.sides.append(side_px)
        try:
            await self.gate.wait()
            await asyncio.sleep(self.seconds(side_px))
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.fault:
            raise self.fault
        pixels = np.zeros((side_px * 3 // 4, side_px, 3), np.uint8)
        return Painting(frame, Photo(pixels), PaintedFrame(pixels, np.zeros(1, np.float32)))

    async def encode(self, painting: Painting) -> bytes:
        await self.encoding.wait()
        return painting.frame.parameters.style.encode()


class Live:
    def __init__(self, session: LiveSession, line: Line, brush: Brush) -> None:
        self.session, self.line, self.brush = session, line, brush
        self.frames: list[tuple[str, float | None]] = []
        self.task: asyncio.Task[SessionEnd]

    async def end(self) -> SessionEnd:
        async with asyncio.timeout(10):
            return await self.task


@pytest.fixture
async def begin(
    make_settings: Callable[..., Settings],
) -> AsyncIterator[Callable[..., Live]]:
    begun: list[Live] = []

    def begin(parameters: dict[str, Any] | None = None, **settings: Any) -> Live:
        line, brush = Line(), Brush()
        asked = LiveParameters(**{"style": "ink", "frames_per_second": 120} | (parameters or {}))
        session = LiveSession(
            line,
            brush,
            make_settings(live_max_frame_rate=120, **settings),
            asked,
            owner="alice",
            request_id="order-66",
            on_frame=lambda outcome, seconds: live.frames.append((outcome, seconds)),
        )
        live = Live(session, line, brush)
        live.task = asyncio.create_task(session.run())
        begun.append(live)
        return live

    yield begin
    for live in begun:
        live.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await live.task


async def test_each_frame_is_answered_with_its_number_after_what_was_agreed(
    begin: Callable[..., Live], wait_until: Callable[[Callable[[], bool]], Awaitable[None]]
) -> None:
    live = begin()
    for number in (1, 2, 3):
        live.line.incoming.put_nowait(b"frame")
        await wait_until(lambda: len(live.line.numbers) == number)  # noqa: B023
    assert live.line.numbers == [1, 2, 3]
    (ready,) = live.line.told("ready")
    assert json.loads(live.line.sent[0]) == ready
    assert (ready["style"], ready["from_frame"], ready["request_id"]) == ("ink", 1, "order-66")
    live.line.incoming.put_nowait(LEFT)
    assert await live.end() is LEFT
    assert [outcome for outcome, _ in live.frames] == ["painted"] * 3
    assert all(seconds is not None and 0 <= seconds < 5 for _, seconds in live.frames)
    tally = live.session.tally
    assert (tally.received, tally.painted, tally.dropped, tally.refused) == (3, 3, 0, 0)
    assert (tally.bytes_in, tally.bytes_out) == (15, sum(map(len, live.line.sent)))


async def test_newest_frame_takes_the_place_of_the_one_that_waits(
    begin: Callable[..., Live], wait_until: Callable[[Callable[[], bool]], Awaitable[None]]
) -> None:
    live = begin()
    live.brush.gate.clear()
    live.line.incoming.put_nowait(b"first")
    await wait_until(lambda: len(live.brush.begun) == 1)
    for _ in range(5):
        live.line.incoming.put_nowait(b"more")
    await wait_until(lambda: live.session.tally.received == 6)
    live.brush.gate.set()
    await wait_until(lambda: len(live.line.numbers) == 2)
    assert live.line.numbers == [1, 6]
    assert live.session.tally.dropped == 4
    assert [outcome for outcome, _ in live.frames].count("dropped") == 4


async def test_next_frame_is_painted_while_the_one_before_is_encoded(
    begin: Callable[..., Live], wait_until: Callable[[Callable[[], bool]], Awaitable[None]]
) -> None:
    live = begin()
    live.brush.encoding.clear()
    for number in (1, 2):
        live.line.incoming.put_nowait(b"frame")
        await wait_until(lambda: len(live.brush.begun) == number)  # noqa: B023
    assert live.line.numbers == []


async def test_client_that_does_not_read_is_read_on_and_holds_no_more_than_four_frames(
    begin: Callable[..., Live], wait_until: Callable[[Callable[[], bool]], Awaitable[None]]
) -> None:
    live = begin()
    await wait_until(lambda: bool(live.line.sent))
    live.line.open.clear()
    for _ in range(300):
        live.line.incoming.put_nowait(b"frame")
        await asyncio.sleep(0.001)
    await wait_until(lambda: live.session.tally.received == 300)
    # One is being sent, one waits to be, one is painted and one waits for that.
    assert len(live.brush.begun) <= 3
    assert live.session.tally.dropped >= 296
    live.line.open.set()
    await wait_until(lambda: 300 in live.line.numbers)


async def test_client_that_takes_no_answer_for_too_long_is_left(
    begin: Callable[..., Live],
) -> None:
    live = begin(send_timeout_s=0.1)
    live.line.open.clear()
    end = await live.end()
    assert (end.reason, end.code, end.text) == (
        "slow-reader",
        1008,
        "an answer was not taken for 0.1 s",
    )


async def test_session_in_which_nothing_comes_ends(begin: Callable[..., Live]) -> None:
    end = await begin(live_idle_timeout_s=0.05).end()
    assert (end.reason, end.code, end.text) == ("idle", 1008, "nothing came for 0.05 s")


async def test_session_that_lasts_too_long_ends_although_frames_come(
    begin: Callable[..., Live],
) -> None:
    live = begin(live_session_s=0.2)
    while not live.task.done():
        live.line.incoming.put_nowait(b"frame")
        await asyncio.sleep(0.01)
    end = await live.end()
    assert (end.reason, end.code) == ("expired", 1000)
    assert live.session.tally.painted


async def test_frame_that_cannot_be_painted_is_told_once_a_second_and_the_session_goes_on(
    begin: Callable[..., Live], wait_until: Callable[[Callable[[], bool]], Awaitable[None]]
) -> None:
    live = begin()
    live.brush.fault = CorruptImageError("cut short")
    for number in (1, 2, 3):
        live.line.incoming.put_nowait(b"frame")
        await wait_until(lambda: live.session.tally.refused == number)  # noqa: B023
    live.brush.fault = None
    live.line.incoming.put_nowait(b"frame")
    await wait_until(lambda: live.line.numbers == [4])
    (said,) = live.line.told("error")
    assert said["frame"] == 1
    assert said["problem"]["type"] == "urn:atelier:error:corrupt-image"
    assert said["problem"]["request_id"] == "order-66"
    assert live.frames[:3] == [("refused", None)] * 3


async def test_session_when_the_device_is_lost_then_ends_and_may_be_tried_again(
    begin: Callable[..., Live],
) -> None:
    live = begin()
    live.brush.fault = fault = DeviceLostError("hangs")
    live.line.incoming.put_nowait(b"frame")
    end = await live.end()
    assert (end.reason, end.code, end.error) == ("device-lost", 1013, fault)


async def test_session_when_a_part_of_it_fails_then_ends_and_the_cause_is_logged(
    begin: Callable[..., Live], log_lines: list[dict[str, Any]]
) -> None:
    live = begin()
    live.brush.fault = ZeroDivisionError("a fault of ours")
    live.line.incoming.put_nowait(b"frame")
    end = await live.end()
    assert (end.reason, end.code) == ("internal", 1011)
    assert end.error is not None
    assert "ours" not in end.error.detail
    (line,) = [line for line in log_lines if line["event"] == "live_session_failed"]
    assert "a fault of ours" in line["exception"]


async def test_change_holds_for_the_frames_that_come_after_it(
    begin: Callable[..., Live], wait_until: Callable[[Callable[[], bool]], Awaitable[None]]
) -> None:
    live = begin()
    live.brush.gate.clear()
    live.line.incoming.put_nowait(b"frame")
    await wait_until(lambda: len(live.brush.begun) == 1)
    live.line.says(type="change", style="wash", steadiness=0.1)
    live.line.incoming.put_nowait(b"frame")
    await wait_until(lambda: live.session.tally.received == 2)
    live.brush.gate.set()
    await wait_until(lambda: live.line.numbers == [1, 2])
    assert [it for it in live.line.sent if isinstance(it, bytes)] == [
        b"\x00\x00\x00\x01ink",
        b"\x00\x00\x00\x02wash",
    ]
    ready = live.line.told("ready")[-1]
    assert (ready["style"], ready["steadiness"], ready["from_frame"]) == ("wash", 0.1, 2)
    assert ready["frames_per_second"] == 120


@pytest.mark.parametrize(
    ("text", "slug"),
    [
        ("{", "malformed-request"),
        ('{"type": "change", "style": "cubism"}', "style-not-found"),
        ('{"type": "change", "max_side": 9999}', "invalid-parameter"),
        ('{"type": "start", "style": "wash"}', "invalid-parameter"),
    ],
)
async def test_change_that_is_not_valid_is_an_error_and_nothing_changes(
    text: str,
    slug: str,
    begin: Callable[..., Live],
    wait_until: Callable[[Callable[[], bool]], Awaitable[None]],
) -> None:
    live = begin()
    live.line.incoming.put_nowait(text)
    live.line.incoming.put_nowait(b"frame")
    await wait_until(lambda: live.line.numbers == [1])
    (said,) = live.line.told("error")
    assert said["problem"]["type"].endswith(f":{slug}")
    assert "frame" not in said
    assert live.brush.begun[0].parameters.style == "ink"
    assert len(live.line.told("ready")) == 1


async def test_session_for_a_style_that_is_not_there_does_not_begin(
    begin: Callable[..., Live],
) -> None:
    with pytest.raises(StyleNotFoundError):
        begin({"style": "cubism"})


async def test_errors_that_are_not_read_are_bounded(
    begin: Callable[..., Live], wait_until: Callable[[Callable[[], bool]], Awaitable[None]]
) -> None:
    live = begin()
    live.line.open.clear()
    for _ in range(200):
        live.line.incoming.put_nowait("{")
    await wait_until(live.line.incoming.empty)
    live.line.open.set()
    live.line.incoming.put_nowait(b"frame")
    await wait_until(lambda: live.line.numbers == [1])
    assert 1 <= len(live.line.told("error")) <= 10


async def test_no_more_frames_are_painted_than_were_asked_for(begin: Callable[..., Live]) -> None:
    live = begin({"frames_per_second": 20})
    began_s = asyncio.get_running_loop().time()
    while (elapsed_s := asyncio.get_running_loop().time() - began_s) < 1.0:
        live.line.incoming.put_nowait(b"frame")
        await asyncio.sleep(0.004)
    painted = live.session.tally.painted
    assert painted <= 20 * elapsed_s + 2
    assert painted >= 10  # of 20, on a machine that may be busy


async def test_frames_that_come_as_often_as_was_asked_for_do_not_wait_for_their_jitter(
    begin: Callable[..., Live],
) -> None:
    live = begin({"frames_per_second": 10})
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    for number in range(12):
        late_s = 0.08 if number % 2 else 0.0
        await asyncio.sleep(max(0.0, began_s + number / 10 + late_s - loop.time()))
        live.line.incoming.put_nowait(b"frame")
    await asyncio.sleep(0.2)
    waited_s = sorted(seconds for _, seconds in live.frames if seconds is not None)
    assert len(waited_s) == 12
    assert waited_s[8] < 0.05  # a third may: the machine may be busy


async def test_statistics_come_about_once_a_second(
    begin: Callable[..., Live], wait_until: Callable[[Callable[[], bool]], Awaitable[None]]
) -> None:
    live = begin({"max_side": 320})
    began_s = asyncio.get_running_loop().time()
    live.line.incoming.put_nowait(b"frame")
    await wait_until(lambda: len(live.line.told("statistics")) == 2)
    assert 1.8 < asyncio.get_running_loop().time() - began_s < 5
    first, second = live.line.told("statistics")
    assert (first["painted"], first["dropped"], first["refused"]) == (1, 0, 0)
    assert 0 < first["frames_per_second"] <= 1
    assert second["frames_per_second"] == 0
    assert (second["width"], second["height"], second["painted_side"]) == (320, 240, 320)


async def test_painted_side_shrinks_to_what_the_device_can_paint_and_is_told(
    begin: Callable[..., Live], wait_until: Callable[[Callable[[], bool]], Awaitable[None]]
) -> None:
    live = begin({"max_side": 640, "min_side": 64, "frames_per_second": 25})
    live.brush.seconds = lambda side_px: 0.16 * (side_px / 640) ** 2  # 0.04 at 320 px
    while len(live.brush.sides) < 40:
        live.line.incoming.put_nowait(b"frame")
        await asyncio.sleep(0.01)
    assert live.brush.sides[0] == 640
    side_px = live.brush.sides[-1]
    assert 192 <= side_px <= 320  # less than 320 where the machine is busy
    await wait_until(
        lambda: any(told["painted_side"] == side_px for told in live.line.told("statistics"))
    )


async def test_client_that_leaves_withdraws_the_frame_that_is_being_painted(
    begin: Callable[..., Live], wait_until: Callable[[Callable[[], bool]], Awaitable[None]]
) -> None:
    live = begin()
    live.brush.gate.clear()
    live.line.incoming.put_nowait(b"frame")
    await wait_until(lambda: len(live.brush.begun) == 1)
    live.line.incoming.put_nowait(LEFT)
    assert await live.end() is LEFT
    assert live.brush.cancelled == 1


async def test_session_that_is_cancelled_leaves_no_task_behind(
    begin: Callable[..., Live], wait_until: Callable[[Callable[[], bool]], Awaitable[None]]
) -> None:
    others = asyncio.all_tasks()
    live = begin()
    await wait_until(lambda: bool(live.line.sent))
    live.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await live.task
    assert asyncio.all_tasks() == others
