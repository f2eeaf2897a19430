"""Gates: what a style must reach before it ships. The reasons are in docs/decisions/0010."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

MEAN_GAP = 0.50
WORST_GAP = 0.90
"""Of ln(objective): 1.65 and 2.46 times what L-BFGS reaches."""

CHECKERBOARD_MARGIN = 1.0
"""Of ln(power): a grid e times as strong as in the pictures of L-BFGS is not seen yet."""
BORDER_FACTOR = 1.25
"""Either way: three times the deviation of a mean of eight pictures that have no fault."""
FLAT_MARGIN = 0.10
"""Of the area: a sky that L-BFGS would have painted must not stay empty."""
CLIPPED = 0.02
"""Of the pixels: no painting here has more of them at black or white."""
CONTRAST_CHANGE = 2.0
"""Steps of 255: a rounding on either side is all that instance normalization leaves."""
TIMES_NEARER = 4.0
"""To the painting than the photograph: distances are squares, so this is half the way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """One figure and the bounds in which it must lie; what is not a number never does."""

    name: str
    value: float
    least: float = -math.inf
    most: float = math.inf

    @property
    def holds(self) -> bool:
        return self.least <= self.value <= self.most

    def fault(self) -> str:
        """What is wrong, with both numbers and how far they are apart."""
        if self.value < self.least:
            return f"{self.name} {_short(self.value)} < {_short(self.least)} {self._by(self.least)}"
        return f"{self.name} {_short(self.value)} > {_short(self.most)} {self._by(self.most)}"

    def as_check(self) -> dict[str, Any]:
        """For the JSON line: the bounds that there are."""
        bounds = {"least": self.least, "most": self.most}
        return {
            "name": self.name,
            "value": self.value if math.isfinite(self.value) else None,
            "bound": {k: round(v, 4) for k, v in bounds.items() if math.isfinite(v)},
            "holds": self.holds,
        }

    def _by(self, bound: float) -> str:
        return f"(by {_short(abs(self.value - bound))})"


def gates(quality: Mapping[str, Any], reference: Mapping[str, float]) -> list[Gate]:
    """The gates of one style.

    Args:
        quality: its figures, as its card has them.
        reference: ``checkerboard``, ``border`` and ``flat`` of what L-BFGS makes of the same
            photographs; means.
    """
    found = [
        Gate(name="mean_gap", value=quality["mean_gap"], most=MEAN_GAP),
        Gate(name="worst_gap", value=quality["worst_gap"], most=WORST_GAP),
        Gate(
            name="checkerboard",
            value=quality["checkerboard"],
            most=reference["checkerboard"] + CHECKERBOARD_MARGIN,
        ),
        Gate(
            name="border",
            value=quality["border"],
            least=reference["border"] / BORDER_FACTOR,
            most=reference["border"] * BORDER_FACTOR,
        ),
        Gate(name="clipped", value=quality["clipped"], most=CLIPPED),
        Gate(name="flat", value=quality["flat"], most=reference["flat"] + FLAT_MARGIN),
        Gate(name="contrast_change", value=quality["contrast_change"], most=CONTRAST_CHANGE),
        Gate(name="times_nearer", value=quality["times_nearer"], least=TIMES_NEARER),
    ]
    if "other_style_distance" in quality:  # a zoo of one painting has no other
        found.append(
            Gate(
                name="style_distance",
                value=quality["style_distance"],
                most=quality["other_style_distance"],
            )
        )
    return found


def _short(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".")
