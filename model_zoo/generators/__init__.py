"""The architectures by name. A new one is a new file here and a line in GENERATORS."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model_zoo.generators.conditional import conditional
from model_zoo.generators.fast import fast
from model_zoo.generators.johnson import johnson, johnson_half
from model_zoo.generators.texture_net import texture_net

if TYPE_CHECKING:
    from collections.abc import Callable

    from model_zoo.layers import Generator

GENERATORS: dict[str, Callable[..., Generator]] = {
    "conditional": conditional,
    "fast": fast,
    "johnson": johnson,
    "johnson_half": johnson_half,
    "texture_net": texture_net,
}
"""Builder by the name that cards, recipes and checkpoints use."""
