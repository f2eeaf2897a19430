"""Each side of the training benchmark in a process of its own."""

from __future__ import annotations

import multiprocessing
import signal
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.report import peak_resident_bytes
from benchmarks.training.loops import build_loop
from trainer.devices import keep_freed_memory
from trainer.errors import TrainerError
from trainer.photos import BadPhotoCount, PhotoCrops, batches

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

    from torch import Tensor

    from benchmarks.training.loops import Case
    from trainer.devices import Precision

SIDES = ("trainer", "plain", "trimmed")


class Side:
    """One side in a process of its own, which ends when told, or when this process is gone."""

    def __init__(self, name: str, case: Case) -> None:
        self.name = name
        spawn = multiprocessing.get_context("spawn")  # a CUDA context does not survive a fork
        self._pipe, self._theirs = spawn.Pipe()
        self._process = spawn.Process(target=serve, args=(self._theirs, name, case))

    def start(self) -> None:
        self._process.start()
        self._theirs.close()

    def ask(self, request: str, *arguments: object) -> Any:
        """Give a method of :class:`Measured` its arguments and wait for what it returns.

        Raises:
            TrainerError: the process said what is wrong with the input.
        """
        self._pipe.send((request, *arguments))
        return self.answer()

    def answer(self) -> Any:
        """Wait for an answer."""
        try:
            value = self._pipe.recv()
        except EOFError:
            raise RuntimeError(f"the process of side {self.name!r} ended; see above") from None
        if isinstance(value, TrainerError):
            raise value
        return value

    def close(self) -> None:
        """Tell the process to end after the step in hand."""
        self._pipe.close()

    def join(self) -> None:
        """Wait for the end of the process, which is by force where it takes long."""
        if self._process.pid is None:
            return
        self._process.join(20)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


@contextmanager
def running_sides(case: Case) -> Iterator[dict[str, Side]]:
    """Start a process for each side, wait until all are ready, and leave none behind."""
    sides = {name: Side(name, case) for name in SIDES}
    try:
        with deaf_to_ctrl_c():
            for side in sides.values():
                side.start()
        for side in sides.values():
            side.answer()
        yield sides
    finally:
        with deaf_to_ctrl_c():  # a second one must not keep the rest from being stopped
            for side in sides.values():
                side.close()
            for side in sides.values():
                side.join()


@contextmanager
def deaf_to_ctrl_c() -> Iterator[None]:
    """Ignore Ctrl-C for a moment; a process started meanwhile ignores it for good.

    A terminal sends it to every process, and the sides shall end when they are told to.
    """
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def serve(pipe: Connection, name: str, case: Case) -> None:
    """Be one side: answer requests until the other end of ``pipe`` is closed."""
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # it is, or its process is gone
        try:
            side = Measured(name, case, pipe)
            pipe.send("ready")
            while True:
                request, *arguments = pipe.recv()
                pipe.send(getattr(side, request)(*arguments))
        except TrainerError as error:
            pipe.send(error)


class Measured:
    """One side's loop and its stream of photographs."""

    def __init__(self, name: str, case: Case, pipe: Connection) -> None:
        if name == "trainer":
            keep_freed_memory()  # as the trainer's command line does, before anything is allocated
        torch.set_num_threads(case.threads)
        self.name, self.case, self.pipe = name, case, pipe
        self.loop = build_loop(name, case)
        self.pictures = decode(case, steps=10**9, workers=case.workers)

    def train(self, seconds: float) -> tuple[int, float]:
        """Make steps for ``seconds``, at least one; give pictures done and seconds taken."""
        pictures = 0
        started = time.perf_counter()
        while True:
            pixels = next(self.pictures)
            self.loop.step(pixels)
            pictures += len(pixels)
            enough = time.perf_counter() - started >= seconds
            if enough or self.pipe.poll():  # nothing is asked meanwhile: the parent is gone
                break
        if self.case.device == "cuda":
            torch.cuda.synchronize()
        return pictures, time.perf_counter() - started

    def peak_bytes(self) -> int:
        """Most memory so far: allocated on the device, or resident where that is the CPU."""
        if self.case.device == "cuda":
            return torch.cuda.max_memory_allocated()
        return peak_resident_bytes()

    def compare(self, precision: Precision) -> tuple[float, float]:
        """Objective and norm of its gradient that a fresh generator has at the first batch."""
        loop = build_loop(self.name, self.case, precision)
        return loop.step(next(decode(self.case, steps=1, workers=0)))()


def decode(case: Case, *, steps: int, workers: int) -> Iterator[Tensor]:
    """Crops of each step, uint8 (N, 3, S, S), by the trainer's own decoder."""
    data, seed = case.recipe.data, case.recipe.optimization.seed
    crops = PhotoCrops(case.photos, data.crop_px, seed)
    bad_photos = BadPhotoCount(len(crops.paths))
    loader = batches(
        crops, first_step=0, last_step=steps, batch_size=data.batch_size, workers=workers
    )
    for batch in loader:
        bad_photos.add(batch)
        yield batch.pixels
