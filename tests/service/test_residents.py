"""The memory that painters may hold together."""

from __future__ import annotations

from typing import Any

import pytest

from service.runtimes.residents import Residents


class StubPainter:
    def __init__(self) -> None:
        self.released = 0
        self.keeps_memory = True

    def release_memory(self) -> None:
        self.released += 1


@pytest.fixture
def painters() -> dict[str, Any]:
    return {name: StubPainter() for name in "abc"}


def test_painters_keep_their_memory_while_all_of_it_fits(painters: dict[str, Any]) -> None:
    residents = Residents(painters, 100)
    for name in "abcabc":
        residents.make_room(name, "whole", 33)
    assert [painter.released for painter in painters.values()] == [0, 0, 0]


def test_who_painted_longest_ago_gives_its_memory_back_first(painters: dict[str, Any]) -> None:
    residents = Residents(painters, 100)
    for name in "aba":
        residents.make_room(name, "whole", 40)
    residents.make_room("c", "whole", 40)
    assert [painter.released for painter in painters.values()] == [0, 1, 0]


def test_a_small_pass_does_not_shrink_what_a_large_one_left(painters: dict[str, Any]) -> None:
    residents = Residents(painters, 100)
    residents.make_room("a", "whole", 80)
    residents.make_room("a", "whole", 10)
    residents.make_room("b", "whole", 30)
    assert painters["a"].released == 1


def test_a_pass_beyond_the_budget_has_the_memory_to_itself(painters: dict[str, Any]) -> None:
    residents = Residents(painters, 100)
    residents.make_room("a", "whole", 10)
    residents.make_room("b", "whole", 500)
    assert painters["a"].released == 1
    assert painters["b"].released == 0


def test_release_all_asks_all_and_begins_anew(painters: dict[str, Any]) -> None:
    residents = Residents(painters, 100)
    residents.make_room("a", "whole", 90)
    residents.release_all()
    residents.make_room("b", "whole", 90)
    assert [painter.released for painter in painters.values()] == [1, 1, 1]


def test_kinds_of_one_painter_count_each_and_are_released_together(
    painters: dict[str, Any],
) -> None:
    residents = Residents(painters, 100)
    residents.make_room("a", "whole", 60)
    residents.make_room("a", "tile", 30)
    residents.make_room("b", "whole", 20)
    assert painters["a"].released == 1
    residents.make_room("c", "whole", 80)
    assert [painter.released for painter in painters.values()] == [1, 0, 0]


def test_painters_that_share_a_pool_are_asked_for_nothing(painters: dict[str, Any]) -> None:
    for painter in painters.values():
        painter.keeps_memory = False
    residents = Residents(painters, 100)
    for name in "abc":
        residents.make_room(name, "whole", 90)
    assert [painter.released for painter in painters.values()] == [0, 0, 0]
