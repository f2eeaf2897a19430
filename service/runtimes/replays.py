"""Replays: CUDA graphs of passes that come again and again, launched at once."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from torch import Tensor

    Pass = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]

logger = logging.getLogger(__name__)

_MOST_PX = 2 * 2**20
"""A pass over more keeps the GPU busy for longer than Python takes to launch it."""
_MOST_GRAPHS = 32
_MOST_REMEMBERED = 256
_AFTER_EVICTION = 8
"""So many more passes it takes to be recorded again: where more sizes come than may be recorded,
each would only push out the next."""


@dataclass(frozen=True, slots=True)
class _Replay:
    """A recorded pass and the tensors that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    pixels: Tensor
    mixes: Tensor | None
    painted: Tensor
    finite: Tensor


class Replays:
    """Passes of every painter of a device, recorded when one comes for the second time.

    Launching a hundred small kernels takes Python longer than running them takes the GPU. All
    recordings share one pool of memory, so only one may run at a time, and its answer must be
    copied before the next; on one stream that is so. Callers see to it that one thread at a time
    is in here.
    """

    def __init__(self) -> None:
        self._recorded: OrderedDict[Hashable, _Replay] = OrderedDict()
        self._passes: OrderedDict[Hashable, int] = OrderedDict()
        # cuDNN makes handles and plans for each thread, which it cannot while it is recorded.
        self._warm: OrderedDict[tuple[int, Hashable], None] = OrderedDict()
        self._pool: Any = None
        self._stream: Any = None  # one, or memory of the pool would not be used again
        self._broken = False

    def __len__(self) -> int:
        return len(self._recorded)

    def run(
        self, key: Hashable, paint: Pass, pixels: Tensor, mixes: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """What ``paint`` gives for ``pixels``, (N, H, W, 3), and ``mixes``, on the device or not.

        Args:
            key: equal only for the same pass; the shapes are added to it.
            paint: works on the device, and alike each time.
            pixels: in pinned memory.
            mixes: likewise.
        """
        key = key, tuple(pixels.shape), None if mixes is None else tuple(mixes.shape)
        replay = self._recorded.get(key)
        if replay is None and self._is_worth_it(key, pixels):
            replay = self._record(key, paint, pixels, mixes)
        if replay is None:
            return paint(_on_device(pixels), None if mixes is None else _on_device(mixes))
        self._recorded.move_to_end(key)
        replay.pixels.copy_(pixels, non_blocking=True)
        if replay.mixes is not None and mixes is not None:
            replay.mixes.copy_(mixes, non_blocking=True)
        replay.graph.replay()
        return replay.painted, replay.finite

    def forget(self) -> None:
        """Give back the memory of all."""
        self._recorded.clear()
        self._pool = None

    def _is_worth_it(self, key: Hashable, pixels: Tensor) -> bool:
        """Whether it has come before, to this thread, too, and is too small to hide its launch."""
        if self._broken or pixels.numel() // 3 > _MOST_PX:
            return False
        passes, warm = self._passes.get(key, 0), (threading.get_ident(), key)
        known = warm in self._warm
        self._passes[key], self._warm[warm] = passes + 1, None
        for remembered in (self._passes, self._warm):
            if len(remembered) > _MOST_REMEMBERED:
                remembered.popitem(last=False)
        return known and passes > 0

    def _record(
        self, key: Hashable, paint: Pass, pixels: Tensor, mixes: Tensor | None
    ) -> _Replay | None:
        """Record a pass and keep it; None where it has to be run as it is."""
        own_pixels = _on_device(pixels)
        own_mixes = None if mixes is None else _on_device(mixes)
        try:
            graph, (painted, finite) = self._capture(paint, own_pixels, own_mixes)
        except torch.OutOfMemoryError:
            # While it records, torch gives no cached memory back; run, the pass may well fit.
            self.forget()
            self._passes[key] = -_AFTER_EVICTION
            return None
        except RuntimeError:
            # Whatever in a network cannot be recorded, all of it can be run.
            logger.warning("no_cuda_graphs", exc_info=True)
            self._broken = True
            return None
        while len(self._recorded) >= _MOST_GRAPHS:
            evicted, _ = self._recorded.popitem(last=False)
            self._passes[evicted] = -_AFTER_EVICTION
        replay = self._recorded[key] = _Replay(graph, own_pixels, own_mixes, painted, finite)
        return replay

    def _capture(
        self, paint: Pass, pixels: Tensor, mixes: Tensor | None
    ) -> tuple[torch.cuda.CUDAGraph, tuple[Tensor, Tensor]]:
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        if self._stream is None:
            self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            # Other threads allocate meanwhile, as a reload does.
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                answers = paint(pixels, mixes)
            except BaseException:
                with suppress(RuntimeError):  # of a recording that is spoiled already
                    graph.capture_end()
                self._stop_allocating()
                raise
            try:
                graph.capture_end()
            except RuntimeError:
                self._stop_allocating()
                raise
        current.wait_stream(self._stream)
        return graph, answers

    def _stop_allocating(self) -> None:
        """What ``capture_end`` leaves out where it fails, and no memory could be given back."""
        with suppress(RuntimeError, AttributeError):
            torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), self._pool)


def _on_device(tensor: Tensor) -> Tensor:
    return tensor.to("cuda", non_blocking=True)
