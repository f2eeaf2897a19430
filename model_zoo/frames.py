"""A moving picture, painted frame by frame with statistics that move slowly.

Instance normalization takes mean and variance of each frame anew. Noise of a camera, or whoever
walks through the picture, shifts them a little each time, and with them the colours of all of it:
the painting flickers where the film does not. Here each normalization keeps a part of what it took
before, an exponential moving average.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import torch

from model_zoo.tiling import instance_norms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from model_zoo.layers import Generator


@contextmanager
def as_next_frame(
    generator: Generator, before: Tensor, memory: Tensor
) -> Iterator[Callable[[], Tensor]]:
    """Within, ``generator`` paints the frame that follows.

    Args:
        generator: in evaluation mode.
        before: what the frame before left: means and variances of every instance normalization in
            the order of the generator's modules, (2 C1 + 2 C2 + ...,).
        memory: how much of that is kept, in [0, 1), (1,); 0: none, where there is no frame before.

    Yields:
        What gives the same for this frame, once it is painted.
    """
    layers = instance_norms(generator)
    left: dict[int, Tensor] = {}

    def carry(x: Tensor, number: int, kept: Tensor) -> tuple[Tensor, Tensor]:
        variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
        own = torch.cat((mean, variance))
        left[number] = own + memory * (kept - own)
        mean, variance = left[number].chunk(2)
        return mean, variance

    offset = 0
    try:
        for number, layer in enumerate(layers):
            kept = before[offset : offset + 2 * layer.num_features]
            layer.statistics = partial(carry, number=number, kept=kept)
            offset += len(kept)
        # In the order of modules, which need not be that in which they ran.
        yield lambda: torch.cat([before[:0], *(left[number] for number in range(len(layers)))])
    finally:
        for layer in layers:
            layer.statistics = None
