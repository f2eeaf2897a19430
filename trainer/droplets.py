"""DropletPenalty: keeps a generator from hiding signals in a few strong spots.

Instance normalization removes a picture's scale, and a network can smuggle it past: one spot, so
strong that it moves the statistics of its whole map, sets the scale of all the rest. The spot is
then seen in the picture, as a lens or an even patch (Karras et al. 2020, *Analyzing and Improving
the Image Quality of StyleGAN*, section 2, call them droplets).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from model_zoo.layers import ResidualBlock

if TYPE_CHECKING:
    from torch import nn

    from model_zoo.layers import Generator

TIMES_THE_MEAN = 3.0
"""What a place may carry of a map's mean energy at no cost; edges of photographs stay below."""


class DropletPenalty:
    """Watches what goes through the residual blocks of ``generator`` while it is trained."""

    def __init__(self, generator: Generator) -> None:
        self._found: list[Tensor] = []
        blocks = [m for m in generator.modules() if isinstance(m, ResidualBlock)]
        for number, block in enumerate(blocks, 1):
            block.register_forward_hook(self._watch(last=number == len(blocks)))

    def take(self) -> Tensor | None:
        """The penalty of the last forward pass, a scalar; None for generators without blocks."""
        if not self._found:
            return None
        penalty = torch.stack(self._found).mean()
        self._found.clear()
        return penalty

    def _watch(self, *, last: bool) -> Any:
        def look(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if module.training:
                self._found.append(excess_energy(inputs[0]))
                if last:
                    self._found.append(excess_energy(output))

        return look


def excess_energy(features: Tensor) -> Tensor:
    """Mean square of what places carry beyond TIMES_THE_MEAN of the energy: (N, C, H, W) -> ()."""
    energy = features.float().square().mean(1)  # (N, H, W)
    relative = energy / energy.mean((1, 2), keepdim=True).clamp_min(1e-6)
    return (relative - TIMES_THE_MEAN).clamp_min(0).square().mean()
