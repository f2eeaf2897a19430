"""Jobs: what model threads are asked to do; the batcher runs those of one batch key together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Hashable

    import numpy as np
    from numpy.typing import NDArray

    from model_zoo.cards import StyleCard
    from model_zoo.tiling import WholeStatistics

    NormStatistics: TypeAlias = NDArray[np.float32]

Mix: TypeAlias = tuple[tuple[int, float], ...]
"""Rows of a conditional network and how much of each, of sum 1; empty: the card's own row."""


@dataclass(frozen=True, slots=True, eq=False)
class StyleJob:
    """One picture to paint whole: ``pixels`` is uint8 (H, W, 3), sRGB. Answered by the same."""

    card: StyleCard
    pixels: NDArray[np.uint8]
    seed: int = 0
    mix: Mix = ()

    @property
    def batch_key(self) -> Hashable:
        """Jobs of equal key fit one tensor and one generator."""
        height, width, _ = self.pixels.shape
        return self.card.network, height, width

    @property
    def pixel_count(self) -> int:
        """H times W."""
        return self.pixels.size // 3


@dataclass(frozen=True, slots=True, eq=False)
class MeasureJob:
    """Statistics to take from ``patches``, uint8 (K, H, W, 3), of one large picture.

    ``contrast`` is the standard deviation of that picture, its pixels in [0, 1]. Answered by
    :class:`model_zoo.tiling.WholeStatistics`.
    """

    card: StyleCard
    patches: NDArray[np.uint8]
    contrast: float
    mix: Mix = ()

    @property
    def batch_key(self) -> Hashable:
        """Shared by no other job."""
        return id(self)

    @property
    def pixel_count(self) -> int:
        """Over all patches."""
        return self.patches.size // 3


class _Alone:
    """A job over ``pixels``, uint8 (H, W, 3), that shares its pass with no other."""

    __slots__ = ()
    pixels: NDArray[np.uint8]

    @property
    def batch_key(self) -> Hashable:
        """Shared by no other job."""
        return id(self)

    @property
    def pixel_count(self) -> int:
        """H times W."""
        return self.pixels.size // 3


@dataclass(frozen=True, slots=True, eq=False)
class TileJob(_Alone):
    """A part to paint of a large picture: uint8 (H, W, 3) from row ``top`` and column ``left`` on.

    Both are multiples of the generator's stride. Answered by uint8 of the same shape.
    """

    card: StyleCard
    pixels: NDArray[np.uint8]
    whole: WholeStatistics
    top: int
    left: int
    mix: Mix = ()


@dataclass(frozen=True, slots=True, eq=False)
class FrameJob(_Alone):
    """A frame of a moving picture to paint: uint8 (H, W, 3), of any size.

    ``before`` are the statistics that the frame before left, or None; ``memory``, in [0, 1), is how
    much of them each normalization keeps. Answered by a :class:`PaintedFrame`.
    """

    card: StyleCard
    pixels: NDArray[np.uint8]
    before: NormStatistics | None = None
    memory: float = 0.0
    seed: int = 0
    mix: Mix = ()


@dataclass(frozen=True, slots=True, eq=False)
class PaintedFrame:
    """A frame as painted, uint8 (H, W, 3), and the statistics to paint the next one with."""

    pixels: NDArray[np.uint8]
    statistics: NormStatistics


Job: TypeAlias = StyleJob | MeasureJob | TileJob | FrameJob
