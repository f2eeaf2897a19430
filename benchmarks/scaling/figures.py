"""The GPU's times, from the results of other benchmarks; and all that nobody has measured."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.scaling.times import Curve, Pass, ServiceTimes

RESULTS = Path(__file__).parents[1] / "results"
SIDE_PX = 512
PROCESSES_PER_GPU = 4

# docs/decisions/0013-on-a-gpu.md: an H200, 16 cores beside it, 32 clients a process, 512 px, fast.
IMAGES_PER_S = {1: 145.0, 4: 573.0}
"""By processes on the GPU."""
PASS_OF_EIGHT_MS = 52.0

ASSUMED = (
    "arrivals are a Poisson process; clients that are refused do not come back",
    "a day is a sine of 0.4 to 1.6 times the mean; to watch fleets it is as short as the run",
    "a burst is three times the mean for 2 s, every 20 s",
    "styles are asked for in proportion to 1/k (Zipf, exponent 1)",
    "sizes are those of benchmarks.batching, a mix that somebody thought realistic",
    "one balancer knows all connections; the network and the balancer take no time",
    "N GPUs are N times what one H200 did; none is lost or restarted",
    "a pass on the GPU grows in proportion to pixels: only 512 px was measured",
    "work under the interpreter's lock is divided and grows with pixels as on the CPU",
    "loading a style on a GPU takes as long as torch took on this CPU",
    "the rate at which one H200 served was measured before the encoder let go of the lock",
)


@dataclass(frozen=True, slots=True)
class Figure:
    """A number that was measured, and where that is written."""

    name: str
    value: float
    source: str


def read_rows(benchmark: str) -> list[dict[str, Any]]:
    """The rows of a benchmark's last full run."""
    lines = (RESULTS / f"{benchmark}.txt").read_text(encoding="utf-8").splitlines()
    rows: list[dict[str, Any]] = json.loads(lines[-1])["results"]
    return rows


def gpu_times(generator: str, load_s: float) -> tuple[ServiceTimes, list[Figure]]:
    """What a process on an H200 takes, and the figures behind it.

    Two measured passes, of one picture and of eight, make a line; the rate of one process makes the
    work under its lock, which is divided into HTTP, decoding and encoding as on the CPU.
    """
    engine_ms = {
        row["batch"]: row["ms"]
        for row in read_rows("engine-h200")
        if (row["generator"], row["runtime"]) == (generator, "torch")
    }
    (served,) = (row for row in read_rows("serve") if row["generator"] == "fast")
    stages_ms, http_ms = served["stages_ms"], served["overhead_ms"]
    host_ms = http_ms + stages_ms["decode"] + stages_ms["encode"]
    slower = 1000 / IMAGES_PER_S[1] / host_ms
    each_s = (8 * engine_ms[8] - engine_ms[1]) / 7 / 1000
    times = ServiceTimes(
        passes={generator: Pass(engine_ms[1] / 1000 - each_s, _in_proportion(each_s))},
        decode=_in_proportion(slower * stages_ms["decode"] / 1000),
        encode=_in_proportion(slower * stages_ms["encode"] / 1000),
        http_s=slower * http_ms / 1000,
        refusal_s=slower * http_ms / 1000,
        load_s=load_s,
    )
    h200, decision = "results/engine-h200.txt", "decisions/0013"
    figures = [
        Figure(f"{generator}, ms a picture, passes of 1", engine_ms[1], h200),
        Figure(f"{generator}, ms a picture, passes of 8", engine_ms[8], h200),
        Figure("images/s of one process on a GPU", IMAGES_PER_S[1], decision),
        Figure("decode, ms (its share)", stages_ms["decode"], "results/serve.txt"),
        Figure("encode, ms (its share)", stages_ms["encode"], "results/serve.txt"),
        Figure("HTTP, ms (its share)", http_ms, "results/serve.txt"),
    ]
    return times, figures


def _in_proportion(seconds: float) -> Curve:
    return Curve((0.0, float(SIDE_PX**2)), (0.0, seconds))
