"""Steadiness: how much of earlier frames' statistics the next one is painted with."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Hashable

    from numpy.typing import NDArray

Statistics = TypeVar("Statistics")

DEFAULT_STEADINESS = 0.5
LONGEST_MEMORY_S = 4.0
"""Time constant at steadiness 1; the default's is a quarter of it. docs/decisions/0016 says why."""

CUT_DISTANCE = 0.07
"""Distance of two frames' colours, of 1, above which they show different scenes."""

_POINTS = 48


class Steadiness(Generic[Statistics]):
    """Remembers the statistics of one session's frames, as long as they are of the same scene.

    What is kept fades with time, not with frames: at 5 frames a second the picture follows the
    scene as fast as at 30.
    """

    def __init__(self) -> None:
        self._statistics: Statistics | None = None
        self._painted_as: Hashable = None
        self._colors: NDArray[np.uint8] | None = None
        self._at_s = 0.0
        self.cuts = 0

    def recall(
        self, pixels: NDArray[np.uint8], paint_as: Hashable, at_s: float, steadiness: float
    ) -> tuple[Statistics | None, float]:
        """Give the statistics before and how much of them to keep, for a frame to be painted.

        Args:
            pixels: the frame, uint8 (H, W, 3).
            paint_as: what it is painted by; nothing is recalled from another.
            at_s: when it was taken.
            steadiness: 0 paints each frame by itself, 1 changes slowest.
        """
        colors = take_colors(pixels)
        is_cut = self._colors is not None and distance(self._colors, colors) > CUT_DISTANCE
        self.cuts += is_cut
        if is_cut or paint_as != self._painted_as:
            self._statistics = None
        elapsed_s, self._at_s = at_s - self._at_s, at_s
        self._painted_as, self._colors = paint_as, colors
        if self._statistics is None:
            return None, 0.0
        return self._statistics, memory(steadiness, elapsed_s)

    def remember(self, statistics: Statistics) -> None:
        """Keep the statistics that the frame of the last :meth:`recall` was painted with."""
        self._statistics = statistics


def memory(steadiness: float, elapsed_s: float) -> float:
    """How much of the statistics to keep after so many seconds, in [0, 1)."""
    time_constant_s = LONGEST_MEMORY_S * steadiness**2
    if time_constant_s <= 0:
        return 0.0
    # A clock that stands still must not make them stay for ever.
    return math.exp(-max(elapsed_s, 1e-3) / time_constant_s)


def take_colors(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The same number of each channel's values of any picture, from all over it, in order."""
    rows, columns = (np.linspace(0, side - 1, _POINTS).astype(int) for side in pixels.shape[:2])
    return np.sort(pixels[rows[:, None], columns].reshape(-1, 3), axis=0)


def distance(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """How far values have to move, 0 to 1, to make one picture's colours the other's.

    What moves about in a picture leaves its colours as they are, and so the statistics.
    """
    return float(np.abs(one.astype(np.int16) - other).mean()) / 255
