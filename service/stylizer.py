"""Stylizer: the resident generators on one device. Runs jobs; how is its runtime's affair."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from model_zoo.cards import ZooError
from model_zoo.checkpoints import check_row, load_style
from model_zoo.generators.conditional import row_count
from service.errors import DeviceLostError, DeviceOutOfMemoryError, StylizationError
from service.jobs import FrameJob, Job, MeasureJob, PaintedFrame, StyleJob, TileJob
from service.runtimes import RuntimeName, RuntimeUnavailableError, create_runtime
from service.runtimes.residents import Residents
from service.tiles import TileLayout, pad_pixels

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from numpy.typing import NDArray

    from model_zoo.cards import Manifest, StyleCard
    from model_zoo.layers import Generator
    from service.runtimes import Mixes, Painter

logger = logging.getLogger(__name__)

# Other requests wait no longer than for one tile; larger ones would waste less on their margins.
_TILE_SIDE_PX = 1280
# Bounds how long others wait for one pass, or for the statistics; a picture of so many pixels still
# has its own.
_MAX_PASS_PX = 2048 * 2048
# Of the memory that a painter keeps for each kind of pass.
_KINDS = {StyleJob: "whole", TileJob: "tile", FrameJob: "frame"}
_MEMORY_FAULTS = (
    "can't allocate memory",
    "cannot allocate memory",
    "bad alloc",
    "bad_alloc",
    "out of memory",
    "out_of_memory",
    "alloc_failed",
)


class DeviceUnavailableError(Exception):
    """This machine has no device of the kind asked for, or no runtime for it."""


class StyleEngine(Protocol):
    """What the pipeline asks of an engine; as many threads as it says call ``run`` at once."""

    @property
    def device(self) -> str:
        """Name of the device, for the log."""

    @property
    def runtime(self) -> str:
        """Name of what computes on it, for the log."""

    @property
    def passes_at_once(self) -> int:
        """How many threads may call ``run`` at once; 1 where a pass needs all that there is."""

    @property
    def crowd(self) -> int:
        """From how many jobs on, running and waiting, it pays to run several at once."""

    def load(self, manifest: Manifest) -> None:
        """Make ready what ``manifest`` needs and is not there yet; any thread may ask for it.

        What is there stays, and goes on painting meanwhile.

        Raises:
            ZooError: a file cannot be loaded, whose name it gives; then nothing is changed.
        """

    def keep(self, networks: Collection[str]) -> None:
        """Let go of every network but these; called by a thread that runs jobs."""

    def warm_up(self, cards: Iterable[StyleCard], side_px: int) -> None:
        """Paint once in every style, so that no request pays for first-call set-up.

        Raises:
            ServiceError: a style gives no picture.
        """

    def most_px(self, card: StyleCard) -> int:
        """How large a picture may be to be run whole."""

    def layout(self, card: StyleCard) -> TileLayout | None:
        """How to cut what does not fit; None where the style cannot be painted in tiles."""

    def overlaps(self, job: Job) -> bool:
        """Whether ``job`` may run beside others that may."""

    def run(self, jobs: Sequence[Job]) -> list[Any]:
        """Run jobs of one batch key; one that failed is its error, in its place."""

    def device_memory_bytes(self) -> int:
        """Memory held on the device; 0 where that is the process's own."""


class Stylizer:
    """Holds every generator of a zoo on one device.

    Args:
        manifest: the styles to load.
        device: ``auto``, ``cpu`` or ``cuda``; ``auto`` takes CUDA where there is one.
        runtime: what computes; ``auto`` takes the fastest that is installed.
        threads: threads inside one forward pass on a CPU; None leaves the runtime's choice.
        memory_budget_bytes: what passes may hold; pictures that need more are painted in tiles.

    Raises:
        DeviceUnavailableError: device or runtime are asked for and not to be had.
        ZooError: a weights file cannot be loaded.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        device: str = "auto",
        runtime: RuntimeName = "auto",
        threads: int | None = None,
        memory_budget_bytes: int = 2 * 2**30,
    ) -> None:
        if device == "auto":
            # OpenVINO, where it is asked for, runs on the CPU alone.
            use_cuda = torch.cuda.is_available() and runtime != "openvino"
            device = "cuda" if use_cuda else "cpu"
        if device == "cuda" and not torch.cuda.is_available():
            raise DeviceUnavailableError("torch finds no CUDA device it can use on this machine")
        try:
            self._runtime = create_runtime(runtime, torch.device(device), threads)
        except RuntimeUnavailableError as error:
            raise DeviceUnavailableError(str(error)) from error
        self._budget_bytes = memory_budget_bytes
        self._painters = Residents({}, memory_budget_bytes)
        self.load(manifest)

    @property
    def device(self) -> str:
        """``cpu``, or ``cuda``."""
        return self._runtime.device.type

    @property
    def runtime(self) -> str:
        """``openvino``, or ``torch``."""
        return self._runtime.name

    @property
    def passes_at_once(self) -> int:
        """2 on CUDA, where one batch is prepared while another is painted; 3 on a few cores."""
        return self._runtime.passes_at_once

    @property
    def crowd(self) -> int:
        """One more than run at once on a few cores; 0 on CUDA, where batches are filled first."""
        return self._runtime.crowd

    def load(self, manifest: Manifest) -> None:
        """Load the networks of ``manifest`` that are not resident: all of them, or none."""
        # By network, which styles may share.
        loaded: dict[str, Painter] = {}
        for card in manifest:
            if card.network in loaded:
                check_row(card, loaded[card.network].generator)
            elif card.network in self._painters:
                check_row(card, self._painters[card.network].generator)
            else:
                loaded[card.network] = self._load(manifest, card)
        self._painters.add(loaded)

    def keep(self, networks: Collection[str]) -> None:
        """Let go of every network but ``networks``."""
        if self._painters.keep(networks) and self.device == "cuda":
            # What was recorded of those that went, too.
            self._painters.release_all()

    def warm_up(self, cards: Iterable[StyleCard], side_px: int) -> None:
        """Paint a square of noise of ``side_px`` in every style of ``cards``.

        Raises:
            StylizationError: numbers of a painting are not finite.
        """
        # Not one colour: normalization divides by what varies, and that is where numbers explode.
        noise = np.random.default_rng(0).integers(0, 256, (side_px, side_px, 3), np.uint8)
        for card in cards:
            for painting in self.run([StyleJob(card, noise)]):
                if isinstance(painting, Exception):
                    raise painting

    def most_px(self, card: StyleCard) -> int:
        """Pixels of the largest pass that keeps to the memory budget."""
        fitting_px = int(self._budget_bytes / self._painters[card.network].bytes_to_paint)
        return min(fitting_px, _MAX_PASS_PX) if self.device == "cpu" else fitting_px

    def layout(self, card: StyleCard) -> TileLayout | None:
        """How to cut pictures that do not fit; None where a tile cannot know what it should.

        Noise is drawn for the whole picture at once, and circular padding looks at its other end.
        """
        painter = self._painters[card.network]
        generator = painter.generator
        if generator.noise_channels or _is_circular(generator):
            return None
        sample_px = min(_MAX_PASS_PX, int(self._budget_bytes / painter.bytes_to_measure))
        largest = TileLayout(
            side_px=_TILE_SIDE_PX,
            margin_px=generator.reach_px,
            sample_px=sample_px,
            stride=generator.stride,
            minimum_side=generator.minimum_side,
        )
        fitting = largest.within(self.most_px(card))
        return replace(fitting, sample_px=sample_px)

    def overlaps(self, job: Job) -> bool:
        """Whether it is sooner done beside others, and as many of its kind fit the memory budget.

        On a GPU that is the allocator's affair. Statistics take all the memory, and all threads.
        """
        painter = self._painters[job.card.network]
        if job.pixel_count > painter.most_px_beside:
            return False
        if not painter.keeps_memory:
            return True
        needed_bytes = self.passes_at_once * job.pixel_count * painter.bytes_to_paint
        return needed_bytes <= self._budget_bytes and not isinstance(job, MeasureJob)

    def run(self, jobs: Sequence[Job]) -> list[Any]:
        """Run jobs that share a batch key in one forward pass.

        Returns:
            The answer to each job, in order, or the error of that one job.

        Raises:
            DeviceLostError: the device takes no more work.
            DeviceOutOfMemoryError: the batch does not fit the device.
        """
        pixel_count = sum(job.pixel_count for job in jobs)
        try:
            if len(jobs) == 1 or pixel_count <= self.most_px(jobs[0].card):
                return self._run(jobs, pixel_count)
        except (torch.OutOfMemoryError, MemoryError):
            pass
        except RuntimeError as error:
            # The CPU's allocators have no exception of their own.
            if not any(fault in str(error).lower() for fault in _MEMORY_FAULTS):
                if is_lost(self._runtime.device):
                    raise DeviceLostError(
                        "the device broke down; its log names the cause"
                    ) from error
                raise
        else:
            raise DeviceOutOfMemoryError("the batch exceeds the memory budget; split it")
        self._painters.release_all()
        raise DeviceOutOfMemoryError(
            f"a pass over {pixel_count / 1e6:.1f} MP does not fit the device's free memory; "
            "ask for a smaller max_side"
        )

    def device_memory_bytes(self) -> int:
        """Bytes that torch holds on the GPU; 0 on a CPU."""
        device = self._runtime.device
        return torch.cuda.memory_reserved(device) if device.type == "cuda" else 0

    def _load(self, manifest: Manifest, card: StyleCard) -> Painter:
        generator = load_style(manifest, card)
        try:
            return self._runtime.load(generator, card.architecture)
        except Exception as error:
            raise ZooError(
                f"{manifest.weights_path(card)}: {self.runtime} cannot make it ready: {error}"
            ) from error

    def _run(self, jobs: Sequence[Job], pixel_count: int) -> list[Any]:
        first = jobs[0]
        painter = self._painters[first.card.network]
        mixes = _mixes(painter, jobs)
        if isinstance(first, MeasureJob):
            # Takes nothing that it keeps, so that all that others keep has to go.
            if painter.keeps_memory:
                self._painters.release_all()
            return [painter.measure(first.patches, first.contrast, mixes)]
        kind, needed_bytes = _KINDS[type(first)], pixel_count * painter.bytes_to_paint
        with self._painters.room(first.card.network, kind, needed_bytes):
            if isinstance(first, TileJob):
                pixels = np.ascontiguousarray(first.pixels)[None]
                place = (first.whole, first.top, first.left)
                return _check(*painter.paint_tile(pixels, *place, mixes))
            if isinstance(first, FrameJob):
                return [_paint_frame(painter, first, mixes)]
            return _paint_whole(painter, [job for job in jobs if isinstance(job, StyleJob)], mixes)


def is_lost(device: torch.device) -> bool:
    """Whether ``device`` fails even at a sum, as CUDA does for good after some errors."""
    try:
        torch.ones(1, device=device).sum().item()
    except RuntimeError:
        return True
    return False


def _is_circular(generator: Generator) -> bool:
    return any(
        getattr(module, "padding_mode", None) == "circular" for module in generator.modules()
    )


def _mixes(painter: Painter, jobs: Sequence[Job]) -> Mixes:
    """How much of each row of the painter's generator each job takes."""
    rows = row_count(painter.generator)
    if not rows:
        return None
    mixes = np.zeros((len(jobs), rows), np.float32)
    for mix, job in zip(mixes, jobs, strict=True):
        for row, share in job.mix or ((job.card.style_row, 1.0),):
            mix[row] += share
    return mixes


def _paint_whole(
    painter: Painter, jobs: Sequence[StyleJob], mixes: Mixes
) -> list[NDArray[np.uint8] | StylizationError]:
    generator = painter.generator
    height, width, _ = jobs[0].pixels.shape
    padded = [pad_pixels(job.pixels, generator.stride, generator.minimum_side) for job in jobs]
    pixels = np.stack(padded) if len(padded) > 1 else np.ascontiguousarray(padded[0])[None]
    painted, finite = painter.paint(pixels, [job.seed for job in jobs], mixes)
    return _check(painted[:, :height, :width], finite)


def _paint_frame(painter: Painter, job: FrameJob, mixes: Mixes) -> PaintedFrame | StylizationError:
    generator = painter.generator
    height, width, _ = job.pixels.shape
    padded = pad_pixels(job.pixels, generator.stride, generator.minimum_side)
    pixels = np.ascontiguousarray(padded)[None]
    painted, finite, statistics = painter.paint_frame(
        pixels, job.before, job.memory, job.seed, mixes
    )
    (answer,) = _check(painted[:, :height, :width], finite)
    return answer if isinstance(answer, Exception) else PaintedFrame(answer, statistics)


def _check(
    painted: NDArray[np.uint8], finite: NDArray[np.bool_]
) -> list[NDArray[np.uint8] | StylizationError]:
    return [
        array if is_finite else StylizationError("the generator gave numbers out of range")
        for array, is_finite in zip(painted, finite, strict=True)
    ]
