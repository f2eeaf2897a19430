"""What the benchmarks' last line, JSON, says besides their figures; no benchmark itself.

Imports neither service nor trainer, so that a benchmark of one runs where the other cannot.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable


def check(
    name: str,
    worst: Callable[[list[float]], float],
    results: list[dict[str, Any]],
    key: str,
    bound: float,
) -> dict[str, Any]:
    """Compare the worst value of ``key`` with ``bound``, on the side that ``worst`` implies."""
    value = worst([result[key] for result in results])
    holds = value >= bound if worst is min else value <= bound
    return {"name": name, "value": value, "bound": bound, "holds": holds}


def finish(
    benchmark: str,
    machine: dict[str, Any],
    results: list[dict[str, Any]],
    checks: list[dict[str, Any]],
) -> int:
    """Print the last line and give the exit status: 1 where a check does not hold."""
    report = {
        "benchmark": benchmark,
        "machine": machine,
        "commit": read_commit(),
        "results": results,
        "checks": checks,
    }
    print(json.dumps(report))
    return 0 if all(entry["holds"] for entry in checks) else 1


def peak_resident_bytes(process: int | str = "self") -> int:
    """Give the largest resident size, in bytes, that a process, by its id, has had."""
    # Not ru_maxrss: Linux lets a child begin at the peak of the process that started it.
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    (peak,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(peak.split()[1]) * 1024


def describe_machine(cores: int, threads: int) -> dict[str, Any]:
    """Say what the figures depend on besides the code."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": cores,
        "threads": threads,
        "load_average": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def read_commit() -> str:
    """Short hash of the checkout, marked where it is not what was committed."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    described = subprocess.run(command, capture_output=True, text=True, check=False)
    return described.stdout.strip() or "unknown"
