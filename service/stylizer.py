"""Stylizer: the resident generators on one device. The only module that knows torch."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from model_zoo.checkpoints import load_generator
from service.errors import DeviceOutOfMemoryError, StylizationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from model_zoo.cards import Manifest, StyleCard
    from model_zoo.layers import Generator

logger = logging.getLogger(__name__)


class DeviceUnavailableError(Exception):
    """This machine has no device of the kind asked for."""


@dataclass(frozen=True, slots=True, eq=False)
class StyleJob:
    """One picture to paint: ``pixels`` is uint8 (H, W, 3), sRGB."""

    card: StyleCard
    pixels: NDArray[np.uint8]
    seed: int = 0

    @property
    def batch_key(self) -> tuple[str, int, int]:
        """Jobs of equal key fit one tensor and one generator."""
        height, width, _ = self.pixels.shape
        return self.card.style_id, height, width

    @property
    def pixel_count(self) -> int:
        """H times W."""
        _, height, width = self.batch_key
        return height * width


class StyleEngine(Protocol):
    """What the pipeline asks of a runtime; one thread calls it, never two at once."""

    @property
    def device(self) -> str:
        """Name of the device, for the log."""

    @property
    def styles_loaded(self) -> int:
        """How many styles are ready to paint."""

    def warm_up(self, cards: Iterable[StyleCard], side_px: int) -> None:
        """Paint once in every style, so that no request pays for first-call set-up."""

    def stylize(self, jobs: Sequence[StyleJob]) -> list[NDArray[np.uint8] | StylizationError]:
        """Paint jobs of one batch key; a picture that failed is its error, in its place."""

    def device_memory_bytes(self) -> int:
        """Memory held on the device; 0 where that is the process's own."""


class Stylizer:
    """Holds every generator of a zoo on one device, in float32.

    Args:
        manifest: the styles to load.
        device: ``auto``, ``cpu`` or ``cuda``; ``auto`` takes CUDA where there is one.
        threads: threads inside one forward pass on a CPU; None leaves torch's choice.

    Raises:
        DeviceUnavailableError: ``cuda`` is asked for and not to be had.
        ZooError: a weights file cannot be loaded.
    """

    def __init__(
        self, manifest: Manifest, *, device: str = "auto", threads: int | None = None
    ) -> None:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if device == "cuda" and not torch.cuda.is_available():
            raise DeviceUnavailableError("torch finds no CUDA device it can use on this machine")
        if threads is not None:
            torch.set_num_threads(threads)
        # Autotuning chooses kernels by timing them: slow for each new size, and not repeatable.
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
        self._device = torch.device(device)
        self._generators: dict[str, Generator] = {
            card.style_id: load_generator(
                manifest.weights_path(card), card.generator, card.arguments
            ).to(self._device)
            for card in manifest
        }

    @property
    def device(self) -> str:
        """``cpu``, or ``cuda``."""
        return self._device.type

    @property
    def styles_loaded(self) -> int:
        """How many generators are resident."""
        return len(self._generators)

    def warm_up(self, cards: Iterable[StyleCard], side_px: int) -> None:
        """Paint a grey square of ``side_px`` in every style of ``cards``."""
        grey = np.full((side_px, side_px, 3), 128, np.uint8)
        for card in cards:
            self.stylize([StyleJob(card, grey)])

    def stylize(self, jobs: Sequence[StyleJob]) -> list[NDArray[np.uint8] | StylizationError]:
        """Paint jobs that share a batch key in one forward pass.

        Returns:
            One uint8 (H, W, 3) array a job, in order, or the error of that one job.

        Raises:
            DeviceOutOfMemoryError: the batch does not fit the device.
        """
        try:
            return self._forward(jobs)
        except torch.OutOfMemoryError:
            pass
        except RuntimeError as error:
            # The CPU allocator has no exception of its own.
            if "can't allocate memory" not in str(error):
                raise
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        _, height, width = jobs[0].batch_key
        raise DeviceOutOfMemoryError(
            f"a picture of {width}x{height} does not fit the device's free memory; "
            "ask for a smaller max_side"
        )

    def device_memory_bytes(self) -> int:
        """Bytes that torch holds on the GPU; 0 on a CPU."""
        return torch.cuda.memory_reserved(self._device) if self._device.type == "cuda" else 0

    @torch.inference_mode()
    def _forward(self, jobs: Sequence[StyleJob]) -> list[NDArray[np.uint8] | StylizationError]:
        generator = self._generators[jobs[0].card.style_id]
        pixels = torch.from_numpy(np.stack([job.pixels for job in jobs]))  # (N, H, W, 3)
        photos = pixels.to(self._device).permute(0, 3, 1, 2).float().div_(255)  # (N, 3, H, W)
        painted = generator(photos, [job.seed for job in jobs])
        finite = painted.isfinite().flatten(1).all(1).tolist()
        painted = painted.clamp_(0, 1).mul_(255).round_().to(torch.uint8)
        arrays = painted.permute(0, 2, 3, 1).contiguous().cpu().numpy()  # (N, H, W, 3)
        return [
            array if is_finite else StylizationError("the generator gave numbers out of range")
            for array, is_finite in zip(arrays, finite, strict=True)
        ]
