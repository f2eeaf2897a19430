"""Resident memory of the service over requests of random sizes, in all its styles.

    python -m benchmarks.memory [--quick] [--threads N]

Memory that grows with every new size of picture is the leak that servers of this kind have: of
kernels, plans and buffers that are kept for each shape.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.generators import write_zoo
from benchmarks.load import make_form, make_jpeg, saturate
from benchmarks.report import check, describe_machine, finish
from benchmarks.servers import Server, run_service
from service.settings import available_cores

STYLES = {"fast-1": "fast", "fast-2": "fast", "half": "johnson_half", "net": "texture_net"}
MAX_GROWTH = 1.10
CLIENTS = 4
_SIDES_PX = (64, 448)
_REPORTS = 10


def main() -> int:
    """Measure, print the table and the JSON line; 1 where the check does not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="300 requests instead of 3,000")
    parser.add_argument("--threads", type=int, default=available_cores())
    arguments = parser.parse_args()
    requests = 300 if arguments.quick else 3000
    print(f"{'requests':>10}{'MiB':>8}{'peak MiB':>10}{'requests/s':>12}")
    with tempfile.TemporaryDirectory() as folder:
        write_zoo(Path(folder), STYLES)
        with run_service(Path(folder), arguments.threads) as server:
            results = measure(server, requests)
    # The first tenth is where the service still takes what it needs to work at all.
    first, last = results[0], results[-1]
    growth = {"growth": round(last["bytes"] / first["bytes"], 3)}
    checks = [
        check(
            "memory at the end over that after a tenth of the requests",
            max,
            [growth],
            "growth",
            MAX_GROWTH,
        )
    ]
    machine = describe_machine(available_cores(), arguments.threads)
    return finish("memory", machine, results, checks)


def measure(server: Server, requests: int) -> list[dict[str, Any]]:
    """Send all requests, each of its own size, and look at the memory after every few."""
    chance = random.Random(0)  # noqa: S311  # sizes, not secrets
    results = []
    for part in range(_REPORTS):
        started, resident = time.perf_counter(), []
        calls = []
        for _ in range(requests // _REPORTS):
            width, height = (chance.randint(*_SIDES_PX) for _ in range(2))
            style = chance.choice(list(STYLES))
            calls.append(make_form(make_jpeg(width, height), style=style))
        for first in range(0, len(calls), 20):
            some = calls[first : first + 20]
            answers, _ = saturate(server.url, some, clients=CLIENTS, count=len(some))
            if any(answer.status != 200 for answer in answers):
                raise SystemExit(f"a request failed: {answers}")
            resident.append(server.resident_bytes)
        results.append(
            {
                "requests": (part + 1) * len(calls),
                "bytes": resident[-1],
                "peak_bytes": max(resident),
                "requests_per_s": round(len(calls) / (time.perf_counter() - started), 2),
            }
        )
        print(
            f"{results[-1]['requests']:>10}{results[-1]['bytes'] / 2**20:>8.0f}"
            f"{results[-1]['peak_bytes'] / 2**20:>10.0f}{results[-1]['requests_per_s']:>12.1f}",
            flush=True,
        )
    return results


if __name__ == "__main__":
    sys.exit(main())
