from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from service.errors import BusyError
from service.gate import AdmissionGate

if TYPE_CHECKING:
    from collections.abc import Callable


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def make_gate(
    max_in_flight: int = 100,
    max_pixels: int = 1000,
    max_body_bytes: int = 1000,
    clock: Callable[[], float] = Clock(),  # noqa: B008
) -> AdmissionGate:
    return AdmissionGate(
        max_in_flight, max_pixels=max_pixels, max_body_bytes=max_body_bytes, clock=clock
    )


def test_admit_when_full_then_refuses_and_a_leaver_makes_room() -> None:
    gate = make_gate(2)
    with gate.admit():
        with gate.admit():
            assert gate.in_flight == 2
            with pytest.raises(BusyError, match="limit of 2"), gate.admit():
                pass
            assert gate.in_flight == 2
        with gate.admit():
            assert gate.in_flight == 2
    assert gate.in_flight == 0


@pytest.mark.anyio
async def test_admit_when_the_block_fails_then_gives_everything_back() -> None:
    gate = make_gate(1)
    with pytest.raises(ZeroDivisionError), gate.admit() as admission:
        admission.reserve_pixels(10)
        raise ZeroDivisionError
    assert (gate.in_flight, gate.pixels) == (0, 0)
    async with asyncio.timeout(1):
        await gate.wait_until_idle()


def test_check_takes_no_place() -> None:
    gate = make_gate(1)
    gate.check()
    assert gate.in_flight == 0
    with gate.admit(), pytest.raises(BusyError):
        gate.check()


def test_pixels_that_do_not_fit_beside_others_are_refused_until_those_shrink() -> None:
    gate = make_gate(max_pixels=1000)
    with gate.admit() as first, gate.admit() as second:
        first.reserve_pixels(900)
        with pytest.raises(BusyError, match=r"900 pixels in flight and 200 more exceed .* 1,000"):
            second.reserve_pixels(200)
        assert gate.pixels == 900
        first.reserve_pixels(100)
        second.reserve_pixels(200)
        assert gate.pixels == 300
    assert gate.pixels == 0


def test_picture_larger_than_all_pixels_is_served_alone() -> None:
    gate = make_gate(max_pixels=1000)
    with gate.admit() as first:
        first.reserve_pixels(5000)
        with pytest.raises(BusyError, match="5,000 pixels"):
            gate.check()
        first.reserve_pixels(10)
        with gate.admit() as second, pytest.raises(BusyError):
            second.reserve_pixels(5000)


def test_bodies_share_their_bytes_and_one_alone_may_exceed_them() -> None:
    gate = make_gate(max_body_bytes=1000)
    with gate.hold_body() as first, gate.hold_body() as second:
        first.reserve(2000)
        with pytest.raises(BusyError, match="2,000 bytes of bodies and 1 more"):
            second.reserve(1)
        first.reserve(500)  # what has come of what was announced
        assert gate.body_bytes == 2000
        first.become(500)
        second.reserve(400)
        second.become(4000)  # an answer is never refused
        assert gate.body_bytes == 4500
    assert gate.body_bytes == 0


def hold(gate: AdmissionGate, stack: ExitStack, *owners: str) -> list[Any]:
    return [stack.enter_context(gate.admit(owner)) for owner in owners]


def test_one_caller_alone_holds_half_of_the_places_and_leaves_the_rest_to_others() -> None:
    gate = make_gate(8)
    with ExitStack() as stack:
        hold(gate, stack, *["greedy"] * 4)
        with pytest.raises(BusyError, match=r"your 4 requests .* share of 4 of 8"):
            gate.check("greedy")
        hold(gate, stack, "modest", "modest")
        with pytest.raises(BusyError, match="share of 2 of 8"):
            gate.check("modest")
        hold(gate, stack, "third")


def test_greedy_caller_is_refused_until_it_is_down_to_an_equal_share() -> None:
    gate = make_gate(8)
    with ExitStack() as others:
        with ExitStack() as early:
            hold(gate, early, "greedy", "greedy")
            hold(gate, others, "greedy", "greedy", "modest")
            with pytest.raises(BusyError):
                gate.check("greedy")
        with pytest.raises(BusyError):
            gate.check("greedy")  # two of eight are its share while three may come
        gate.check("modest")


def test_caller_that_holds_nothing_may_have_one_if_there_is_any() -> None:
    gate = make_gate(2, max_pixels=1000)
    with ExitStack() as stack:
        (first,) = hold(gate, stack, "a")
        first.reserve_pixels(10)
        (second,) = hold(gate, stack, "b")
        second.reserve_pixels(990)
        with pytest.raises(BusyError, match="limit of 2"):
            gate.check("c")


def test_shares_hold_for_pixels_and_bodies_too() -> None:
    gate = make_gate(max_pixels=1000, max_body_bytes=1000)
    with gate.admit("a") as first, gate.admit("a") as second:
        first.reserve_pixels(500)
        with pytest.raises(BusyError, match=r"your 500 pixels .* share of 500 of 1,000"):
            second.reserve_pixels(1)
    with gate.hold_body("a") as one, gate.hold_body("a") as two:
        one.reserve(500)
        with pytest.raises(BusyError, match="your 500 bytes of bodies"):
            two.reserve(1)


def test_callers_that_are_not_known_have_no_shares() -> None:
    gate = make_gate(8)
    with ExitStack() as stack:
        hold(gate, stack, *[""] * 7)
        gate.check()
        hold(gate, stack, "known")


def test_retry_after_is_what_is_in_flight_by_the_speed_measured() -> None:
    clock = Clock()
    gate = make_gate(3, max_pixels=10**9, clock=clock)
    with gate.admit() as admission:
        admission.reserve_pixels(1000)
        assert gate.retry_after_s == 1  # nothing is known yet
        clock.now_s = 2.0
    clock.now_s = 500.0  # idle time is no slowness
    with gate.admit() as admission:
        admission.reserve_pixels(1000)
        clock.now_s = 502.0
    with gate.admit() as first, gate.admit() as second, gate.admit():
        first.reserve_pixels(2000)
        second.reserve_pixels(2750)
        # 500 pixels a second, and one whose picture is not known counts as the mean
        assert gate.retry_after_s == 12
        with pytest.raises(BusyError, match="in 12 s") as caught:
            gate.check()
        assert caught.value.headers == {"Retry-After": "12"}
        first.reserve_pixels(10**6)
        assert gate.retry_after_s == 60


def test_speed_is_that_of_all_who_are_in_flight_together() -> None:
    clock = Clock()
    gate = make_gate(clock=clock, max_pixels=10**9)
    with ExitStack() as stack:
        for admission in hold(gate, stack, "", "", ""):
            admission.reserve_pixels(1000)
        clock.now_s = 3.0  # three were done in three seconds, not each in three
    with gate.admit() as admission:
        admission.reserve_pixels(4000)
        assert gate.retry_after_s == 4


def test_failed_requests_teach_no_speed() -> None:
    clock = Clock()
    gate = make_gate(clock=clock)
    with pytest.raises(ZeroDivisionError), gate.admit() as admission:
        admission.reserve_pixels(1)
        clock.now_s = 50.0
        raise ZeroDivisionError
    with gate.admit() as admission:
        admission.reserve_pixels(1000)
        assert gate.retry_after_s == 1
