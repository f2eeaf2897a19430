"""What work waits for: a thread on a core that others share, or a line that is served in turn."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import simpy

# Linux's weights of threads at niceness 0 and, as the service's codec threads have it, 8.
WEIGHT = 1024
STEPPED_BACK_WEIGHT = 172


class Worker(Protocol):
    """Does one piece of work after another."""

    def work(self, seconds: float) -> simpy.Event:
        """Happens when ``seconds`` of work, and all that was asked for before, are done."""


class Line:
    """Serves at full speed, first come first served: a lock, or a GPU's queue of passes."""

    def __init__(self, env: simpy.Environment) -> None:
        self._env = env
        self._free_s = 0.0
        self.busy_s = 0.0

    def work(self, seconds: float) -> simpy.Event:
        self.busy_s += seconds
        self._free_s = max(self._free_s, self._env.now) + seconds
        return self._env.timeout(self._free_s - self._env.now)


class Core:
    """Divides its time among the threads that have work, by their weights, at every moment."""

    def __init__(self, env: simpy.Environment) -> None:
        self._env = env
        self._left_s: dict[Thread, float] = {}
        self._since_s = 0.0
        self._wake_ups = 0
        self.busy_s = 0.0

    @property
    def is_idle(self) -> bool:
        """Whether no thread has work."""
        return not self._left_s

    def begin(self, thread: Thread, seconds: float) -> None:
        """Give ``thread``, which has none, ``seconds`` of work."""
        self._advance()
        self._left_s[thread] = seconds
        self._plan()

    def _advance(self) -> None:
        elapsed_s, self._since_s = self._env.now - self._since_s, self._env.now
        if not self._left_s:
            return
        self.busy_s += elapsed_s
        whole = sum(thread.weight for thread in self._left_s)
        for thread in self._left_s:
            self._left_s[thread] -= elapsed_s * thread.weight / whole

    def _plan(self) -> None:
        """Wake up when the next thread is done, unless something changes before."""
        self._wake_ups += 1
        if self._left_s:
            number = self._wake_ups
            whole = sum(thread.weight for thread in self._left_s)
            next_s = min(left / thread.weight for thread, left in self._left_s.items()) * whole
            wake_up = self._env.timeout(max(next_s, 0.0))
            wake_up.callbacks.append(lambda _: self._finish(number))

    def _finish(self, number: int) -> None:
        if number != self._wake_ups:  # planned before something changed
            return
        self._advance()
        nearest_s = min(left / thread.weight for thread, left in self._left_s.items())
        done = [t for t, left in self._left_s.items() if left / t.weight <= nearest_s]
        for thread in done:
            del self._left_s[thread]
        for thread in done:
            thread.finish()
        self._plan()


class Thread:
    """A thread that lives on ``core``; of ``weight`` against the others there."""

    def __init__(self, env: simpy.Environment, core: Core, weight: int = WEIGHT) -> None:
        self._env = env
        self._core = core
        self._asked: deque[tuple[float, simpy.Event]] = deque()
        self.weight = weight

    def work(self, seconds: float) -> simpy.Event:
        done = self._env.event()
        self._asked.append((seconds, done))
        if len(self._asked) == 1:
            self._core.begin(self, seconds)
        return done

    def finish(self) -> None:
        """Told by the core that the present piece is done."""
        _, done = self._asked.popleft()
        done.succeed()
        if self._asked:
            self._core.begin(self, self._asked[0][0])
