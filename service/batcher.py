"""Batcher: groups waiting jobs by key and runs them group by group. Plain asyncio."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from service.errors import (
    DeadlineError,
    DeviceLostError,
    DeviceOutOfMemoryError,
    NotReadyError,
    ServiceError,
    StylizationError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence
    from concurrent.futures import Executor

logger = logging.getLogger(__name__)

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Batched(Generic[Result]):
    """One job's result and how long it waited and ran; ``run_s`` is that of its whole batch.

    ``jobs`` is how many that batch was of.
    """

    result: Result
    queue_s: float
    run_s: float
    jobs: int


@dataclass(slots=True, eq=False)
class _Running(Generic[Job, Result]):
    batch: list[_Waiting[Job, Result]]
    started_s: float


@dataclass(slots=True, eq=False)
class _Waiting(Generic[Job, Result]):
    job: Job
    overlaps: bool
    deadline: float
    answer: asyncio.Future[Batched[Result]]
    submitted_s: float


class Batcher(Generic[Job, Result]):
    """Runs jobs in batches, greedily: what arrives while one batch runs forms the next.

    The next batch is chosen only when the last has finished, so that it is as full as it can be
    and nobody in it has hung up; an idle batcher adds no wait. Where ``at_once`` allows more, one
    is chosen beside those that run only if enough wait to fill it, and there is a crowd. ``fault``
    says why no batch can succeed any more, or is None.

    Args:
        run_batch: called on ``executor`` with jobs of one key; gives one result a job, in order.
            A result that is an exception goes to that job's caller alone.
        key: jobs of equal key may share a batch.
        cost: what a job adds to the batch's budget.
        max_jobs: most jobs in a batch.
        max_cost: most cost in a batch; a single job may exceed it.
        executor: runs ``run_batch``; of as many threads as ``at_once``.
        at_once: most batches that run at the same time.
        crowd: fewest jobs, running and waiting, with which one batch begins beside another.
        overlaps: whether a job may run beside other batches of such jobs.
        on_batch: told the count and the cost of each batch before it runs.
    """

    def __init__(
        self,
        run_batch: Callable[[Sequence[Job]], Sequence[Result | Exception]],
        *,
        key: Callable[[Job], Hashable],
        cost: Callable[[Job], int],
        max_jobs: int,
        max_cost: int,
        executor: Executor,
        at_once: int = 1,
        crowd: int = 0,
        overlaps: Callable[[Job], bool] = lambda job: True,  # noqa: ARG005
        on_batch: Callable[[int, int], None] = lambda jobs, cost: None,  # noqa: ARG005
    ) -> None:
        self._run_batch = run_batch
        self._key = key
        self._cost = cost
        self._max_jobs = max_jobs
        self._max_cost = max_cost
        self._executor = executor
        self._at_once = at_once
        self._crowd = crowd
        self._overlaps = overlaps
        self._on_batch = on_batch
        self._waiting: deque[_Waiting[Job, Result]] = deque()
        self._arrival = asyncio.Event()
        self._loop_tasks: list[asyncio.Task[None]] = []
        self._running: list[_Running[Job, Result]] = []  # the oldest first
        self._closing = False
        self.fault: str | None = None

    def start(self) -> None:
        """Begin to run batches on the running event loop."""
        self._loop_tasks = [
            asyncio.create_task(self._run_forever(), name=f"batcher-{number}")
            for number in range(self._at_once)
        ]

    @property
    def alive(self) -> bool:
        """Whether submitted jobs will ever run."""
        done = [task.done() for task in self._loop_tasks]
        # Closing, each ends as it runs out of work.
        return bool(done) and not (all(done) if self._closing else any(done))

    @property
    def busy_for_s(self) -> float:
        """How long the oldest batch has run; 0 when idle."""
        return time.perf_counter() - self._running[0].started_s if self._running else 0.0

    @property
    def busy_with(self) -> int:
        """Cost of all that runs; 0 when idle."""
        return sum(self._cost(waiting.job) for run in self._running for waiting in run.batch)

    def __len__(self) -> int:
        return sum(not waiting.answer.done() for waiting in self._waiting)

    def jobs_ahead(self, job: Job) -> int | None:
        """How many run or were submitted before ``job``; None unless that waits."""
        live = (waiting.job for waiting in self._waiting if not waiting.answer.done())
        place = next((place for place, other in enumerate(live) if other is job), None)
        return None if place is None else place + sum(len(run.batch) for run in self._running)

    async def submit(self, job: Job, deadline: float) -> Batched[Result]:
        """Wait for the result of ``job``; cancel this call to withdraw it.

        Args:
            job: what to run.
            deadline: on the event loop's clock; a job still waiting then is never run.

        Raises:
            DeadlineError: the deadline passed first.
            DeviceLostError: the device broke down and takes no more work.
            DeviceOutOfMemoryError: the job does not fit the device, even alone.
            NotReadyError: the batcher is closed or dead.
        """
        if self._closing or not self.alive:
            raise NotReadyError("the service takes no more work; try another instance")
        answer: asyncio.Future[Batched[Result]] = asyncio.get_running_loop().create_future()
        overlaps = self._overlaps(job)
        self._waiting.append(_Waiting(job, overlaps, deadline, answer, time.perf_counter()))
        self._arrival.set()
        return await answer

    def abandon(self, error: ServiceError) -> None:
        """Answer everyone who waits with ``error``, also those whose batch is running."""
        running = [waiting for run in self._running for waiting in run.batch]
        _fail([*running, *self._waiting], error)

    async def aclose(self) -> None:
        """Take no more jobs, finish those that wait, then stop."""
        self._closing = True
        self._arrival.set()
        if self._loop_tasks:
            # Cancelling this wait must not cancel the loops, which others may wait for as well.
            await asyncio.wait(self._loop_tasks)

    async def _run_forever(self) -> None:
        while True:
            if self._next_may_start() and (batch := self._take_batch()):
                self._arrival.set()  # there may be room for one more beside it
                await self._run(batch)
                self._arrival.set()  # or for one that runs alone
            elif self._closing and not len(self):
                return
            else:
                self._arrival.clear()
                await self._arrival.wait()

    def _next_may_start(self) -> bool:
        """Whether the next batch need not wait for another; where it has to it had better grow."""
        if not self._running:
            return True
        live = [waiting for waiting in self._waiting if not self._is_lost(waiting)]
        running = sum(len(run.batch) for run in self._running)
        if not live or running + len(live) < self._crowd:
            return False
        if not (live[0].overlaps and all(run.batch[0].overlaps for run in self._running)):
            return False
        # Whether nobody who comes later could join it.
        key = self._key(live[0].job)
        alike = [waiting.job for waiting in live if self._key(waiting.job) == key]
        return len(alike) >= self._max_jobs or sum(map(self._cost, alike)) >= self._max_cost

    def _take_batch(self) -> list[_Waiting[Job, Result]]:
        """Remove and return the oldest live job and those behind it that may share its batch."""
        batch: list[_Waiting[Job, Result]] = []
        left: deque[_Waiting[Job, Result]] = deque()
        cost = 0
        full = False
        for waiting in self._waiting:
            if self._is_lost(waiting):
                continue
            if batch and self._key(waiting.job) != self._key(batch[0].job):
                left.append(waiting)
                continue
            cost += self._cost(waiting.job)
            over = len(batch) == self._max_jobs or cost > self._max_cost
            full = full or (bool(batch) and over)
            (left if full else batch).append(waiting)
        self._waiting = left
        return batch

    def _is_lost(self, waiting: _Waiting[Job, Result]) -> bool:
        if not waiting.answer.done() and waiting.deadline <= asyncio.get_running_loop().time():
            waiting.answer.set_exception(
                DeadlineError(
                    "the time allowed passed while the picture waited for the device; try when "
                    "the service is less busy"
                )
            )
        return waiting.answer.done()

    async def _run(self, batch: list[_Waiting[Job, Result]]) -> None:
        """Run one batch and answer everyone in it; never raises."""
        jobs = [waiting.job for waiting in batch]
        running = _Running(batch, time.perf_counter())
        self._running.append(running)
        out_of_memory = False
        try:
            self._on_batch(len(jobs), sum(map(self._cost, jobs)))
            loop = asyncio.get_running_loop()
            results = await loop.run_in_executor(self._executor, self._run_batch, jobs)
            if len(results) != len(jobs):
                raise StylizationError(f"{len(results)} results came back for {len(jobs)} jobs")  # noqa: TRY301
        except DeviceOutOfMemoryError as error:
            if len(batch) == 1:
                _fail(batch, error)
            out_of_memory = len(batch) > 1
        except DeviceLostError as error:
            logger.exception("batch_failed", extra={"fields": {"jobs": len(jobs)}})
            self.fault = error.detail
            _fail(batch, error)
        except Exception as error:
            logger.exception("batch_failed", extra={"fields": {"jobs": len(jobs)}})
            _fail(batch, error)
        else:
            run_s = time.perf_counter() - running.started_s
            for waiting, result in zip(batch, results, strict=True):
                queue_s = running.started_s - waiting.submitted_s
                _answer(waiting, result, queue_s, run_s, len(batch))
        finally:
            self._running.remove(running)
        if out_of_memory:
            # Outside the except block, so that no traceback keeps the failed tensors alive.
            middle = len(batch) // 2
            for half in (batch[:middle], batch[middle:]):
                if live := [waiting for waiting in half if not self._is_lost(waiting)]:
                    await self._run(live)


def _answer(
    waiting: _Waiting[Job, Result],
    result: Result | Exception,
    queue_s: float,
    run_s: float,
    jobs: int,
) -> None:
    if waiting.answer.done():
        return
    if isinstance(result, Exception):
        waiting.answer.set_exception(result)
    else:
        waiting.answer.set_result(Batched(result, queue_s, run_s, jobs))


def _fail(batch: list[_Waiting[Job, Result]], error: Exception) -> None:
    for waiting in batch:
        if not waiting.answer.done():
            waiting.answer.set_exception(error)
