"""The batcher alone: jobs are (key, cost, name), and no model is near."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from service.batcher import Batched, Batcher
from service.errors import (
    DeadlineError,
    DeviceLostError,
    DeviceOutOfMemoryError,
    NotReadyError,
    StylizationError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

pytestmark = pytest.mark.anyio


class Job(NamedTuple):
    key: str
    name: str
    cost: int = 1


class Device:
    """Runs batches on one thread; the first waits until ``release`` so that others queue up."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.largest_fit = math.inf
        self.fail_on = ""
        self.release = threading.Event()

    def run(self, jobs: Sequence[Job]) -> list[Any]:
        self.batches.append([job.name for job in jobs])
        if len(self.batches) == 1:
            assert self.release.wait(10)
        if len(jobs) > self.largest_fit:
            raise DeviceOutOfMemoryError("does not fit")
        if any(job.name == self.fail_on for job in jobs):
            raise ZeroDivisionError(self.fail_on)
        return [job.name.upper() for job in jobs]


@pytest.fixture
def device() -> Device:
    return Device()


@asynccontextmanager
async def open_batcher(
    device: Device,
    *,
    max_jobs: int = 8,
    max_cost: int = 100,
    at_once: int = 1,
    crowd: int = 0,
) -> AsyncIterator[Batcher[Job, str]]:
    with ThreadPoolExecutor(at_once) as executor:
        batcher = Batcher(
            device.run,
            key=lambda job: job.key,
            cost=lambda job: job.cost,
            executor=executor,
            max_jobs=max_jobs,
            max_cost=max_cost,
            at_once=at_once,
            crowd=crowd,
            overlaps=lambda job: job.name != "alone",
        )
        batcher.start()
        try:
            yield batcher
        finally:
            device.release.set()
            await batcher.aclose()


async def submit_all(
    batcher: Batcher[Job, str], *jobs: Job, deadline: float = math.inf
) -> list[asyncio.Task[Batched[str]]]:
    """Submit a first job, which the device holds, and then ``jobs``, which have to wait."""
    tasks = [asyncio.create_task(batcher.submit(Job("first", "first"), math.inf))]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert batcher.busy_for_s
    for job in jobs:
        tasks.append(asyncio.create_task(batcher.submit(job, deadline)))
        await asyncio.sleep(0)
    assert len(batcher) == len(jobs)
    return tasks


async def test_submit_when_idle_then_runs_alone_at_once(device: Device) -> None:
    device.release.set()
    async with open_batcher(device) as batcher:
        batched = await batcher.submit(Job("a", "one"), math.inf)
    assert batched.result == "ONE"
    assert 0 <= batched.queue_s < 1
    assert 0 <= batched.run_s < 1


async def test_batches_group_by_key_with_the_oldest_jobs_key_first(device: Device) -> None:
    async with open_batcher(device) as batcher:
        jobs = [Job("b", "b1"), Job("a", "a1"), Job("b", "b2"), Job("c", "c1"), Job("a", "a2")]
        tasks = await submit_all(batcher, *jobs)
        device.release.set()
        results = [(await task).result for task in tasks[1:]]
    assert results == [job.name.upper() for job in jobs]
    assert device.batches == [["first"], ["b1", "b2"], ["a1", "a2"], ["c1"]]


async def test_batches_hold_at_most_max_jobs(device: Device) -> None:
    async with open_batcher(device, max_jobs=2) as batcher:
        await submit_all(batcher, *(Job("a", f"a{i}") for i in range(5)))
    assert device.batches[1:] == [["a0", "a1"], ["a2", "a3"], ["a4"]]


async def test_batches_keep_to_the_cost_budget_in_order(device: Device) -> None:
    async with open_batcher(device, max_cost=10) as batcher:
        costs = (6, 4, 5, 20, 1)
        await submit_all(batcher, *(Job("a", f"{i}:{c}", c) for i, c in enumerate(costs)))
    assert device.batches[1:] == [["0:6", "1:4"], ["2:5"], ["3:20"], ["4:1"]]


async def test_submit_when_its_caller_has_gone_then_the_job_never_runs(device: Device) -> None:
    async with open_batcher(device) as batcher:
        tasks = await submit_all(batcher, Job("a", "gone"), Job("a", "stays"))
        tasks[1].cancel()
        await asyncio.sleep(0)
        assert len(batcher) == 1
        device.release.set()
        assert (await tasks[2]).result == "STAYS"
    assert device.batches == [["first"], ["stays"]]


async def test_submit_when_its_caller_goes_while_it_runs_then_others_get_their_answer(
    device: Device,
) -> None:
    async with open_batcher(device) as batcher:
        tasks = await submit_all(batcher, Job("a", "next"))
        tasks[0].cancel()
        device.release.set()
        assert (await tasks[1]).result == "NEXT"
        assert batcher.alive


async def test_submit_when_the_deadline_passes_in_the_queue_then_the_job_never_runs(
    device: Device,
) -> None:
    async with open_batcher(device) as batcher:
        deadline = asyncio.get_running_loop().time() + 0.02
        tasks = await submit_all(batcher, Job("a", "late"), deadline=deadline)
        await asyncio.sleep(0.05)
        device.release.set()
        with pytest.raises(DeadlineError):
            await tasks[1]
    assert device.batches == [["first"]]


async def test_batch_when_out_of_memory_then_halves_until_it_fits(device: Device) -> None:
    async with open_batcher(device) as batcher:
        device.largest_fit = 2
        tasks = await submit_all(batcher, *(Job("a", f"a{i}") for i in range(5)))
        device.release.set()
        results = [(await task).result for task in tasks[1:]]
    assert results == ["A0", "A1", "A2", "A3", "A4"]
    sizes = [len(batch) for batch in device.batches[1:]]
    assert sizes == [5, 2, 3, 1, 2]


async def test_job_when_out_of_memory_alone_then_only_it_fails(device: Device) -> None:
    async with open_batcher(device) as batcher:
        tasks = await submit_all(batcher, Job("a", "a1"), Job("a", "a2"))
        device.largest_fit = 0
        device.release.set()
        for task in tasks:
            with pytest.raises(DeviceOutOfMemoryError):
                await task
        device.largest_fit = 1
        assert (await batcher.submit(Job("a", "again"), math.inf)).result == "AGAIN"


async def test_batch_when_it_fails_then_only_its_callers_know_and_the_loop_lives(
    device: Device,
) -> None:
    device.fail_on = "bad"
    async with open_batcher(device) as batcher:
        jobs = (Job("a", "bad"), Job("a", "mate"), Job("b", "stranger"))
        _, bad, mate, stranger = await submit_all(batcher, *jobs)
        device.release.set()
        for task in (bad, mate):
            with pytest.raises(ZeroDivisionError):
                await task
        assert (await stranger).result == "STRANGER"
        assert batcher.alive


async def test_result_when_it_is_an_error_then_goes_to_its_caller_alone(device: Device) -> None:
    device.run = lambda jobs: [  # type: ignore[method-assign]
        StylizationError("no picture") if job.name == "bad" else job.name for job in jobs
    ]
    async with open_batcher(device) as batcher:
        bad = asyncio.create_task(batcher.submit(Job("a", "bad"), math.inf))
        good = asyncio.create_task(batcher.submit(Job("a", "good"), math.inf))
        with pytest.raises(StylizationError):
            await bad
        assert (await good).result == "good"


async def test_batch_when_results_are_missing_then_is_an_error(device: Device) -> None:
    device.run = lambda _: []  # type: ignore[method-assign]
    async with open_batcher(device) as batcher:
        with pytest.raises(StylizationError, match="0 results came back for 1"):
            await batcher.submit(Job("a", "one"), math.inf)


async def test_abandon_answers_those_who_run_and_those_who_wait_and_the_loop_lives(
    device: Device,
) -> None:
    async with open_batcher(device) as batcher:
        tasks = await submit_all(batcher, Job("a", "waits"))
        assert batcher.busy_with == 1
        batcher.abandon(DeviceLostError("hangs"))
        for task in tasks:
            with pytest.raises(DeviceLostError):
                await task
        device.release.set()
        assert (await batcher.submit(Job("a", "later"), math.inf)).result == "LATER"
        assert batcher.busy_with == 0
    assert device.batches == [["first"], ["later"]]


async def test_batch_when_the_device_is_lost_then_says_so(device: Device) -> None:
    def run(jobs: Sequence[Job]) -> list[Any]:
        raise DeviceLostError(f"broke down at {jobs[0].name}")

    device.run = run  # type: ignore[method-assign]
    async with open_batcher(device) as batcher:
        assert batcher.fault is None
        with pytest.raises(DeviceLostError):
            await batcher.submit(Job("a", "one"), math.inf)
        assert batcher.fault == "broke down at one"


async def test_aclose_finishes_what_waits_and_takes_no_more(device: Device) -> None:
    async with open_batcher(device) as batcher:
        tasks = await submit_all(batcher, Job("a", "a1"), Job("b", "b1"))
        device.release.set()
        await batcher.aclose()
        assert [task.result().result for task in tasks] == ["FIRST", "A1", "B1"]
        assert not batcher.alive
        with pytest.raises(NotReadyError):
            await batcher.submit(Job("a", "late"), math.inf)


async def test_batcher_when_its_loop_dies_then_is_not_alive(device: Device) -> None:
    async with open_batcher(device) as batcher:
        assert batcher.alive
        (loop_task,) = batcher._loop_tasks
        loop_task.cancel()
        await asyncio.wait((loop_task,))
        assert not batcher.alive
        batcher._loop_tasks = []


async def test_batches_tell_their_size_and_cost(device: Device) -> None:
    told: list[tuple[int, int]] = []
    async with open_batcher(device) as batcher:
        batcher._on_batch = lambda jobs, cost: told.append((jobs, cost))
        await submit_all(batcher, Job("a", "a1", 3), Job("a", "a2", 4))
    assert told == [(1, 1), (2, 7)]


async def test_second_batch_starts_beside_the_first_only_when_enough_wait(device: Device) -> None:
    async with open_batcher(device, max_jobs=2, at_once=2) as batcher:
        first, a1 = await submit_all(batcher, Job("a", "a1"))
        a2, b1 = (
            asyncio.create_task(batcher.submit(job, math.inf))
            for job in (Job("a", "a2"), Job("b", "b1"))
        )
        assert [(await task).result for task in (a1, a2)] == ["A1", "A2"]
        assert not first.done()
        assert batcher.busy_with == 1
        assert device.batches == [["first"], ["a1", "a2"]]  # b1 alone does not fill one
        device.release.set()
        assert (await b1).result == "B1"


async def test_aclose_of_batches_at_once_finishes_what_waits(device: Device) -> None:
    async with open_batcher(device, max_jobs=4, at_once=2) as batcher:
        jobs = [Job("abc"[number % 3], f"j{number}") for number in range(3)]
        tasks = await submit_all(batcher, *jobs)
        tasks += [asyncio.create_task(batcher.submit(job, math.inf)) for job in jobs]
        await asyncio.sleep(0)
        closing = asyncio.create_task(batcher.aclose())
        await asyncio.sleep(0)
        device.release.set()
        await closing
        assert [task.result().result for task in tasks[1:]] == ["J0", "J1", "J2"] * 2
        assert not batcher.alive


async def test_second_batch_of_few_alike_waits_however_many_others_wait(device: Device) -> None:
    async with open_batcher(device, max_jobs=2, at_once=2) as batcher:
        tasks = await submit_all(batcher, Job("a", "a1"), Job("b", "b1"), Job("c", "c1"))
        assert device.batches == [["first"]]
        device.release.set()
        await asyncio.gather(*tasks)
    assert [len(batch) for batch in device.batches] == [1, 1, 1, 1]


async def test_second_batch_may_be_filled_by_its_cost(device: Device) -> None:
    async with open_batcher(device, max_cost=10, at_once=2) as batcher:
        first, large = await submit_all(batcher, Job("a", "large", 12))
        assert (await large).result == "LARGE"
        assert not first.done()
        device.release.set()
        await first


async def test_batch_is_halved_for_memory_beside_another(device: Device) -> None:
    device.largest_fit = 1
    async with open_batcher(device, max_jobs=2, at_once=2) as batcher:
        first, a1 = await submit_all(batcher, Job("a", "a1"))
        a2 = asyncio.create_task(batcher.submit(Job("a", "a2"), math.inf))
        assert [(await task).result for task in (a1, a2)] == ["A1", "A2"]
        assert not first.done()
        device.release.set()
        await first
    assert device.batches == [["first"], ["a1", "a2"], ["a1"], ["a2"]]


async def test_batches_begin_beside_each_other_where_there_is_a_crowd(
    device: Device, wait_until: Any
) -> None:
    began: list[str] = []
    go_on = {name: threading.Event() for name in ("first", "a1", "b1", "c1")}

    def run(jobs: Sequence[Job]) -> list[Any]:
        began.append(jobs[0].name)
        assert go_on[jobs[0].name].wait(10)
        return [job.name for job in jobs]

    device.run = run  # type: ignore[method-assign]
    async with open_batcher(device, max_jobs=1, at_once=3, crowd=4) as batcher:
        first, a1, b1 = await submit_all(batcher, Job("a", "a1"), Job("b", "b1"))
        await asyncio.sleep(0.01)
        assert began == ["first"]  # three are no crowd
        c1 = asyncio.create_task(batcher.submit(Job("c", "c1"), math.inf))
        await wait_until(lambda: sorted(began) == ["a1", "b1", "first"])
        go_on["a1"].set()
        await a1
        await asyncio.sleep(0.01)
        assert "c1" not in began  # nor are they again
        for event in go_on.values():
            event.set()
        await asyncio.gather(first, b1, c1)


async def test_no_more_batches_run_beside_each_other_than_allowed(device: Device) -> None:
    running, most = 0, 0
    lock = threading.Lock()

    def run(jobs: Sequence[Job]) -> list[Any]:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1
        return [job.name for job in jobs]

    device.run = run  # type: ignore[method-assign]
    async with open_batcher(device, max_jobs=1, at_once=3, crowd=4) as batcher:
        jobs = [Job("a", str(number)) for number in range(12)]
        answers = await asyncio.gather(*(batcher.submit(job, math.inf) for job in jobs))
    assert [answer.result for answer in answers] == [job.name for job in jobs]
    assert most == 3


@pytest.mark.parametrize("first", ["first", "alone"])
async def test_job_that_needs_the_device_for_itself_has_it(device: Device, first: str) -> None:
    other = {"first": "alone", "alone": "other"}[first]
    async with open_batcher(device, max_jobs=1, at_once=3, crowd=2) as batcher:
        tasks = [
            asyncio.create_task(batcher.submit(Job("a", name), math.inf))
            for name in (first, other, "last")
        ]
        for _ in range(5):
            await asyncio.sleep(0.01)
        assert device.batches == [[first]]  # nor does a later one overtake
        device.release.set()
        await asyncio.gather(*tasks)
    assert device.batches == [[first], [other], ["last"]]


async def test_aclose_finishes_side_by_side_what_waited_for_a_job_alone(device: Device) -> None:
    both = threading.Barrier(2, timeout=10)

    def run(jobs: Sequence[Job]) -> list[Any]:
        if jobs[0].name == "alone":
            assert device.release.wait(10)
        else:
            both.wait()
        return [job.name for job in jobs]

    device.run = run  # type: ignore[method-assign]
    async with open_batcher(device, max_jobs=1, at_once=2, crowd=2) as batcher:
        names = ["alone", "1", "2", "3", "4"]
        jobs = [Job("a", name) for name in names]
        tasks = [asyncio.create_task(batcher.submit(job, math.inf)) for job in jobs]
        await asyncio.sleep(0.01)
        closing = asyncio.create_task(batcher.aclose())
        await asyncio.sleep(0.01)
        device.release.set()
        await closing
    assert [task.result().result for task in tasks] == names
