"""torch: eager fp32 on the CPU; on CUDA bf16 convolutions, channels last."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from service.runtimes.passes import TilePass, WholePass

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from model_zoo.layers import Generator
    from model_zoo.tiling import WholeStatistics


class TorchRuntime:
    """Runs every generator that torch can.

    Args:
        device: where.
        threads: inside one pass on a CPU; None leaves torch's choice.
        half: whether convolutions are in bf16; None: on CUDA. Normalizations are in fp32 always.
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
        if device.type == "cuda":
            # One plan a size and convolution is kept for ever otherwise.
            torch.backends.cuda.cufft_plan_cache.max_size = 0
        self.device = device
        self.half = device.type == "cuda" if half is None else half

    def load(self, generator: Generator) -> TorchPainter:
        """Move ``generator`` to the device."""
        return TorchPainter(generator, self.device, half=self.half)


class TorchPainter:
    """One generator on one device; see :class:`service.runtimes.Painter`."""

    def __init__(self, generator: Generator, device: torch.device, *, half: bool) -> None:
        generator = generator.to(device)
        dtype = torch.float32
        if half:
            dtype = torch.bfloat16
            for module in generator.modules():
                if isinstance(module, nn.Conv2d):
                    module.to(dtype)
        if device.type == "cuda":
            generator = generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._device = device
        self._whole = WholePass(generator, dtype).eval()
        self._tile = TilePass(generator, dtype).eval()

    @torch.inference_mode()
    def paint(
        self, pixels: NDArray[np.uint8], seeds: Sequence[int]
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        painted, finite = self._whole(self._upload(pixels), seeds)
        return painted.cpu().numpy(), finite.cpu().numpy()

    @torch.inference_mode()
    def paint_tile(
        self, pixels: NDArray[np.uint8], whole: WholeStatistics, top: int, left: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        at = (torch.tensor(number, device=self._device) for number in (top, left))
        statistics = (whole.contrast.to(self._device), whole.norms.to(self._device))
        painted, finite = self._tile(self._upload(pixels), *at, *statistics)
        return painted.cpu().numpy(), finite.cpu().numpy()

    def release_memory(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _upload(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        host = torch.from_numpy(pixels)
        if self._device.type == "cuda":
            # Pinned memory is copied while the CPU goes on.
            return host.pin_memory().to(self._device, non_blocking=True)
        return host
