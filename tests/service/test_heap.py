"""What goes back to the system."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from typing import Any

import pytest

from service.runtimes import heap

SCRIPT = """
import ctypes, os, sys
from service.runtimes.heap import return_large_blocks

if sys.argv[1] == "set":
    return_large_blocks()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

def resident_mib():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

def take(size):
    block = libc.malloc(size)
    ctypes.memset(block, 1, size)
    return block

libc.free(take(30 * 2**20))  # by which glibc learns that blocks of that size come and go
before, maps = resident_mib(), []
for _ in range(20):
    maps.append(take(5 * 2**20))
    take(100_000)
for block in maps:
    libc.free(block)
print(resident_mib() - before)
"""


def left_mib(mode: str) -> float:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    command = [sys.executable, "-c", SCRIPT, mode]
    return float(subprocess.check_output(command, env=environment, text=True))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the rule is glibc's")
def test_large_blocks_go_back_though_small_ones_lie_behind_them() -> None:
    assert left_mib("leave") > 50
    assert left_mib("set") < 10


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MALLOC_MMAP_THRESHOLD_", "1048576"),
        ("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=1048576"),
    ],
)
def test_operators_own_threshold_stands(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(heap.ctypes, "CDLL", asked.append)
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)
    monkeypatch.setenv(name, value)
    heap.return_large_blocks()
    assert not asked


@pytest.mark.parametrize("fault", [AttributeError, OSError, TypeError])
def test_other_c_libraries_are_left_alone(
    fault: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise fault

    monkeypatch.setattr(heap.ctypes, "CDLL", refuse)
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)
    heap.return_large_blocks()
