"""torch, one operation after the other: on the CPU in fp32."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from model_zoo.generators.conditional import mixed
from model_zoo.tiling import measure_whole, statistics_size
from service.runtimes.memory import bytes_to_measure, bytes_to_paint
from service.runtimes.passes import FramePass, TilePass, WholePass, to_photos

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from model_zoo.layers import Generator
    from model_zoo.tiling import WholeStatistics
    from service.runtimes import Mixes, NormStatistics


class TorchRuntime:
    """Runs every generator that torch can.

    Args:
        device: where.
        threads: inside one pass on a CPU; None leaves torch's choice.
    """

    name = "torch"
    passes_at_once = 1
    crowd = 0

    def __init__(self, device: torch.device, threads: int | None = None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self.device = device

    def load(self, generator: Generator, architecture: str) -> TorchPainter:  # noqa: ARG002
        """Move ``generator`` to the device."""
        return TorchPainter(generator, self.device)


class TorchPainter:
    """One generator on one device; see :class:`service.runtimes.Painter`."""

    most_px_beside = 0.0  # each would have threads of its own, more than there are cores
    keeps_memory = False  # torch has one pool for all

    def __init__(self, generator: Generator, device: torch.device) -> None:
        self.bytes_to_paint = bytes_to_paint(generator)
        self.bytes_to_measure = bytes_to_measure(generator)
        self._device = device
        self._use(generator.to(device))

    def _use(self, generator: Generator) -> None:
        self.generator = generator
        self._whole = WholePass(generator).eval()
        self._tile = TilePass(generator).eval()
        self._frame = FramePass(generator).eval()

    @torch.inference_mode()
    def paint(
        self, pixels: NDArray[np.uint8], seeds: Sequence[int], mixes: Mixes = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        painted, finite = self._whole(self._upload(pixels), self._rows(mixes), seeds)
        return painted.cpu().numpy(), finite.cpu().numpy()

    @torch.inference_mode()
    def measure(
        self, pixels: NDArray[np.uint8], contrast: float, mixes: Mixes = None
    ) -> WholeStatistics:
        photos = to_photos(self._upload(pixels))
        of_whole = torch.full((1,), contrast, device=self._device)
        with mixed(self.generator, self._rows(mixes)):
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
        pixels_there = self._upload(pixels)
        painted, finite = self._tile(pixels_there, *at, *statistics, self._rows(mixes))
        return painted.cpu().numpy(), finite.cpu().numpy()

    @torch.inference_mode()
    def paint_frame(
        self,
        pixels: NDArray[np.uint8],
        before: NormStatistics | None,
        memory: float,
        seed: int,
        mixes: Mixes = None,
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NormStatistics]:
        kept = (
            torch.zeros(statistics_size(self.generator))
            if before is None
            else torch.from_numpy(before)
        ).to(self._device)
        share = torch.full((1,), 0.0 if before is None else memory, device=self._device)
        rows = self._rows(mixes)
        painted, finite, left = self._frame(self._upload(pixels), share, kept, rows, [seed])
        return painted.cpu().numpy(), finite.cpu().numpy(), left.float().cpu().numpy()

    def release_memory(self) -> None:
        """Nothing is held."""

    def _rows(self, mixes: Mixes) -> torch.Tensor | None:
        return None if mixes is None else torch.from_numpy(mixes).to(self._device)

    def _upload(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        # Copied where it is read-only, as decoded photographs are: torch has no such tensors.
        return torch.from_numpy(np.require(pixels, requirements=("C", "W"))).to(self._device)
