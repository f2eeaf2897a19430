"""More requests than can be painted: refused, not queued; what is accepted is done in time."""

from __future__ import annotations

import os
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from benchmarks.load import arrive, make_form, make_jpeg, saturate
from tests.soak.conftest import shipped_style

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = float(os.environ.get("SOAK_LOAD_SECONDS", "60"))
TIMEOUT_S = 10
MULTIPLES = (0.5, 1, 2, 4)
CLIENTS = 48


@pytest.mark.timeout(900)
def test_overload_is_refused_and_what_is_accepted_is_done(
    start: Callable[..., Any], check: Callable[..., None]
) -> None:
    calls = [make_form(make_jpeg(512, 512, name), style=shipped_style()) for name in _NAMES]
    limits = {"ATELIER_MAX_IN_FLIGHT": "16", "ATELIER_REQUEST_TIMEOUT_S": str(TIMEOUT_S)}
    with start(**limits) as watched:
        url = watched.server.url
        saturate(url, calls, clients=4, seconds=3)
        answers, elapsed_s = saturate(url, calls, clients=8, seconds=SECONDS / 4)
        assert {answer.status for answer in answers} == {200}
        capacity = len(answers) / elapsed_s
        check("capacity, images/s at 512 px", capacity, least=1)
        for multiple in MULTIPLES:
            rate = capacity * multiple
            started = time.perf_counter()
            answers = arrive(url, calls, rate=rate, seconds=SECONDS, clients=CLIENTS)
            elapsed_s = time.perf_counter() - started
            statuses = Counter(answer.status for answer in answers)
            assert statuses.keys() <= {200, 429}, statuses
            accepted_s = [answer.waited_s for answer in answers if answer.status == 200]
            goodput = len(accepted_s) / elapsed_s / capacity
            at = f"at {multiple:g} times the capacity"
            check(f"goodput over capacity {at}", goodput, least=min(multiple, 1) * 0.9)
            check(f"refused, share {at}", statuses[429] / len(answers), most=1)
            check(f"p99 of accepted {at}, s", float(np.percentile(accepted_s, 99)), most=TIMEOUT_S)
            assert watched.settled(5), "requests are in flight 5 s after the load"
            started = time.perf_counter()
            assert watched.paints()
            check(f"a request alone after {at}, s", time.perf_counter() - started, most=5)


_NAMES = ("astronaut", "coffee", "chelsea", "rocket")
