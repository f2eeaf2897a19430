"""Throughput beside that of other servers, with the same weights and photographs.

    python -m benchmarks.peers [--quick] [--threads N]

The service and one peer run at a time, and are loaded in turn by as many clients. Each peer is
measured with eager torch, and again with our runtime given to it, so that the second row compares
servers alone. Needs `pip install litserve 'ray[serve]'`; a peer that is not installed is left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.generators import write_zoo
from benchmarks.load import make_form, make_jpeg, percentiles_ms, saturate
from benchmarks.report import check, describe_machine, finish
from benchmarks.servers import ServerError, run_service
from service.settings import available_cores

if TYPE_CHECKING:
    from collections.abc import Iterator

SIDE_PX = 512
CLIENTS = 8
PEERS = {"plain": "fastapi", "lit": "litserve", "ray_serve": "ray"}
"""Module here by name, and the package without which it is left out."""
BUSY_WHEN_IDLE = ("lit",)
"""Peers that ask their queues again and again: held still while the service is measured."""
BOUNDS = {("plain", "eager"): {"fast": 1.5, "johnson": 1.5}} | {
    (peer, "ours"): {"fast": 1.05, "johnson": 1.0} for peer in ("lit", "ray_serve")
}
_START_S = 120.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How long each part runs."""

    rounds: int
    seconds: float


FULL = Plan(rounds=3, seconds=6)
QUICK = Plan(rounds=2, seconds=5)


def main() -> int:
    """Measure, print the table and the JSON line; 1 where a check does not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter runs of what has a bound")
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    arguments = parser.parse_args()
    plan = QUICK if arguments.quick else FULL
    print(
        f"{'peer':<11}{'runtime':<9}{'generator':<10}{'ours/s':>8}{'peer/s':>8}{'ratio':>7}"
        f"{'ours p95':>10}{'peer p95':>10}"
    )
    results = []
    for peer in arguments.peers:
        package = PEERS[peer]
        if importlib.util.find_spec(package) is None:
            print(f"{peer:<11}left out: {package} is not installed")
            continue
        for runtime in ("eager", "ours"):
            if arguments.quick and (peer, runtime) not in BOUNDS:
                continue
            for generator in ("fast", "johnson"):
                results.append(measure(peer, runtime, generator, plan, arguments.threads))
                print_row(results[-1])
    checks = list_checks(results)
    machine = describe_machine(available_cores(), arguments.threads)
    return finish("peers", machine, results, checks)


def measure(peer: str, runtime: str, generator: str, plan: Plan, threads: int) -> dict[str, Any]:
    """Load the service and one peer in turn."""
    calls = [make_form(make_jpeg(SIDE_PX, SIDE_PX), style=generator)]
    with tempfile.TemporaryDirectory() as folder:
        write_zoo(Path(folder), {generator: generator})
        rates: dict[str, list[float]] = {"ours": [], "peer": []}
        answers: dict[str, list[Any]] = {"ours": [], "peer": []}
        with (
            run_service(Path(folder), threads) as service,
            run_peer(peer, Path(folder), generator, runtime, threads) as (process, peer_url),
        ):
            urls = {"ours": service.url, "peer": peer_url}
            for url in urls.values():
                saturate(url, calls, clients=CLIENTS, seconds=2)
            for _ in range(plan.rounds):
                for side, url in urls.items():
                    if peer in BUSY_WHEN_IDLE:
                        hold = signal.SIGSTOP if side == "ours" else signal.SIGCONT
                        os.killpg(process.pid, hold)
                    some, elapsed_s = saturate(url, calls, clients=CLIENTS, seconds=plan.seconds)
                    if any(answer.status != 200 for answer in some):
                        raise ServerError(f"{side} answered {some[0].status}")
                    rates[side].append(len(some) / elapsed_s)
                    answers[side] += some
    ours_p95, peer_p95 = (percentiles_ms(answers[side])["p95_ms"] for side in urls)
    return {
        "peer": peer,
        "runtime": runtime,
        "generator": generator,
        "ours_images_per_s": round(statistics.median(rates["ours"]), 3),
        "peer_images_per_s": round(statistics.median(rates["peer"]), 3),
        "ratio": round(
            statistics.median(a / b for a, b in zip(rates["ours"], rates["peer"], strict=True)), 3
        ),
        "ours_p95_ms": ours_p95,
        "peer_p95_ms": peer_p95,
        "p95_ratio": round(ours_p95 / peer_p95, 3),
    }


@contextmanager
def run_peer(
    peer: str, zoo: Path, style: str, runtime: str, threads: int
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run one peer on a free port of this machine; give its process and address.

    Raises:
        ServerError: it did not answer in time.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    variables = {
        "PEER_ZOO": str(zoo),
        "PEER_STYLE": style,
        "PEER_RUNTIME": runtime,
        "PEER_THREADS": str(threads),
        "PEER_PORT": str(port),
    }
    with subprocess.Popen(
        [sys.executable, "-m", f"benchmarks.peers.{peer}"],
        env=os.environ | variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # it may start processes of its own
    ) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_until_live(f"{url}/livez", process)
            yield process, url
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def _wait_until_live(url: str, process: subprocess.Popen[bytes]) -> None:
    ends_s = time.perf_counter() + _START_S
    while time.perf_counter() < ends_s:
        if process.poll() is not None:
            raise ServerError(f"the peer ended with status {process.returncode}")
        try:
            urllib.request.urlopen(url, timeout=5).close()  # noqa: S310
        except (OSError, urllib.error.URLError):
            time.sleep(0.3)
        else:
            return
    raise ServerError(f"no answer from {url} within {_START_S:g} s")


def list_checks(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Hold what was measured against what was asked; a peer that is missing fails its check."""
    checks = []
    for (peer, runtime), bounds in BOUNDS.items():
        for generator, bound in bounds.items():
            rows = [
                row
                for row in results
                if (row["peer"], row["runtime"], row["generator"]) == (peer, runtime, generator)
            ] or [{"ratio": 0.0, "p95_ratio": 99.0}]
            name = f"{generator} over {peer} with {runtime}"
            checks += [
                check(name, min, rows, "ratio", bound),
                check(f"{name}, p95", max, rows, "p95_ratio", 1.0),
            ]
    return checks


def print_row(row: dict[str, Any]) -> None:
    """Print one line of the table."""
    print(
        f"{row['peer']:<11}{row['runtime']:<9}{row['generator']:<10}"
        f"{row['ours_images_per_s']:>8.2f}{row['peer_images_per_s']:>8.2f}{row['ratio']:>7.3f}"
        f"{row['ours_p95_ms']:>10.1f}{row['peer_p95_ms']:>10.1f}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
