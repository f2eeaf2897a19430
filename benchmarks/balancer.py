"""Two replicas behind nginx beside one, and what nginx itself costs.

    python -m benchmarks.balancer [--quick]

Real processes on this machine: nginx with the committed configuration, replicas with one thread on
one core each. Clients and nginx run on the cores of the replicas, so their work is taken from the
painting. Rounds of: one replica, then two, with as many clients; then one client alone, with nginx
and without. Two cores at least.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from benchmarks.generators import style_of, write_zoo
from benchmarks.load import make_form, make_jpeg, percentiles_ms, saturate
from benchmarks.nginx import run_nginx
from benchmarks.report import check, describe_machine, finish
from benchmarks.servers import run_service
from service.settings import available_cores

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.load import Call
    from benchmarks.servers import Server

CLIENTS = 8
MIN_RATIO = 1.85
MIN_SHARE = 0.4
MAX_ADDED_MS = 5.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What is painted, and how long each part runs."""

    pictures: tuple[tuple[str, int], ...]
    rounds: int
    seconds: float


FULL = Plan((("fast", 512), ("johnson_half", 384), ("johnson", 256)), rounds=4, seconds=6)
QUICK = Plan((("johnson", 256),), rounds=3, seconds=5)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Images a second of one and of two replicas, round by round; calls that failed in all."""

    one: list[float]
    two: list[float]
    failed: int

    @property
    def ratio(self) -> float:
        """How many times one replica two are, in the median round."""
        return statistics.median(two / one for one, two in zip(self.one, self.two, strict=True))


def main() -> int:
    """Measure, print the table and the JSON line; 1 where a check does not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.balancer", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one picture, under a minute")
    plan = QUICK if parser.parse_args().quick else FULL
    print(
        f"{'generator':<14}{'px':>6}{'one/s':>9}{'two/s':>9}{'ratio':>7}{'share':>7}"
        f"{'alone ms':>10}{'by nginx':>10}{'added':>7}{'failed':>8}"
    )
    results = []
    for name, side_px in plan.pictures:
        with tempfile.TemporaryDirectory() as folder:
            results.append(measure(Path(folder), name, side_px, plan))
        print_row(results[-1])
    checks = [
        check("two replicas over one, johnson", min, of(results, "johnson"), "ratio", MIN_RATIO),
        check("least share of a replica", min, results, "share", MIN_SHARE),
        check("most ms that nginx adds", max, results, "added_ms", MAX_ADDED_MS),
        check("calls that failed", max, results, "failed", 0),
    ]
    return finish("balancer", describe_machine(available_cores(), 1), results, checks)


def of(results: list[dict[str, Any]], generator: str) -> list[dict[str, Any]]:
    """The results of one generator."""
    return [result for result in results if result["generator"] == generator]


def measure(folder: Path, name: str, side_px: int, plan: Plan) -> dict[str, Any]:
    """Measure one generator at one size."""
    for part in ("zoo", "one", "two"):
        (folder / part).mkdir()
    write_zoo(folder / "zoo", {style_of(name): name})
    calls = [make_form(make_jpeg(side_px, side_px), style=style_of(name))]
    with ExitStack() as stack:
        servers = [stack.enter_context(run_replica(folder / "zoo", core)) for core in two_cores()]
        addresses = [urlsplit(server.url).netloc for server in servers]
        one = stack.enter_context(run_nginx(addresses[:1], folder / "one"))
        two = stack.enter_context(run_nginx(addresses, folder / "two"))
        saturate(two.url, calls, clients=CLIENTS, seconds=1)
        compared = compare(one.url, two.url, calls, rounds=plan.rounds, seconds=plan.seconds)
        before = [painted(server) for server in servers]
        saturate(two.url, calls, clients=CLIENTS, seconds=plan.seconds)
        shares = [painted(server) - count for server, count in zip(servers, before, strict=True)]
        direct_ms, proxied_ms = (
            percentiles_ms(saturate(url, calls, clients=1, seconds=plan.seconds)[0])["p50_ms"]
            for url in (servers[0].url, one.url)
        )
    return {
        "generator": name,
        "side_px": side_px,
        "one_images_per_s": round(statistics.median(compared.one), 3),
        "two_images_per_s": round(statistics.median(compared.two), 3),
        "ratio": round(compared.ratio, 3),
        "share": round(min(shares) / sum(shares), 3),
        "alone_ms": direct_ms,
        "alone_by_nginx_ms": proxied_ms,
        "added_ms": round(proxied_ms - direct_ms, 2),
        "failed": compared.failed,
    }


def compare(
    one: str, two: str, calls: Sequence[Call], *, rounds: int, seconds: float
) -> Comparison:
    """Saturate the balancer of one replica and that of two, in turn."""
    rates: dict[str, list[float]] = {one: [], two: []}
    failed = 0
    for _ in range(rounds):
        for url, of_side in rates.items():
            answers, elapsed_s = saturate(url, calls, clients=CLIENTS, seconds=seconds)
            good = sum(answer.status == 200 for answer in answers)
            failed += len(answers) - good
            of_side.append(good / elapsed_s)
    return Comparison(rates[one], rates[two], failed)


@contextmanager
def run_replica(zoo: Path, core: int) -> Iterator[Server]:
    """Run the service with one thread on one core; it ends with the block."""
    with ExitStack() as stack:
        with pinned_to(core):
            server = stack.enter_context(run_service(zoo, threads=1))
        yield server


@contextmanager
def pinned_to(core: int) -> Iterator[None]:
    """Let what is started in the block run on one core only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def two_cores() -> list[int]:
    """The first two cores that this process may use."""
    return sorted(os.sched_getaffinity(0))[:2]


def painted(server: Server) -> float:
    """How many pictures a replica has painted."""
    return server.read_metric("atelier_batch_size_sum")


def print_row(row: dict[str, Any]) -> None:
    """Print one line of the table."""
    print(
        f"{row['generator']:<14}{row['side_px']:>6}{row['one_images_per_s']:>9.2f}"
        f"{row['two_images_per_s']:>9.2f}{row['ratio']:>7.3f}{row['share']:>7.2f}"
        f"{row['alone_ms']:>10.1f}{row['alone_by_nginx_ms']:>10.1f}{row['added_ms']:>7.1f}"
        f"{row['failed']:>8}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
