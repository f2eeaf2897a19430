"""Symptoms: what goes wrong in a training, seen early from what the generator answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

MUCH_CLIPPED = 0.25
"""Share of values outside [0, 1]; a good style stays below a tenth of this."""
FLAT_CONTRAST = 0.03
"""Standard deviation of an answer; that of a painting is 0.1 to 0.3."""
EARLIEST_STEP = 100
"""Before this every training looks ill."""


class Symptoms:
    """Looks at the answers now and then, and speaks once of each thing that is wrong."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def look(self, step: int, stylized: Tensor) -> list[str]:
        """Sentences that have not been said yet about ``stylized``, unclamped (N, 3, S, S)."""
        if step < EARLIEST_STEP:
            return []
        clipped = ((stylized < 0) | (stylized > 1)).float().mean().item()
        contrast = stylized.clamp(0, 1).std((2, 3)).mean().item()
        found = {}
        if clipped > MUCH_CLIPPED:
            found["clipped"] = (
                f"step {step}: {clipped:.0%} of the output lies outside black and white and is cut "
                "off; lower optimization.learning_rate, or loss.style_weight"
            )
        if contrast < FLAT_CONTRAST:
            found["flat"] = (
                f"step {step}: the output is nearly one flat colour (contrast {contrast:.3f}); "
                "lower optimization.learning_rate, or raise loss.content_weight"
            )
        new = [sentence for name, sentence in found.items() if name not in self._told]
        self._told |= found.keys()
        return new
