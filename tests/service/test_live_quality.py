"""How large frames are painted, by what painting takes; time here is a number that one gives."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from service.live_quality import STEP_PX, PaintedSide

if TYPE_CHECKING:
    from collections.abc import Callable

PERIOD_S = 1 / 15


def paint(side: PaintedSide, frames: int, cost: Callable[[int], float]) -> list[int]:
    """Paint so many frames, each of which takes as long as ``cost`` says of its side."""
    sides = []
    for _ in range(frames):
        side.note(cost(side.px), side.px)
        sides.append(side.px)
    return sides


def quadratic(seconds_at_320: float) -> Callable[[int], float]:
    return lambda px: seconds_at_320 * (px / 320) ** 2


@pytest.mark.parametrize("seconds_at_320", [0.01, 0.03, 0.06, 0.12, 0.25])
def test_side_settles_where_frames_take_no_longer_than_they_may(seconds_at_320: float) -> None:
    side, cost = PaintedSide(160, 640, PERIOD_S), quadratic(seconds_at_320)
    sides = paint(side, 600, cost)
    assert len(set(sides[-200:])) == 1
    assert side.px == 160 or cost(side.px) <= 1.1 * PERIOD_S
    assert side.px == 640 or cost(side.px + 2 * STEP_PX) > 0.85 * PERIOD_S
    assert side.px % STEP_PX == 0


def test_side_when_frames_take_too_long_then_shrinks_within_a_second() -> None:
    side = PaintedSide(160, 640, PERIOD_S)
    sides = paint(side, 15, quadratic(0.12))
    assert quadratic(0.12)(sides[-1]) <= PERIOD_S


def test_side_when_there_is_room_again_then_grows_step_by_step() -> None:
    side = PaintedSide(160, 640, PERIOD_S)
    paint(side, 60, quadratic(0.2))
    low = side.px
    sides = paint(side, 600, quadratic(0.01))
    assert low < 320
    assert sides[-1] == 640
    steps = {after - before for before, after in itertools.pairwise(sides)}
    assert steps == {0, STEP_PX}


def test_side_when_a_larger_one_proves_too_slow_then_waits_longer_before_it_grows_again() -> None:
    side = PaintedSide(160, 320, PERIOD_S)
    paint(side, 30, quadratic(0.2))
    # Slower than the square says from 256 px on, as where a cache is too small.
    sides = paint(side, 1500, lambda px: 0.03 if px < 256 else 0.09)
    grown = [
        frame
        for frame, (before, after) in enumerate(itertools.pairwise(sides))
        if before < 256 <= after
    ]
    pauses = [after - before for before, after in itertools.pairwise(grown)]
    assert len(pauses) >= 3
    assert pauses == sorted(pauses)
    assert pauses[-1] > 3 * pauses[0]


def test_side_when_frames_wait_for_others_then_shrinks_but_not_for_what_it_cannot_gain() -> None:
    for waited_s, most_s, least_s in ((0.04, PERIOD_S - 0.04, 0.015), (1.0, PERIOD_S / 4, 0.01)):
        side, cost = PaintedSide(64, 640, PERIOD_S), quadratic(0.02)
        for _ in range(600):
            side.note(cost(side.px), side.px, waited_s)
        assert least_s < cost(side.px) <= most_s + 0.1 * PERIOD_S


def test_one_slow_frame_among_fast_ones_changes_nothing() -> None:
    side = PaintedSide(160, 640, PERIOD_S)
    paint(side, 20, lambda _: 0.05)
    side.note(5.0, side.px)
    assert paint(side, 20, lambda _: 0.05) == [640] * 20


def test_first_frames_of_a_size_do_not_count() -> None:
    side = PaintedSide(160, 640, PERIOD_S)
    side.note(5.0, 640)
    side.note(5.0, 640)
    assert paint(side, 20, lambda _: 0.05) == [640] * 20


def test_side_does_not_grow_beyond_what_frames_have() -> None:
    side = PaintedSide(160, 640, PERIOD_S)
    paint(side, 60, quadratic(0.2))
    low = side.px
    for _ in range(100):
        side.note(0.001, 100)
    assert side.px == low


def test_side_when_small_frames_take_too_long_then_shrinks_below_them() -> None:
    side = PaintedSide(64, 640, PERIOD_S)
    for _ in range(10):
        side.note(0.2, 200)
    assert side.px < 200


def test_bounds_that_change_are_kept_to_at_once() -> None:
    side = PaintedSide(160, 640, PERIOD_S)
    side.aim(160, 320, PERIOD_S)
    assert side.px == 320
    side.aim(160, 480, PERIOD_S)
    assert side.px == 480  # it has never had to shrink
    paint(side, 60, quadratic(0.2))
    assert side.px < 320
    side.aim(320, 480, PERIOD_S)
    assert side.px == 320
    assert paint(side, 60, quadratic(1.0))[-1] == 320
