from __future__ import annotations

import pytest

from service.errors import BusyError
from service.gate import AdmissionGate


def test_admit_when_full_then_refuses_and_a_leaver_makes_room() -> None:
    gate = AdmissionGate(2)
    with gate.admit():
        with gate.admit():
            assert gate.in_flight == 2
            with pytest.raises(BusyError, match="limit of 2"), gate.admit():
                pass
            assert gate.in_flight == 2
        with gate.admit():
            assert gate.in_flight == 2
    assert gate.in_flight == 0


def test_admit_when_the_block_fails_then_gives_the_place_back() -> None:
    gate = AdmissionGate(1)
    with pytest.raises(ZeroDivisionError), gate.admit():
        raise ZeroDivisionError
    assert gate.in_flight == 0


def test_check_takes_no_place() -> None:
    gate = AdmissionGate(1)
    gate.check()
    assert gate.in_flight == 0
    with gate.admit(), pytest.raises(BusyError):
        gate.check()


@pytest.mark.parametrize(
    ("durations_s", "retry_after_s"), [((), 1), ((0.2,), 1), ((3.2, 3.2), 4), ((500.0,), 60)]
)
def test_retry_after_is_the_mean_time_in_flight_within_bounds(
    durations_s: tuple[float, ...], retry_after_s: int
) -> None:
    gate = AdmissionGate(1)
    for duration_s in durations_s:
        gate._remember(duration_s)
    assert gate.retry_after_s == retry_after_s
    with gate.admit(), pytest.raises(BusyError) as caught:
        gate.check()
    assert caught.value.headers == {"Retry-After": str(retry_after_s)}
