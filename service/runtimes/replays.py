"""Replays: CUDA graphs of passes that come again and again, launched at once."""

from __future__ import annotations

import logging
from collections import OrderedDict
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
    copied before the next; on one stream that is so.
    """

    def __init__(self) -> None:
        self._recorded: OrderedDict[Hashable, _Replay] = OrderedDict()
        self._seen: OrderedDict[Hashable, None] = OrderedDict()
        self._pool: Any = None
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
        if self._broken or pixels.numel() // 3 > _MOST_PX:
            return False
        if key in self._seen:
            return True
        self._seen[key] = None
        if len(self._seen) > _MOST_REMEMBERED:
            self._seen.popitem(last=False)
        return False

    def _record(
        self, key: Hashable, paint: Pass, pixels: Tensor, mixes: Tensor | None
    ) -> _Replay | None:
        own_pixels = _on_device(pixels)
        own_mixes = None if mixes is None else _on_device(mixes)
        graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        current = torch.cuda.current_stream()
        stream.wait_stream(current)
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        try:
            with torch.cuda.stream(stream):
                # Other threads allocate meanwhile, as a reload does.
                graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
                try:
                    painted, finite = paint(own_pixels, own_mixes)
                finally:
                    graph.capture_end()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            # Whatever in a network cannot be recorded, all of it can be run.
            logger.warning("no_cuda_graphs", exc_info=True)
            self._broken = True
            return None
        current.wait_stream(stream)
        while len(self._recorded) >= _MOST_GRAPHS:
            self._recorded.popitem(last=False)
        replay = _Replay(graph, own_pixels, own_mixes, painted, finite)
        self._recorded[key] = replay
        return replay


def _on_device(tensor: Tensor) -> Tensor:
    return tensor.to("cuda", non_blocking=True)
