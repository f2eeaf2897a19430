"""Batcher: groups waiting jobs by key and runs one group at a time. Plain asyncio."""

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
class _Waiting(Generic[Job, Result]):
    job: Job
    deadline: float
    answer: asyncio.Future[Batched[Result]]
    submitted_s: float


class Batcher(Generic[Job, Result]):
    """Runs jobs in batches, greedily: what arrives while one batch runs forms the next.

    The next batch is chosen only when the last has finished, so that it is as full as it can be
    and nobody in it has hung up; an idle batcher adds no wait. ``fault`` says why no batch can
    succeed any more, or is None.

    Args:
        run_batch: called on ``executor`` with jobs of one key; gives one result a job, in order.
            A result that is an exception goes to that job's caller alone.
        key: jobs of equal key may share a batch.
        cost: what a job adds to the batch's budget.
        max_jobs: most jobs in a batch.
        max_cost: most cost in a batch; a single job may exceed it.
        executor: runs ``run_batch``; of one thread, which then owns the device.
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
        on_batch: Callable[[int, int], None] = lambda jobs, cost: None,  # noqa: ARG005
    ) -> None:
        self._run_batch = run_batch
        self._key = key
        self._cost = cost
        self._max_jobs = max_jobs
        self._max_cost = max_cost
        self._executor = executor
        self._on_batch = on_batch
        self._waiting: deque[_Waiting[Job, Result]] = deque()
        self._arrival = asyncio.Event()
        self._loop_task: asyncio.Task[None] | None = None
        self._running: list[_Waiting[Job, Result]] = []
        self._batch_started_s: float | None = None
        self._closing = False
        self.fault: str | None = None

    def start(self) -> None:
        """Begin to run batches on the running event loop."""
        self._loop_task = asyncio.create_task(self._run_forever(), name="batcher")

    @property
    def alive(self) -> bool:
        """Whether submitted jobs will ever run."""
        return self._loop_task is not None and not self._loop_task.done()

    @property
    def busy_for_s(self) -> float:
        """How long the present batch has run; 0 when idle."""
        started = self._batch_started_s
        return 0.0 if started is None else time.perf_counter() - started

    @property
    def busy_with(self) -> int:
        """Cost of the present batch; 0 when idle."""
        return sum(self._cost(waiting.job) for waiting in self._running)

    def __len__(self) -> int:
        return sum(not waiting.answer.done() for waiting in self._waiting)

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
        self._waiting.append(_Waiting(job, deadline, answer, time.perf_counter()))
        self._arrival.set()
        return await answer

    def abandon(self, error: ServiceError) -> None:
        """Answer everyone who waits with ``error``, also those whose batch is running."""
        _fail([*self._running, *self._waiting], error)

    async def aclose(self) -> None:
        """Take no more jobs, finish those that wait, then stop."""
        self._closing = True
        self._arrival.set()
        if self._loop_task is not None:
            # Cancelling this wait must not cancel the loop, which others may wait for as well.
            await asyncio.wait((self._loop_task,))

    async def _run_forever(self) -> None:
        while True:
            if batch := self._take_batch():
                await self._run(batch)
            elif self._closing:
                return
            else:
                self._arrival.clear()
                await self._arrival.wait()

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
        self._running = batch
        started = self._batch_started_s = time.perf_counter()
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
            run_s = time.perf_counter() - started
            for waiting, result in zip(batch, results, strict=True):
                _answer(waiting, result, started - waiting.submitted_s, run_s, len(batch))
        finally:
            self._batch_started_s = None
            self._running = []
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
