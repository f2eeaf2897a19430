"""How memory that passes no longer need goes back to the system."""

from __future__ import annotations

import contextlib
import ctypes
import os

_M_MMAP_THRESHOLD = -3
_LARGE_BYTES = 4 * 2**20


def return_large_blocks() -> None:
    """Have the C library give large blocks back to the system as soon as they are freed.

    glibc raises what it calls large with each such block, to 32 MiB; maps below that then share
    one heap, which cannot shrink while anything lies behind them. Smaller blocks stay there, where
    the next finds its pages in place: from 1 MiB on it cost 4 % of the speed at 1,024 px. Other C
    libraries have no such rule. A threshold from the environment stands.
    """
    tuned = "mmap_threshold" in os.environ.get("GLIBC_TUNABLES", "")
    if not tuned and "MALLOC_MMAP_THRESHOLD_" not in os.environ:
        with contextlib.suppress(AttributeError, OSError, TypeError):
            ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
