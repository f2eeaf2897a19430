from __future__ import annotations

from contextlib import ExitStack

import pytest

from service.errors import BusyError
from service.live_hall import LiveHall


def test_hall_when_full_then_refuses_and_a_leaver_makes_room() -> None:
    hall = LiveHall(2, 2)
    with ExitStack() as first:
        first.enter_context(hall.enter("a"))
        with hall.enter("b"):
            assert hall.sessions == 2
            with pytest.raises(BusyError, match="2 live sessions are as many as") as raised:
                hall.enter("c").__enter__()
            assert raised.value.headers["Retry-After"] == "10"
            first.close()
            with hall.enter("c"):
                assert hall.sessions == 2
    assert hall.sessions == 0


def test_client_that_has_its_share_is_refused_and_another_is_not() -> None:
    hall = LiveHall(4, 1)
    with hall.enter("a"):
        with pytest.raises(BusyError, match="one client may have"):
            hall.enter("a").__enter__()
        with hall.enter("b"):
            pass
    with hall.enter("a"):
        pass


def test_place_is_given_back_when_the_session_fails() -> None:
    hall = LiveHall(1, 1)
    with pytest.raises(ZeroDivisionError), hall.enter("a"):
        raise ZeroDivisionError
    with hall.enter("a"):
        pass


def test_those_at_the_door_are_bounded_each_and_together_and_take_no_place_inside() -> None:
    hall = LiveHall(1, 1)
    with ExitStack() as door:
        for _ in range(4):
            door.enter_context(hall.wait_at_door("a"))
        with pytest.raises(BusyError):
            door.enter_context(hall.wait_at_door("a"))
        with hall.enter("a"):
            assert hall.sessions == 1
        for number in range(12):
            door.enter_context(hall.wait_at_door(str(number)))
        with pytest.raises(BusyError):
            door.enter_context(hall.wait_at_door("z"))
