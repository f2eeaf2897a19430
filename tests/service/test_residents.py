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


def use(residents: Residents, network: str, kind: str, needed_bytes: float) -> None:
    with residents.room(network, kind, needed_bytes):
        pass


def test_painters_keep_their_memory_while_all_of_it_fits(painters: dict[str, Any]) -> None:
    residents = Residents(painters, 100)
    for name in "abcabc":
        use(residents, name, "whole", 33)
    assert [painter.released for painter in painters.values()] == [0, 0, 0]


def test_who_painted_longest_ago_gives_its_memory_back_first(painters: dict[str, Any]) -> None:
    residents = Residents(painters, 100)
    for name in "aba":
        use(residents, name, "whole", 40)
    use(residents, "c", "whole", 40)
    assert [painter.released for painter in painters.values()] == [0, 1, 0]


def test_a_small_pass_does_not_shrink_what_a_large_one_left(painters: dict[str, Any]) -> None:
    residents = Residents(painters, 100)
    use(residents, "a", "whole", 80)
    use(residents, "a", "whole", 10)
    use(residents, "b", "whole", 30)
    assert painters["a"].released == 1


def test_a_pass_beyond_the_budget_has_the_memory_to_itself(painters: dict[str, Any]) -> None:
    residents = Residents(painters, 100)
    use(residents, "a", "whole", 10)
    use(residents, "b", "whole", 500)
    assert painters["a"].released == 1
    assert painters["b"].released == 0


def test_release_all_asks_all_and_begins_anew(painters: dict[str, Any]) -> None:
    residents = Residents(painters, 100)
    use(residents, "a", "whole", 90)
    residents.release_all()
    use(residents, "b", "whole", 90)
    assert [painter.released for painter in painters.values()] == [1, 1, 1]


def test_kinds_of_one_painter_count_each_and_are_released_together(
    painters: dict[str, Any],
) -> None:
    residents = Residents(painters, 100)
    use(residents, "a", "whole", 60)
    use(residents, "a", "tile", 30)
    use(residents, "b", "whole", 20)
    assert painters["a"].released == 1
    use(residents, "c", "whole", 80)
    assert [painter.released for painter in painters.values()] == [1, 0, 0]


def test_passes_beside_each_other_count_each(painters: dict[str, Any]) -> None:
    residents = Residents(painters, 100)
    with residents.room("a", "whole", 30), residents.room("a", "whole", 20):
        pass
    use(residents, "b", "whole", 40)
    assert painters["a"].released == 0  # 2 x 30 beside 40
    use(residents, "b", "whole", 41)
    assert painters["a"].released == 1
    use(residents, "a", "whole", 59)
    assert [painter.released for painter in painters.values()] == [1, 0, 0]


def test_who_paints_is_not_asked_for_memory(painters: dict[str, Any]) -> None:
    residents = Residents(painters, 100)
    with residents.room("a", "whole", 60):
        use(residents, "b", "whole", 30)
        use(residents, "a", "tile", 40)
        use(residents, "c", "whole", 50)
        assert [painter.released for painter in painters.values()] == [0, 1, 0]
    use(residents, "c", "whole", 50)
    assert [painter.released for painter in painters.values()] == [1, 1, 0]


def test_room_that_cannot_be_made_leaves_no_pass_behind(painters: dict[str, Any]) -> None:
    residents = Residents(painters, 100)
    use(residents, "a", "whole", 90)
    painters["a"].release_memory = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        use(residents, "b", "whole", 90)
    assert not residents._running


def test_what_passes_left_counts_until_it_is_released(painters: dict[str, Any]) -> None:
    residents = Residents(painters, 100)
    with residents.room("a", "whole", 40):
        use(residents, "a", "whole", 40)
    use(residents, "a", "whole", 10)
    use(residents, "b", "whole", 21)
    assert painters["a"].released == 1


def test_room_of_a_network_that_has_gone_asks_nobody(painters: dict[str, Any]) -> None:
    residents = Residents(painters, 100)
    use(residents, "a", "whole", 90)
    assert residents.keep(["b"])
    use(residents, "a", "whole", 90)
    use(residents, "b", "whole", 90)
    assert painters["a"].released == 0


def test_painters_that_share_a_pool_are_asked_for_nothing(painters: dict[str, Any]) -> None:
    for painter in painters.values():
        painter.keeps_memory = False
    residents = Residents(painters, 100)
    for name in "abc":
        use(residents, name, "whole", 90)
    assert [painter.released for painter in painters.values()] == [0, 0, 0]
