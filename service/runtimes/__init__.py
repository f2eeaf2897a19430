"""Runtimes: what computes a generator's forward pass. One seam, so that any may be replaced."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import torch
    from numpy.typing import NDArray

    from model_zoo.layers import Generator
    from model_zoo.tiling import WholeStatistics

    Mixes: TypeAlias = NDArray[np.float32] | None
    NormStatistics: TypeAlias = NDArray[np.float32]

RuntimeName = Literal["auto", "torch", "openvino"]


class RuntimeUnavailableError(Exception):
    """The runtime asked for is not installed, or cannot use the device."""


class Painter(Protocol):
    """One generator, ready to paint. Pixels are uint8 (N, H, W, 3) whose sides suit the network.

    ``mixes`` says how much of each of the generator's rows to paint with, float32 (N, R), (1, R)
    for parts of one picture; None where it has no rows.

    All ways to paint give the paintings, as the pixels, and of each whether all its numbers were
    finite, bool (N,). What they give belongs to the caller.
    """

    @property
    def generator(self) -> Generator:
        """What it paints with; its own."""

    @property
    def bytes_to_paint(self) -> float:
        """Memory that a pass takes at most, a pixel of what is painted."""

    @property
    def bytes_to_measure(self) -> float:
        """Memory that :meth:`measure` takes at most, a pixel of the patches."""

    def paint(
        self, pixels: NDArray[np.uint8], seeds: Sequence[int], mixes: Mixes = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Paint whole pictures."""

    def measure(
        self, pixels: NDArray[np.uint8], contrast: float, mixes: Mixes = None
    ) -> WholeStatistics:
        """Take the statistics of a picture from patches of it."""

    def paint_tile(
        self,
        pixels: NDArray[np.uint8],
        whole: WholeStatistics,
        top: int,
        left: int,
        mixes: Mixes = None,
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Paint a part of a picture, whose first pixel is at row ``top`` and column ``left``."""

    def paint_frame(
        self,
        pixels: NDArray[np.uint8],
        before: NormStatistics | None,
        memory: float,
        seed: int,
        mixes: Mixes = None,
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NormStatistics]:
        """Paint a frame, (1, H, W, 3), keeping so much of the statistics of the one before.

        Returns:
            The painting, whether its numbers were finite, and the statistics for the next frame.
        """

    @property
    def most_px_beside(self) -> float:
        """Most pixels of a pass that had better run beside others, rather than after them."""

    @property
    def keeps_memory(self) -> bool:
        """Whether it keeps the memory of a pass for itself until :meth:`release_memory`."""

    def release_memory(self) -> None:
        """Give back what is held only to make the next pass of the same size faster."""


class Runtime(Protocol):
    """Makes painters on one device."""

    @property
    def passes_at_once(self) -> int:
        """How many threads may paint at once."""

    @property
    def crowd(self) -> int:
        """From how many pictures on, painted and waiting, it pays to paint several at once."""

    @property
    def name(self) -> str:
        """Name of the runtime, for the log."""

    @property
    def device(self) -> torch.device:
        """Where generators compute."""

    def load(self, generator: Generator, architecture: str) -> Painter:
        """Make ``generator`` ready; it is in evaluation mode and from then on the painter's.

        ``architecture`` is equal only for generators that differ in nothing but their weights.
        """


def create_runtime(name: RuntimeName, device: torch.device, threads: int | None) -> Runtime:
    """Give the runtime called ``name``; ``auto`` takes OpenVINO on a CPU where it is installed.

    Raises:
        RuntimeUnavailableError: it is not installed, or not for ``device``.
    """
    installed = importlib.util.find_spec("openvino") is not None
    if name == "auto":
        name = "openvino" if installed and device.type == "cpu" else "torch"
    if name == "torch" and device.type == "cuda":
        from service.runtimes.cuda_runtime import CudaRuntime

        return CudaRuntime(device)
    if name == "torch":
        from service.runtimes.torch_runtime import TorchRuntime

        return TorchRuntime(device, threads)
    if not installed:
        raise RuntimeUnavailableError(
            "the runtime openvino is not installed: pip install 'atelier[cpu]', or take torch"
        )
    if device.type != "cpu":
        raise RuntimeUnavailableError(
            f"the runtime openvino runs on the CPU, not on {device.type}; take torch"
        )
    from service.runtimes.openvino_runtime import OpenVinoRuntime

    return OpenVinoRuntime(threads)
