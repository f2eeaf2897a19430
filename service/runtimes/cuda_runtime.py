"""torch on CUDA: bf16 convolutions channels last, fused normalizations, recorded passes."""

from __future__ import annotations

import itertools
import logging
import math
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from service.runtimes.cuda_kernels import Kernels, KernelsUnavailableError, load_kernels
from service.runtimes.fusing import fuse
from service.runtimes.memory import MAPS_OF_FUSED, bytes_to_paint
from service.runtimes.replays import Replays
from service.runtimes.torch_runtime import TorchPainter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from model_zoo.layers import Generator
    from model_zoo.tiling import WholeStatistics
    from service.runtimes import Mixes, NormStatistics

logger = logging.getLogger(__name__)

# cuDNN's plans, of 200 KiB, one for each size of picture and convolution, are kept up to this
# many for each thread; 10,000 otherwise. Read at the first convolution.
os.environ.setdefault("TORCH_CUDNN_V8_API_LRU_CACHE_LIMIT", "1000")


MIN_HALF_PSNR_DB = 40.0
"""How near to fp32 a painting must be for its generator to run in bf16."""

_TRIAL_SIDE_PX = 96
_TRIAL_MARGIN_DB = 2.0  # noise is a little easier than photographs


class CudaRuntime:
    """Runs every generator that torch can, on a GPU.

    Threads may paint at once: while one waits for the GPU, the next puts its pass into the queue.

    Convolutions are in bf16 where the painting stays near, and normalizations go by kernels of
    ours, with statistics in fp32. Where those cannot be compiled all is in fp32: torch's own bf16
    is slower than that here.
    """

    name = "torch"
    passes_at_once = 2  # one is prepared while one runs
    crowd = 0  # the other one is prepared when its batch is full

    def __init__(self, device: torch.device) -> None:
        # Autotuning chooses kernels by timing them: slow for each new size, and not repeatable.
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
        self.device = device
        self.kernels = _load_kernels(device)
        self.replays = Replays()
        self.launching = threading.Lock()

    def load(self, generator: Generator, architecture: str) -> CudaPainter:  # noqa: ARG002
        """Move ``generator`` to the device."""
        return CudaPainter(generator, self)


class CudaPainter(TorchPainter):
    """One generator on one GPU; see :class:`service.runtimes.Painter`."""

    most_px_beside = math.inf
    _numbers = itertools.count()

    def __init__(self, generator: Generator, runtime: CudaRuntime) -> None:
        self._runtime = runtime
        self._recording_key = next(self._numbers)
        self._exact = True
        bytes_fused = bytes_to_paint(generator, MAPS_OF_FUSED)
        super().__init__(generator, runtime.device)
        if runtime.kernels is not None:
            self._fuse(runtime.kernels)
        if not self._exact:
            self.bytes_to_paint = bytes_fused

    @property
    def precision(self) -> str:
        """``fused bf16`` or ``fp32``."""
        return "fp32" if self._exact else "fused bf16"

    def paint(
        self, pixels: NDArray[np.uint8], seeds: Sequence[int], mixes: Mixes = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        host, host_mixes = _pinned(pixels), None if mixes is None else _pinned(mixes)
        with self._runtime.launching, torch.inference_mode():
            if self.generator.noise_channels:  # drawn on the CPU, in the middle of the pass
                rows = None if host_mixes is None else host_mixes.to(self._device)
                on_device = host.to(self._device, non_blocking=True)
                answers = self._whole(on_device, rows, seeds)
            else:
                replays, key = self._runtime.replays, self._recording_key
                answers = replays.run(key, self._whole, host, host_mixes)
            own = [_pinned_like(answer).copy_(answer, non_blocking=True) for answer in answers]
            # Blocking, which sleeps rather than keep a core busy.
            done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            done.record()
        done.synchronize()
        return own[0].numpy(), own[1].numpy()

    def measure(
        self, pixels: NDArray[np.uint8], contrast: float, mixes: Mixes = None
    ) -> WholeStatistics:
        with self._runtime.launching:
            return super().measure(pixels, contrast, mixes)

    def paint_tile(
        self,
        pixels: NDArray[np.uint8],
        whole: WholeStatistics,
        top: int,
        left: int,
        mixes: Mixes = None,
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        with self._runtime.launching:
            return super().paint_tile(pixels, whole, top, left, mixes)

    def paint_frame(
        self,
        pixels: NDArray[np.uint8],
        before: NormStatistics | None,
        memory: float,
        seed: int,
        mixes: Mixes = None,
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NormStatistics]:
        with self._runtime.launching:
            return super().paint_frame(pixels, before, memory, seed, mixes)

    def release_memory(self) -> None:
        with self._runtime.launching:
            self._runtime.replays.forget()
            with suppress(RuntimeError):  # where a recording failed, torch keeps what it has
                torch.cuda.empty_cache()

    def _fuse(self, kernels: Kernels) -> None:
        """Compute in bf16 from here on, if a painting is then still near.

        Some generators amplify what is lost: texture_net's coarsest maps are a few pixels large.
        """
        exact, painted = self.generator, self._paint_trial()
        try:
            fused = fuse(exact, kernels)
        except ValueError as error:
            logger.warning("not_fused", extra={"fields": {"reason": str(error)}})
            return
        self._use(fused)
        self._recording_key = next(self._numbers)
        self._exact = not is_near(self._paint_trial(), painted)
        if self._exact:
            self._use(exact)
            self._recording_key = next(self._numbers)

    def _paint_trial(self) -> NDArray[np.uint8]:
        side = max(_TRIAL_SIDE_PX, self.generator.minimum_side)
        side += -side % self.generator.stride
        pixels = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8)
        return self.paint(pixels, [0], None)[0]


def is_near(painted: NDArray[np.uint8], exact: NDArray[np.uint8]) -> bool:
    """Whether a painting of noise is within ``MIN_HALF_PSNR_DB`` of that in fp32, with a margin."""
    error = np.square(painted.astype(np.float64) - exact).mean()
    return bool(error <= 255**2 / 10 ** ((MIN_HALF_PSNR_DB + _TRIAL_MARGIN_DB) / 10))


def _pinned(array: NDArray[Any]) -> torch.Tensor:
    """``array`` in memory that the GPU reads by itself, while the CPU goes on."""
    pinned = torch.empty(array.shape, dtype=_DTYPES[array.dtype.name], pin_memory=True)
    np.copyto(pinned.numpy(), array)
    return pinned


def _pinned_like(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)


_DTYPES = {"uint8": torch.uint8, "float32": torch.float32}


def _load_kernels(device: torch.device) -> Kernels | None:
    try:
        return load_kernels(device)
    except KernelsUnavailableError as error:
        logger.warning("no_fused_kernels", extra={"fields": {"reason": str(error)}})
        return None
