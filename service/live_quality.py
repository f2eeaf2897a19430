"""PaintedSide: how large a live session's frames are painted, by what painting them takes."""

from __future__ import annotations

import statistics
from collections import deque

STEP_PX = 32
_TOO_LONG = 1.1
_ROOM_TO_GROW = 0.85
# Of the period: what a frame may take by itself, however long it waits for others'. A smaller one
# would wait as long.
_OWN_SHARE = 0.25
# The first passes of a size are slower than those that follow.
_UNSETTLED = 2
_ENOUGH = 5
_PATIENCE = 15
_MOST_PATIENCE = 480


class PaintedSide:
    """A longer side in steps, which shrinks when frames take too long and grows when there is room.

    Between the two lies a band in which nothing changes. What grew and had to shrink again waits
    twice as long before it grows the next time.

    Args:
        low_px: shortest that the longer side becomes.
        high_px: longest.
        period_s: what a frame may take.
    """

    def __init__(self, low_px: int, high_px: int, period_s: float) -> None:
        self._own_s: deque[float] = deque(maxlen=_PATIENCE)
        self._waited_s: deque[float] = deque(maxlen=_PATIENCE)
        self._patience = _PATIENCE
        self._since_change = 0
        self._grew = False
        self._low_px = self._high_px = self.px = high_px
        self.aim(low_px, high_px, period_s)

    def aim(self, low_px: int, high_px: int, period_s: float) -> None:
        """Go by other bounds from now on; the side stays where they allow it."""
        # One that has only ever been as large as it may be goes on to be so.
        was_highest = self.px == self._high_px
        self._low_px, self._high_px, self._period_s = min(low_px, high_px), high_px, period_s
        self._change(high_px if was_highest else min(max(self.px, self._low_px), high_px))
        self._grew, self._patience = False, _PATIENCE

    def note(self, own_s: float, longest_px: int, waited_s: float = 0.0) -> None:
        """Take into account one frame.

        Args:
            own_s: what it took, without ``waited_s``.
            longest_px: its painted longer side; shorter than :attr:`px` is that of a frame that
                came smaller, and says nothing of larger ones.
            waited_s: what it waited for the device, which does not depend on its size.
        """
        self._since_change += 1
        if self._since_change > _UNSETTLED:
            self._own_s.append(own_s)
            self._waited_s.append(waited_s)
        if len(self._own_s) < _ENOUGH:
            return
        usual_s, allowed_s = statistics.median(self._own_s), self._allowed_s()
        if usual_s > allowed_s + (_TOO_LONG - 1) * self._period_s:
            self._shrink(allowed_s / usual_s, min(self.px, longest_px))
        elif self._since_change >= self._patience and longest_px >= self.px:
            self._grow(usual_s, allowed_s)

    def _allowed_s(self) -> float:
        """What a frame may take by itself beside what it usually waits."""
        left_s = self._period_s - statistics.median(self._waited_s)
        return max(left_s, _OWN_SHARE * self._period_s)

    def _shrink(self, share: float, painted_px: int) -> None:
        fitting_px = painted_px * share**0.5
        smaller_px = max(int(fitting_px) // STEP_PX * STEP_PX, self._low_px)
        if smaller_px >= self.px:
            return
        if self._grew:
            self._patience = min(2 * self._patience, _MOST_PATIENCE)
        self._change(smaller_px)
        self._grew = False

    def _grow(self, usual_s: float, allowed_s: float) -> None:
        larger_px = min((self.px // STEP_PX + 1) * STEP_PX, self._high_px)
        expected_s = usual_s * (larger_px / self.px) ** 2
        if larger_px > self.px and expected_s < _ROOM_TO_GROW * allowed_s:
            self._change(larger_px)
            self._grew = True

    def _change(self, px: int) -> None:
        if px != self.px:
            self.px = px
            self._since_change = 0
            self._own_s.clear()
            self._waited_s.clear()
