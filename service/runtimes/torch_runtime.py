"""torch: eager fp32 on the CPU; on CUDA bf16 convolutions, channels last."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import torch

from model_zoo.generators.conditional import mixed
from model_zoo.tiling import measure_whole
from service.runtimes.memory import bytes_to_measure, bytes_to_paint
from service.runtimes.passes import TilePass, WholePass, to_photos

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from model_zoo.layers import Generator
    from model_zoo.tiling import WholeStatistics
    from service.runtimes import Mixes


# cuDNN's plans, of 200 KiB, one for each size of picture and convolution, are kept up to this
# many; 10,000 otherwise. Read at the first convolution.
os.environ.setdefault("TORCH_CUDNN_V8_API_LRU_CACHE_LIMIT", "1000")

MIN_HALF_PSNR_DB = 40.0
"""How near to fp32 a painting must be for its generator to run in bf16."""

_TRIAL_SIDE_PX = 96
_TRIAL_MARGIN_DB = 2.0  # noise is a little easier than photographs


class TorchRuntime:
    """Runs every generator that torch can.

    Args:
        device: where.
        threads: inside one pass on a CPU; None leaves torch's choice.
        half: whether convolutions are in bf16 where the painting stays near; None: on CUDA.
            Normalizations are in fp32 always.
    """

    name = "torch"

    def __init__(
        self, device: torch.device, threads: int | None = None, *, half: bool | None = None
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        # Autotuning chooses kernels by timing them: slow for each new size, and not repeatable.
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
        self.device = device
        self.half = device.type == "cuda" if half is None else half

    def load(self, generator: Generator, architecture: str) -> TorchPainter:  # noqa: ARG002
        """Move ``generator`` to the device."""
        return TorchPainter(generator, self.device, half=self.half)


class TorchPainter:
    """One generator on one device; see :class:`service.runtimes.Painter`."""

    keeps_memory = False  # torch has one pool for all

    def __init__(self, generator: Generator, device: torch.device, *, half: bool) -> None:
        self.generator = generator
        self.bytes_to_paint = bytes_to_paint(generator)
        self.bytes_to_measure = bytes_to_measure(generator)
        generator = generator.to(device)
        if device.type == "cuda":
            generator = generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._device = device
        self._whole = WholePass(generator).eval()
        self._tile = TilePass(generator).eval()
        self._half = False
        self._half = half and self._is_near_in_half()

    @torch.inference_mode()
    def paint(
        self, pixels: NDArray[np.uint8], seeds: Sequence[int], mixes: Mixes = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        with self._autocast():
            painted, finite = self._whole(self._upload(pixels), self._rows(mixes), seeds)
        return painted.cpu().numpy(), finite.cpu().numpy()

    @torch.inference_mode()
    def measure(
        self, pixels: NDArray[np.uint8], contrast: float, mixes: Mixes = None
    ) -> WholeStatistics:
        photos = to_photos(self._upload(pixels))
        of_whole = torch.full((1,), contrast, device=self._device)
        with self._autocast(), mixed(self.generator, self._rows(mixes)):
            return measure_whole(self.generator, photos, of_whole)

    @torch.inference_mode()
    def paint_tile(
        self,
        pixels: NDArray[np.uint8],
        whole: WholeStatistics,
        top: int,
        left: int,
        mixes: Mixes = None,
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        at = (torch.tensor(number, device=self._device) for number in (top, left))
        statistics = (whole.contrast.to(self._device), whole.norms.to(self._device))
        with self._autocast():
            pixels_there = self._upload(pixels)
            painted, finite = self._tile(pixels_there, *at, *statistics, self._rows(mixes))
        return painted.cpu().numpy(), finite.cpu().numpy()

    def release_memory(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._half)

    def _is_near_in_half(self) -> bool:
        """Whether a painting in bf16 is within ``MIN_HALF_PSNR_DB`` of that in fp32.

        Some generators amplify what is lost: texture_net's coarsest maps are a few pixels large.
        """
        side = max(_TRIAL_SIDE_PX, self.generator.minimum_side)
        side += -side % self.generator.stride
        pixels = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8)
        exact, _ = self.paint(pixels, [0], None)
        self._half = True
        near, _ = self.paint(pixels, [0], None)
        error = np.square(near.astype(np.float64) - exact).mean()
        return bool(error <= 255**2 / 10 ** ((MIN_HALF_PSNR_DB + _TRIAL_MARGIN_DB) / 10))

    def _rows(self, mixes: Mixes) -> torch.Tensor | None:
        return None if mixes is None else torch.from_numpy(mixes).to(self._device)

    def _upload(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        # Copied where it is read-only, as decoded photographs are: torch has no such tensors.
        host = torch.from_numpy(np.require(pixels, requirements=("C", "W")))
        if self._device.type == "cuda":
            # Pinned memory is copied while the CPU goes on.
            return host.pin_memory().to(self._device, non_blocking=True)
        return host
