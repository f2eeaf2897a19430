"""Stopping: Ctrl-C and SIGTERM become a question that a loop asks between its steps."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def stop_between_steps() -> Iterator[Callable[[], bool]]:
    """Give a function that says whether to stop; a second signal interrupts at once."""
    stop = False

    def request_stop(signum: int, frame: object) -> None:  # noqa: ARG001
        nonlocal stop
        if stop:
            raise KeyboardInterrupt  # the second time the user means it
        stop = True

    try:
        previous = {s: signal.signal(s, request_stop) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread, where signals do not arrive
        previous = {}
    try:
        yield lambda: stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
