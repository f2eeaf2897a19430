"""Tiles: where a picture too large for one pass is cut, and what stands for the whole of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Of the statistics' patches: as large as the sight of a generator, or most of a patch would be what
# its reflected border makes of it, and at least this.
_LEAST_PATCH_SIDE_PX = 224
_PATCH_MARGINS = 2
_ROWS_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Span:
    """Along one side of the picture: ``outer`` is painted, ``core`` of it is kept. Half-open."""

    core: tuple[int, int]
    outer: tuple[int, int]

    @property
    def kept(self) -> slice:
        """The core, counted from the first painted pixel."""
        return slice(self.core[0] - self.outer[0], self.core[1] - self.outer[0])


@dataclass(frozen=True, slots=True)
class Tile:
    """One part of a picture."""

    rows: Span
    columns: Span

    @property
    def core(self) -> tuple[slice, slice]:
        """Where in the picture the kept pixels lie."""
        return slice(*self.rows.core), slice(*self.columns.core)


@dataclass(frozen=True, slots=True)
class TileLayout:
    """How pictures are cut for one generator, of that ``stride`` and ``minimum_side``.

    ``side_px`` is that of a tile as it is painted, ``margin_px`` how much of it is context on each
    side, both multiples of the stride. ``sample_px`` bounds what the statistics are taken from.
    """

    side_px: int
    margin_px: int
    sample_px: int
    stride: int
    minimum_side: int

    def within(self, most_px: float) -> TileLayout:
        """The same for passes of at most ``most_px``, as far as margins leave a core worth it."""
        side_px = min(self.side_px, int(most_px**0.5) // self.stride * self.stride)
        side_px = max(side_px, 3 * self.margin_px, self.minimum_side)
        sample_px = min(self.sample_px, int(most_px))
        return replace(self, side_px=side_px + -side_px % self.stride, sample_px=sample_px)

    def tiles(self, height: int, width: int) -> list[Tile]:
        """Cut a picture, row by row."""
        rows, columns = self._spans(height), self._spans(width)
        return [Tile(row, column) for row in rows for column in columns]

    def cut(self, pixels: NDArray[np.uint8], tile: Tile) -> NDArray[np.uint8]:
        """Take from a picture, uint8 (H, W, 3), what has to be painted of ``tile``."""
        piece = pixels[slice(*tile.rows.outer), slice(*tile.columns.outer)]
        return pad_pixels(piece, self.stride, self.minimum_side)

    def sample(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Take patches spread evenly over a picture, or all of it where ``sample_px`` allows.

        Returns:
            uint8 (K, H', W', 3), of sides that suit the network.
        """
        height, width, _ = pixels.shape
        if height * width <= self.sample_px:
            return pad_pixels(pixels, self.stride, self.minimum_side)[None]
        side = max(_LEAST_PATCH_SIDE_PX, _PATCH_MARGINS * self.margin_px)
        patch_height, patch_width = min(height, side), min(width, side)
        rows, columns = math.ceil(height / patch_height), math.ceil(width / patch_width)
        share = self.sample_px / (rows * columns * patch_height * patch_width)
        rows = max(1, int(rows * math.sqrt(share)))
        columns = max(1, int(self.sample_px / (rows * patch_height * patch_width)))
        tops = np.linspace(0, height - patch_height, rows).round().astype(int)
        lefts = np.linspace(0, width - patch_width, columns).round().astype(int)
        patches = [
            pixels[top : top + patch_height, left : left + patch_width]
            for top in tops
            for left in lefts
        ]
        return np.stack([pad_pixels(patch, self.stride, self.minimum_side) for patch in patches])

    def _spans(self, size: int) -> list[Span]:
        """Cut ``size`` px into cores of nearly equal length; all outer spans are of one length."""
        if size <= self.side_px:
            return [Span((0, size), (0, size))]
        # Less a stride, since cuts are moved to multiples of it.
        count = math.ceil(size / (self.side_px - 2 * self.margin_px - self.stride))
        cuts = [self._down(size * number / count) for number in range(count)] + [size]
        cores = list(pairwise(cuts))
        padded = self._up(size)
        side_px = self._up(max(end - start for start, end in cores)) + 2 * self.margin_px
        spans = []
        for core in cores:
            # At the picture's ends a tile has more context on its other side instead.
            first = min(max(core[0] - self.margin_px, 0), padded - side_px)
            spans.append(Span(core, (first, first + side_px)))
        return spans

    def _up(self, size: int) -> int:
        return math.ceil(size / self.stride) * self.stride

    def _down(self, position: float) -> int:
        return int(position) // self.stride * self.stride


def pad_pixels(pixels: NDArray[np.uint8], multiple: int, minimum: int) -> NDArray[np.uint8]:
    """Reflect at the lower right, again and again, to sides that are multiples, >= ``minimum``.

    ``model_zoo.layers.pad_to_multiple`` for uint8 (H, W, 3).
    """
    height, width, _ = pixels.shape
    bottom, right = (
        math.ceil(max(size, minimum) / multiple) * multiple - size for size in (height, width)
    )
    if not bottom and not right:
        return pixels
    return np.pad(pixels, ((0, bottom), (0, right), (0, 0)), mode="reflect")


def measure_contrast(pixels: NDArray[np.uint8]) -> float:
    """Standard deviation of a picture, uint8 (H, W, 3), as if its pixels were in [0, 1]."""
    counts = np.zeros(256, np.int64)
    for top in range(0, len(pixels), _ROWS_AT_ONCE):  # bincount needs 8 bytes a value
        counts += np.bincount(pixels[top : top + _ROWS_AT_ONCE].ravel(), minlength=256)
    values = np.arange(256) / 255
    total = int(counts.sum())
    mean = (counts * values).sum() / total
    squares = (counts * (values - mean) ** 2).sum()
    return max(math.sqrt(squares / max(total - 1, 1)), 1e-3)  # as model_zoo.layers.contrast_of
