"""How much passes compute."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.utils.flop_counter import FlopCounterMode

if TYPE_CHECKING:
    from model_zoo.layers import Generator

_SIDE_PX = 64


@torch.inference_mode()
def operations_to_paint(generator: Generator) -> float:
    """Multiplications and additions of all convolutions, a pixel of the photograph."""
    side = max(_SIDE_PX, generator.minimum_side)
    side += -side % generator.stride
    with FlopCounterMode(display=False) as counter:
        generator.paint(torch.zeros(1, 3, side, side), [0])
    return float(counter.get_total_flops()) / side**2
