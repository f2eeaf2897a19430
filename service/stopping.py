"""Stopping: Ctrl-C and SIGTERM once end a run in an orderly way, twice at once."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_EXIT_SIGNALLED = 128


class Stop:
    """Whether, and by which signal, the run is to end."""

    def __init__(self) -> None:
        self.signal: int | None = None

    @property
    def exit_code(self) -> int:
        """As shells report that signal."""
        return _EXIT_SIGNALLED + (self.signal or 0)


@contextmanager
def stop_on_signal(on_stop: Callable[[], object] = lambda: None) -> Iterator[Stop]:
    """Give what the first signal is noted in, for the length of the block.

    Files appear whole or not at all, so that the second may end the process where it stands.

    Args:
        on_stop: called by the first, on the main thread, at any moment.
    """
    stop = Stop()

    def note(number: int, frame: object) -> None:  # noqa: ARG001
        if stop.signal is not None:
            os._exit(_EXIT_SIGNALLED + number)
        stop.signal = number
        on_stop()

    try:
        previous = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread, where signals do not arrive
        previous = {}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
