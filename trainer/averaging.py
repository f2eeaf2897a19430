"""WeightAverage: the exponential moving average of a generator's weights, which is exported."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch.optim.swa_utils import AveragedModel

if TYPE_CHECKING:
    from torch import Tensor

    from model_zoo.layers import Generator

    Tensors = tuple[Tensor, ...] | list[Tensor]


class WeightAverage:
    """Follows a generator's weights with ``decay`` a step, faster while there are few steps yet.

    The average of a noisy walk is nearer to where the walk leads than its last step is. With a
    decay of 0 it is the last step. Running statistics are copied, not averaged.
    """

    def __init__(self, generator: Generator, decay: float) -> None:
        def follow(averages: Tensors, weights: Tensors, updates: Tensor | int) -> None:
            # Early on it must forget as fast as it grows: the first weights are random.
            now = min(decay, (1 + float(updates)) / (10 + float(updates)))
            torch._foreach_lerp_(averages, weights, 1 - now)

        self._model = AveragedModel(generator, multi_avg_fn=follow)

    @property
    def generator(self) -> Generator:
        """The generator with the averaged weights."""
        return cast("Generator", self._model.module)

    def update(self, generator: Generator) -> None:
        """Take one step's weights in."""
        self._model.update_parameters(generator)

    def state(self) -> dict[str, Tensor]:
        """What :meth:`load_state` takes; tensors are those of the average itself, not copies."""
        return self._model.state_dict()

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from an earlier :meth:`state`."""
        self._model.load_state_dict(state)
