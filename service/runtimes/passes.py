"""The forward passes as modules over uint8 pixels: what runtimes run, trace and compare."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from model_zoo.frames import as_next_frame
from model_zoo.generators.conditional import mixed
from model_zoo.tiling import WholeStatistics, as_part_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model_zoo.layers import Generator


class WholePass(nn.Module):
    """Paints whole pictures, uint8 (N, H, W, 3) -> the same and whether each is finite, (N,).

    Generators with rows take ``mixes``, too, (N, R).
    """

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(
        self, pixels: Tensor, mixes: Tensor | None = None, seeds: Sequence[int] | None = None
    ) -> tuple[Tensor, Tensor]:
        with mixed(self.generator, mixes):
            return to_pixels(self.generator.paint(to_photos(pixels), seeds))


class TilePass(nn.Module):
    """Paints tiles of one picture by its statistics.

    Besides the pixels it takes row and column of the first, int64 (), and contrast, (1,), and
    norms of the picture (:class:`model_zoo.tiling.WholeStatistics`), and where the generator has
    rows, ``mixes``, (1, R).
    """

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(
        self,
        pixels: Tensor,
        top: Tensor,
        left: Tensor,
        contrast: Tensor,
        norms: Tensor,
        mixes: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        whole = WholeStatistics(contrast, norms)
        with mixed(self.generator, mixes), as_part_of(self.generator, whole, top, left):
            return to_pixels(self.generator.paint(to_photos(pixels), None))


class FramePass(nn.Module):
    """Paints a frame of a moving picture by statistics that it shares with the frame before.

    Besides the pixels, of one frame, it takes how much is kept of that one's statistics, (1,), and
    those (:mod:`model_zoo.frames`), and where the generator has rows, ``mixes``, (1, R). It gives
    the statistics of this frame, too.
    """

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(
        self,
        pixels: Tensor,
        memory: Tensor,
        before: Tensor,
        mixes: Tensor | None = None,
        seeds: Sequence[int] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        with (
            mixed(self.generator, mixes),
            as_next_frame(self.generator, before, memory) as left,
        ):
            painted, finite = to_pixels(self.generator.paint(to_photos(pixels), seeds))
            return painted, finite, left()


def to_photos(pixels: Tensor) -> Tensor:
    """uint8 (N, H, W, 3) -> [0, 1], (N, 3, H, W)."""
    return pixels.permute(0, 3, 1, 2).float() / 255


def to_pixels(painted: Tensor) -> tuple[Tensor, Tensor]:
    """Unclamped (N, 3, H, W) -> uint8 (N, H, W, 3), and whether each is finite, (N,)."""
    finite = painted.isfinite().flatten(1).all(1)
    pixels = painted.float().clamp(0, 1).mul(255).round().to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).contiguous(), finite
