"""Threads that step back do so alone."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.threads import step_back


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a niceness for each thread")
def test_a_thread_that_steps_back_is_nicer_and_the_others_are_not() -> None:
    before = niceness()
    with ThreadPoolExecutor(1, initializer=step_back) as pool:
        assert pool.submit(niceness).result() > before
    assert niceness() == before


def test_a_thread_that_may_not_step_back_works_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def forbid(*arguments: int) -> None:
        raise PermissionError(arguments)

    monkeypatch.setattr(os, "setpriority", forbid)
    with ThreadPoolExecutor(1, initializer=step_back) as pool:
        assert pool.submit(sum, [1, 2]).result() == 3
