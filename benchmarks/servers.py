"""A real service on this machine, for benchmarks that need one; no benchmark itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class ServerError(Exception):
    """The server did not start."""


class Server:
    """A running process that serves; ``url`` has no path."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.url = url

    def read_metric(self, name: str) -> float:
        """The sum over all series of a metric."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as answer:  # noqa: S310
            text = answer.read().decode()
        values = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)
        return sum(map(float, values))

    @property
    def resident_bytes(self) -> int:
        """Memory that the process holds now."""
        with open(f"/proc/{self.process.pid}/statm", encoding="ascii") as statm:  # noqa: PTH123
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def run_service(
    zoo: Path, threads: int, *, module: str = "service", **variables: str
) -> Iterator[Server]:
    """Run ``python -m service``, or ``module``, on a free port; it ends with the block.

    Raises:
        ServerError: with what it wrote.
    """
    own = {name: value for name, value in os.environ.items() if not name.startswith("ATELIER_")}
    settings = {"ATELIER_ZOO": str(zoo), "ATELIER_PORT": "0", "ATELIER_LOG_LEVEL": "warning"}
    settings["ATELIER_DEVICE"] = "cpu"  # as all else that benchmarks compare
    settings |= {"ATELIER_MODEL_THREADS": str(threads), "ATELIER_CODEC_THREADS": str(threads)}
    with subprocess.Popen(
        [sys.executable, "-m", module],
        env=own | settings | variables,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None  # noqa: S101  # for the type checker
            greeting = process.stdout.readline()
            if not greeting:
                raise ServerError(f"the service ended with status {process.wait()}")
            yield Server(process, greeting.split()[-1].removesuffix("/stylize"))
        finally:
            process.terminate()
