"""Copies of passes, without a model."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from service.runtimes.spares import CompiledPass, Spares


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Model:
    """Runs one pass at a time, each until ``gate`` is open, and would notice two."""

    def __init__(self, gate: threading.Event) -> None:
        self.gate = gate
        self.running = 0
        self.runs = 0
        self.released = 0

    def create_infer_request(self) -> Model:
        return self

    def infer(self, inputs: list[Any], *, share_inputs: bool) -> Model:
        assert share_inputs
        self.running += 1
        try:
            assert self.running == 1
            assert self.gate.wait(10)
            self.outputs = tuple(array + 1 for array in inputs)
            self.runs += 1
        finally:
            self.running -= 1
        return self

    def to_tuple(self) -> tuple[Any, ...]:
        return self.outputs

    def release_memory(self) -> None:
        assert not self.running  # as OpenVINO has it
        self.released += 1


class Network:
    def __init__(self, spares: Spares) -> None:
        self.gate = threading.Event()
        self.models: list[Model] = []
        self.compiled = CompiledPass(self.make, spares)

    def make(self) -> Model:
        self.models.append(Model(self.gate))
        return self.models[-1]

    def run_at_once(self, pool: ThreadPoolExecutor, count: int) -> None:
        """Run so many passes that all have begun, if not in a model, before any ends."""
        self.gate.clear()
        begun = threading.Barrier(count + 1)

        def run(number: int) -> float:
            begun.wait(10)
            return float(self.compiled.run(np.full(1, number))[0][0])

        runs = [pool.submit(run, number) for number in range(count)]
        begun.wait(10)
        threading.Event().wait(0.05)
        self.gate.set()
        assert [run.result(10) for run in runs] == [number + 1 for number in range(count)]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def spares(clock: Clock) -> Spares:
    return Spares(2, clock=clock)


@pytest.fixture
def pool() -> Any:
    with ThreadPoolExecutor(6) as pool:
        yield pool


def test_one_after_the_other_needs_no_copy(spares: Spares, pool: ThreadPoolExecutor) -> None:
    network = Network(spares)
    for _ in range(3):
        network.run_at_once(pool, 1)
    assert [model.runs for model in network.models] == [3]


def test_passes_at_once_have_copies_while_there_are_some_and_then_wait(
    spares: Spares, pool: ThreadPoolExecutor
) -> None:
    network = Network(spares)
    network.run_at_once(pool, 5)
    assert len(network.models) == 3
    assert sum(model.runs for model in network.models) == 5
    network.run_at_once(pool, 3)
    assert len(network.models) == 3
    assert len(spares) == 2


def test_copies_go_to_another_network_only_when_they_were_long_idle(
    spares: Spares, pool: ThreadPoolExecutor, clock: Clock
) -> None:
    ink, wash = Network(spares), Network(spares)
    ink.run_at_once(pool, 3)
    clock.now_s = 9
    wash.run_at_once(pool, 3)
    assert len(wash.models) == 1
    clock.now_s = 10
    wash.run_at_once(pool, 2)
    assert len(wash.models) == 2
    assert len(spares) == 2
    ink.run_at_once(pool, 3)
    assert len(ink.models) == 3  # it has one left of two


def test_network_that_has_gone_takes_its_copies_along(
    spares: Spares, pool: ThreadPoolExecutor
) -> None:
    ink, wash = Network(spares), Network(spares)
    ink.run_at_once(pool, 3)
    copies = [weakref.ref(model) for model in ink.models]
    del ink
    gc.collect()
    wash.run_at_once(pool, 3)
    assert len(wash.models) == 3
    assert [copy() for copy in copies] == [None] * 3


def test_memory_is_given_back_by_every_copy_of_that_network(
    spares: Spares, pool: ThreadPoolExecutor
) -> None:
    ink, wash = Network(spares), Network(spares)
    ink.run_at_once(pool, 2)
    wash.run_at_once(pool, 2)
    ink.compiled.release_memory()
    assert [model.released for model in ink.models] == [1, 1]
    assert [model.released for model in wash.models] == [0, 0]


def test_memory_of_what_runs_is_given_back_when_it_has_ended(
    spares: Spares, pool: ThreadPoolExecutor
) -> None:
    network = Network(spares)
    runs = [pool.submit(network.compiled.run, np.zeros(1)) for _ in range(3)]
    while sum(model.running for model in network.models) < 3:
        time.sleep(0.001)
    releasing = pool.submit(network.compiled.release_memory)
    time.sleep(0.02)
    assert not releasing.done()
    network.gate.set()
    releasing.result(10)
    for run in runs:
        run.result(10)
    assert [model.released for model in network.models] == [1, 1, 1]
    network.run_at_once(pool, 3)
    assert [model.released for model in network.models] == [1, 1, 1]


def test_pass_waits_its_turn_where_no_copy_can_be_made(
    spares: Spares, pool: ThreadPoolExecutor, clock: Clock
) -> None:
    network = Network(spares)
    make, tries = network.make, 0

    def fail() -> Model:
        nonlocal tries
        tries += 1
        raise MemoryError

    network.compiled.compile = fail  # type: ignore[method-assign]
    network.run_at_once(pool, 3)
    assert [model.runs for model in network.models] == [3]
    assert tries == 1  # not for each of them
    network.compiled.compile = make  # type: ignore[method-assign]
    clock.now_s = 10
    network.run_at_once(pool, 3)
    assert len(network.models) == 3


def test_pass_that_fails_frees_its_copy(spares: Spares) -> None:
    network = Network(spares)
    network.gate.set()
    for _ in range(4):
        with pytest.raises(TypeError):
            network.compiled.run("no array")
    assert network.compiled.run(np.zeros(1))[0] == 1
    assert len(network.models) == 1


def test_outputs_are_copies(spares: Spares) -> None:
    network = Network(spares)
    network.gate.set()
    (first,) = network.compiled.run(np.zeros(1))
    assert not np.shares_memory(first, network.models[0].outputs[0])
