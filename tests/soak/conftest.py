"""A real service for each test, the figures that tests find, and one JSON line of them all."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.load import make_form, make_jpeg, saturate
from benchmarks.report import describe_machine, read_commit
from benchmarks.servers import Server, run_service
from model_zoo.cards import SHIPPED_ZOO
from service.settings import available_cores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_FIGURES = pytest.StashKey[list[dict[str, Any]]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_FIGURES] = []


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """After all that pytest says, so that this is the last line."""
    if figures := config.stash.get(_FIGURES, None):
        cores = available_cores()
        report = {
            "benchmark": "soak",
            "machine": describe_machine(cores, cores),
            "commit": read_commit(),
            "checks": figures,
        }
        print(json.dumps(report))  # noqa: T201  # what `make soak` ends in


@pytest.fixture
def check(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Note a figure for the JSON line, then hold it to its bounds."""

    def check(name: str, value: float, *, least: float = 0, most: float = float("inf")) -> None:
        holds = least <= value <= most
        bound = {"least": least} | ({} if most == float("inf") else {"most": most})
        figure = {"name": name, "value": round(value, 4), "bound": bound, "holds": holds}
        request.config.stash[_FIGURES].append(figure)
        assert holds, f"{name} is {value:.4g}, not within {bound}"

    return check


@dataclass(frozen=True, slots=True)
class Watched:
    """A running service, and what must be true of it when all is over."""

    server: Server

    def paints(self) -> bool:
        """Whether a good request gets its picture."""
        call = make_form(make_jpeg(96, 64), style=shipped_style())
        answers, _ = saturate(self.server.url, [call], clients=1, count=1, keep_body=True)
        return answers[0].status == 200 and answers[0].body.startswith(b"\xff\xd8")

    def settled(self, seconds: float = 5.0) -> bool:
        """Whether nothing is in flight any more, at the latest after so long."""
        ends_s = time.monotonic() + seconds
        while self.server.read_metric("atelier_in_flight_requests"):
            if time.monotonic() > ends_s:
                return False
            time.sleep(0.05)
        return True

    def descriptors(self) -> int:
        """Open files, connections among them."""
        return len(list(Path(f"/proc/{self.server.process.pid}/fd").iterdir()))

    def threads(self) -> int:
        return len(list(Path(f"/proc/{self.server.process.pid}/task").iterdir()))


def shipped_style() -> str:
    """A style of ``fast``, as the greeting names one."""
    return "starry-night"


@pytest.fixture
def start() -> Callable[..., contextlib.AbstractContextManager[Watched]]:
    """Run the service with the shipped zoo and settings of one's own."""

    @contextlib.contextmanager
    def start(zoo: Path = SHIPPED_ZOO, module: str = "service", **variables: str) -> Iterator[Any]:
        with run_service(zoo, available_cores(), module=module, **variables) as server:
            yield Watched(server)

    return start
