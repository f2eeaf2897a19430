"""Batch normalization has two modes, and the paper's story needs both: whose statistics count."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from model_zoo.layers import Generator

Statistics = Literal["own", "running"]


@contextmanager
def statistics_of(generator: Generator, statistics: Statistics) -> Iterator[None]:
    """Evaluate ``generator`` with the batch's ``own`` statistics or with the ``running`` ones.

    ``own`` is what training sees; running averages stay as they are. Instance normalization knows
    only ``own``. The generator is left in the mode that it was in.
    """
    was_training = generator.training
    layers = [m for m in generator.modules() if isinstance(m, nn.BatchNorm2d)]
    before = [(m.momentum, m.num_batches_tracked) for m in layers]
    generator.eval()
    if statistics == "own":
        for layer in layers:
            layer.train()
            layer.momentum = 0.0  # look, but learn nothing
            layer.num_batches_tracked = None
    try:
        yield
    finally:
        for layer, (momentum, tracked) in zip(layers, before, strict=True):
            layer.momentum, layer.num_batches_tracked = momentum, tracked
        generator.train(was_training)
