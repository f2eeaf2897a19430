"""Which jobs could share a batch in a realistic mix of photographs, and what that is worth.

    python -m benchmarks.batching [--quick] [--threads N]

The first part replays a mix of sizes over ten styles through the batcher's own rule, without
painting: how full batches become by the exact size and by sizes padded to a multiple, and how many
painted pixels would be padding. The second part is the real service under the same mix, with
batches of one and of up to eight.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.generators import write_zoo
from benchmarks.load import make_form, make_jpeg, percentiles_ms, saturate
from benchmarks.report import check, describe_machine, finish
from benchmarks.servers import ServerError, run_service
from service.settings import available_cores

STYLES = 10
IN_FLIGHT = 32
MAX_BATCH = 8
MULTIPLES_PX = (1, 64, 128, 256)
# Longer sides after max_side, and the shapes of phones, cameras, squares and crops, with weights.
_LONG_SIDES_PX = {512: 3, 768: 2, 1024: 5}
_SHAPES = {4 / 3: 30, 3 / 4: 35, 16 / 9: 10, 9 / 16: 8, 3 / 2: 5, 1.0: 7, None: 5}
_ARRIVALS = 20_000


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request: its style and size in px."""

    style: int
    height: int
    width: int


def main() -> int:
    """Measure, print both tables and the JSON line; 1 where a check does not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batching", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter runs of the service")
    parser.add_argument("--threads", type=int, default=available_cores())
    arguments = parser.parse_args()
    arrivals = draw_arrivals(_ARRIVALS)
    print(f"{'key':<26}{'mean batch':>11}{'padding':>9}")
    replays = [replay(arrivals, multiple) for multiple in MULTIPLES_PX]
    for row in replays:
        print(f"{row['key']:<26}{row['mean_batch']:>11.2f}{row['padding']:>9.1%}")
    print(f"{'most in a batch':<26}{'mean batch':>11}{'images/s':>10}{'p50 ms':>9}{'p95 ms':>9}")
    served = serve(arrivals, 4 if arguments.quick else 15, arguments.threads)
    for row in served:
        print(
            f"{row['max_batch']:<26}{row['mean_batch']:>11.2f}{row['images_per_s']:>10.2f}"
            f"{row['p50_ms']:>9.0f}{row['p95_ms']:>9.0f}"
        )
    gain = {"gain": round(served[1]["images_per_s"] / served[0]["images_per_s"], 3)}
    checks = [check("batches of eight over batches of one, on this CPU", max, [gain], "gain", 1.05)]
    machine = describe_machine(available_cores(), arguments.threads)
    return finish("batching", machine, replays + served, checks)


def draw_arrivals(count: int) -> list[Arrival]:
    """Draw requests, the same each time."""
    chance = random.Random(0)  # noqa: S311  # sizes, not secrets
    arrivals = []
    for _ in range(count):
        (long_side,) = chance.choices(list(_LONG_SIDES_PX), list(_LONG_SIDES_PX.values()))
        (shape,) = chance.choices(list(_SHAPES), list(_SHAPES.values()))
        ratio = shape or chance.uniform(0.5, 2.0)  # an odd crop
        height = round(min(long_side, long_side / ratio))
        width = round(min(long_side, long_side * ratio))
        # Some styles are asked for more than others.
        style = min(int(chance.expovariate(0.35)), STYLES - 1)
        arrivals.append(Arrival(style, height, width))
    return arrivals


def replay(arrivals: list[Arrival], multiple: int) -> dict[str, Any]:
    """Form batches as the batcher does, always ``IN_FLIGHT`` jobs waiting."""
    waiting, left = deque(arrivals[:IN_FLIGHT]), iter(arrivals[IN_FLIGHT:])
    sizes, painted_px, own_px = [], 0, 0
    while len(waiting) == IN_FLIGHT:
        key = _key(waiting[0], multiple)
        mates = [job for job in waiting if _key(job, multiple) == key][:MAX_BATCH]
        for job in mates:
            waiting.remove(job)
            own_px += job.height * job.width
        painted_px += key[1] * key[2] * len(mates)
        sizes.append(len(mates))
        waiting.extend(job for _, job in zip(mates, left, strict=False))
    return {
        "key": f"size to a multiple of {multiple} px",
        "mean_batch": round(statistics.mean(sizes), 3),
        "padding": round(painted_px / own_px - 1, 4),
    }


def _key(job: Arrival, multiple: int) -> tuple[int, int, int]:
    up = (-(-side // multiple) * multiple for side in (job.height, job.width))
    return job.style, *up  # type: ignore[return-value]


def serve(arrivals: list[Arrival], seconds: float, threads: int) -> list[dict[str, Any]]:
    """Saturate the real service with the mix, in turn with batches of one and of eight."""
    some = arrivals[:200]
    images = {
        size: make_jpeg(size[1], size[0]) for size in {(job.height, job.width) for job in some}
    }
    calls = [make_form(images[job.height, job.width], style=f"s{job.style}") for job in some]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_zoo(Path(folder), {f"s{number}": "fast" for number in range(STYLES)})
        for most in (1, MAX_BATCH):
            setting = {"ATELIER_MAX_BATCH_JOBS": str(most)}
            with run_service(Path(folder), threads, **setting) as server:
                saturate(server.url, calls, clients=16, seconds=3)
                answers, elapsed_s = saturate(server.url, calls, clients=16, seconds=seconds)
                if any(answer.status != 200 for answer in answers):
                    raise ServerError("a request failed")
                jobs, batches = (
                    server.read_metric(f"atelier_batch_size_{part}") for part in ("sum", "count")
                )
            rows.append(
                {
                    "max_batch": most,
                    "mean_batch": round(jobs / batches, 2),
                    "images_per_s": round(len(answers) / elapsed_s, 3),
                }
                | percentiles_ms(answers)
            )
    return rows


if __name__ == "__main__":
    sys.exit(main())
