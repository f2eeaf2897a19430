"""When passes are recorded, and what is kept; recording itself needs a GPU (test_cuda)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import torch

from service.runtimes import replays as module
from service.runtimes.replays import Replays

if TYPE_CHECKING:
    from torch import Tensor

PX = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)


class Graph:
    """Stands for a recording: replayed, it says so."""

    def __init__(self, log: list[str], name: str) -> None:
        self.log, self.name = log, name

    def replay(self) -> None:
        self.log.append(f"replay {self.name}")


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    log: list[str] = []

    def capture(_self: Replays, paint: Any, pixels: Tensor, _mixes: Tensor | None) -> Any:
        log.append(f"record {paint.name}")
        if paint.error is not None:
            raise paint.error
        return Graph(log, paint.name), (pixels, torch.ones(1))

    monkeypatch.setattr(Replays, "_capture", capture)
    monkeypatch.setattr(module, "_on_device", torch.clone)
    return log


class Paint:
    def __init__(self, name: str, log: list[str], error: Exception | None = None) -> None:
        self.name, self.log, self.error = name, log, error

    def __call__(self, pixels: Tensor, _mixes: Tensor | None) -> tuple[Tensor, Tensor]:
        self.log.append(f"run {self.name}")
        return pixels, torch.ones(1)


def test_pass_is_run_then_recorded_then_replayed(log: list[str]) -> None:
    replays, paint = Replays(), Paint("a", log)
    for _ in range(3):
        replays.run("a", paint, PX, None)
    assert log == ["run a", "record a", "replay a", "replay a"]
    replays.run("a", paint, PX.repeat(2, 1, 1, 1), None)  # another shape is another pass
    assert log[-1] == "run a"


def test_pass_is_recorded_only_by_a_thread_that_has_run_it(log: list[str]) -> None:
    """cuDNN makes handles for each thread at its first pass, which would spoil a recording."""
    replays, paint = Replays(), Paint("a", log)
    replays.run("a", paint, PX, None)
    with ThreadPoolExecutor(1) as pool:
        for _ in range(2):
            pool.submit(replays.run, "a", paint, PX, None).result()
    assert log == ["run a", "run a", "record a", "replay a"]
    replays.run("a", paint, PX, None)  # what one has recorded, all may replay
    assert log[-1] == "replay a"


def test_passes_too_large_to_gain_are_run(log: list[str]) -> None:
    replays, paint = Replays(), Paint("a", log)
    large = torch.zeros(1, 2048, 2048, 3, dtype=torch.uint8)
    for _ in range(3):
        replays.run("a", paint, large, None)
    assert log == ["run a"] * 3


def test_more_passes_than_may_be_recorded_are_mostly_run(log: list[str]) -> None:
    replays = Replays()
    paints = [Paint(str(n), log) for n in range(40)]
    for _ in range(10):
        for paint in paints:
            replays.run(paint.name, paint, PX, None)
    assert len(replays) <= 32
    assert sum(line.startswith("record") for line in log) < 100


def test_network_that_cannot_be_recorded_is_run_and_not_tried_again(
    log: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    replays, paint = Replays(), Paint("a", log, RuntimeError("operation not permitted"))
    for _ in range(4):
        replays.run("a", paint, PX, None)
    assert log == ["run a", "record a", "run a", "run a", "run a"]
    assert [record.getMessage() for record in caplog.records] == ["no_cuda_graphs"]


def test_recording_that_does_not_fit_gives_all_back_and_the_pass_is_run(log: list[str]) -> None:
    replays = Replays()
    small, large = Paint("a", log), Paint("b", log, torch.OutOfMemoryError("no memory"))
    for _ in range(2):
        replays.run("a", small, PX, None)
    assert len(replays) == 1
    for _ in range(3):
        replays.run("b", large, PX, None)
    assert len(replays) == 0
    assert log[-4:] == ["run b", "record b", "run b", "run b"]
