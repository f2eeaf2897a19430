"""Spares: the few copies of compiled passes with which passes of one network run at once."""

from __future__ import annotations

import logging
import math
import threading
import time
import weakref
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

logger = logging.getLogger(__name__)

_IDLE_S = 10.0


@dataclass(slots=True, eq=False)
class _Spare:
    owner: weakref.ref[CompiledPass]
    model: Any
    request: Any
    busy: bool = True
    to_release: bool = False
    used_s: float = 0.0


class Spares:
    """Copies that passes lend each other's networks: tens of MB each, so there are few for all.

    They stay with the network that is in demand; one that has not needed its own for a while loses
    it to another that asks.

    Args:
        most: at once.
        clock: gives seconds.
    """

    def __init__(self, most: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._spares: list[_Spare] = []
        self._failed_s = -math.inf
        self._changing = threading.Lock()

    def __len__(self) -> int:
        return len(self._spares)

    @contextmanager
    def lend(self, owner: CompiledPass) -> Iterator[Any | None]:
        """Give a copy of ``owner`` for the length of the block, or None."""
        with self._changing:
            spare = self._find(owner)
        try:
            yield spare and spare.request
        finally:
            if spare is not None:
                with self._changing:
                    spare.used_s, spare.busy = self._clock(), False
                    if spare.to_release:
                        self._release(spare)

    def release_memory(self, owner: CompiledPass) -> None:
        """Give back what passes of ``owner`` left behind in copies, or will have."""
        with self._changing:
            for spare in self._spares:
                if spare.owner() is owner:
                    self._release(spare)

    def _release(self, spare: _Spare) -> None:
        spare.to_release = spare.busy  # OpenVINO refuses while it runs
        if not spare.busy:
            spare.model.release_memory()

    def _find(self, owner: CompiledPass) -> _Spare | None:
        # Of networks that the zoo no longer has.
        self._spares = [spare for spare in self._spares if spare.busy or spare.owner()]
        idle = [spare for spare in self._spares if not spare.busy]
        for spare in idle:
            if spare.owner() is owner:
                spare.busy = True
                return spare
        if len(self._spares) == self._most:
            stale = [spare for spare in idle if self._clock() - spare.used_s >= _IDLE_S]
            if not stale:
                return None
            self._spares.remove(min(stale, key=lambda spare: spare.used_s))
        return self._add(owner)

    def _add(self, owner: CompiledPass) -> _Spare | None:
        if self._clock() - self._failed_s < _IDLE_S:
            return None
        try:
            model = owner.compile()
            spare = _Spare(weakref.ref(owner), model, model.create_infer_request())
        except Exception:
            # A pass can wait its turn; what it would fail of is not its own affair.
            logger.warning("no_spare", exc_info=True)
            self._failed_s = self._clock()
            return None
        self._spares.append(spare)
        return spare


class CompiledPass:
    """A compiled pass that any thread may run: beside itself where there is a spare, else in turn.

    All copies divide their work alike, and so give the same numbers to the last bit.

    Args:
        compile_copy: gives an OpenVINO model that runs one pass at a time.
        spares: copies for all networks.
    """

    def __init__(self, compile_copy: Callable[[], Any], spares: Spares) -> None:
        self.compile = compile_copy
        self._spares = spares
        self._model = compile_copy()
        self._request = self._model.create_infer_request()
        self._turn = threading.Lock()

    def run(self, *inputs: Any) -> tuple[Any, ...]:
        """Give copies of the outputs for ``inputs``, all arrays."""
        if not self._turn.acquire(blocking=False):
            with self._spares.lend(self) as request:
                if request is not None:
                    return _infer(request, inputs)
            self._turn.acquire()
        try:
            return _infer(self._request, inputs)
        finally:
            self._turn.release()

    def release_memory(self) -> None:
        """Give back what passes left behind, once those that run have ended."""
        with self._turn:  # OpenVINO refuses while it runs
            self._model.release_memory()
        self._spares.release_memory(self)


def _infer(request: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    outputs = request.infer(list(inputs), share_inputs=True).to_tuple()
    # Copied, since OpenVINO writes the next answer into the same memory.
    return tuple(output.copy() for output in outputs)
