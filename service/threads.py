"""Which threads go first where there are more than cores."""

from __future__ import annotations

import contextlib
import os
import sys
import threading

_NICENESS = 8


def step_back() -> None:
    """Give way to other threads of this process; for threads that decode and encode.

    A pass runs on all cores in step: while one of them decodes, the others wait for it. Linux alone
    has a niceness for each thread; where even that is forbidden, all stay as they are.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
