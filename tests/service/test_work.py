"""How much a pass computes."""

from __future__ import annotations

import pytest

from model_zoo.generators import GENERATORS
from service.runtimes.folding import fold
from service.runtimes.work import operations_to_paint


def test_operations_of_johnson_are_those_of_its_table() -> None:
    """Kernel, channels in and out and the share of pixels of each convolution, times 2."""
    layers = [(9, 3, 32, 1), (3, 32, 64, 1 / 4), (3, 64, 128, 1 / 16)]
    layers += [(3, 128, 128, 1 / 16)] * 10
    layers += [(3, 128, 64, 1 / 4), (3, 64, 32, 1), (9, 32, 3, 1)]
    expected = 2 * sum(side**2 * before * after * share for side, before, after, share in layers)
    generator = GENERATORS["johnson"]().eval()
    assert operations_to_paint(generator) == pytest.approx(expected)


def test_folded_is_less_work() -> None:
    generator = GENERATORS["johnson"]().eval()
    assert operations_to_paint(fold(generator)) < 0.95 * operations_to_paint(generator)
