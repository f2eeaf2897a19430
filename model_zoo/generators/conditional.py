"""One network, many styles: conditional instance normalization (Dumoulin et al. 2017).

All styles share the convolutions of ``fast``; what is a style's own is one row of numbers: a gain
and a shift for each channel. Rows may be mixed, and a new style is a new row.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_zoo.generators.fast import WIDTHS, FastGenerator
from model_zoo.layers import Generator, InstanceNorm, Padding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

IDENTITY_ROW = 0
"""The row that paints the photograph as it is, as far as the network can."""


def conditional(rows: int = 2, padding: Padding = "reflect", grain: float = 0.1) -> Generator:
    """``fast`` with ``rows`` rows, the identity's among them: 0.90 M parameters and 2,350 a row."""
    return ConditionalGenerator(rows, padding=padding, grain=grain)


class Conditioned(nn.Module):
    """A layer that a row sets: ``gain`` and ``shift`` of its channels, each (N, C) or (1, C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.gain: Tensor | None = None
        self.shift: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        if self.gain is None or self.shift is None:
            raise RuntimeError("no row is set: call the generator, not its layers")
        gain, shift = (value[..., None, None].to(x.dtype) for value in (self.gain, self.shift))
        return torch.addcmul(shift, x, gain)


class ConditionalInstanceNorm(InstanceNorm):
    """Instance normalization whose gain and shift are those of a row."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=False)
        self.affine_of_row = Conditioned(channels)

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        if self.statistics is None:
            normalized = F.instance_norm(wide, eps=self.eps)
        else:
            mean, variance = (value.view(-1, 1, 1) for value in self.statistics(wide))
            normalized = (wide - mean) * torch.rsqrt(variance + self.eps)
        painted: Tensor = self.affine_of_row(normalized)
        return painted.to(x.dtype)


class ConditionalGenerator(FastGenerator):
    """A network that paints each picture of a batch in a style of its own, or in a mixture.

    ``rows`` is (R, P): gains and shifts of all layers, one after the other; row 0 is the identity.
    ``mixes``, where set, is (N, R) or (1, R): how much of each row each picture gets, each line of
    sum 1; where it is not, ``style_row`` is what all are painted in.
    """

    def __init__(self, rows: int, *, padding: Padding, grain: float) -> None:
        super().__init__(
            **WIDTHS, normalization=ConditionalInstanceNorm, padding=padding, grain=grain
        )
        if rows < 2:
            raise ValueError(f"rows = {rows} must be at least 2: the identity and a style")
        # The decoder has no normalization, and yet a palette of its own for each style.
        for block, channels in zip(self.decoder, WIDTHS["decoder"], strict=True):
            cast("nn.Sequential", block).insert(2, Conditioned(channels))
        self.palette = Conditioned(3)
        self.padding: Padding = padding
        self.grain_strength = grain
        self.rows = nn.Parameter(self._neutral_row().repeat(rows, 1))
        self.style_row = IDENTITY_ROW + 1
        self.mixes: Tensor | None = None

    def paint(self, photos: Tensor, seeds: Sequence[int] | None) -> Tensor:
        row = self.rows[self.style_row, None] if self.mixes is None else self.mixes @ self.rows
        offset = 0
        for _, layer in self._conditioned():
            middle, end = offset + layer.channels, offset + 2 * layer.channels
            layer.gain, layer.shift = row[:, offset:middle], row[:, middle:end]
            offset = end
        painted: Tensor = self.palette(super().paint(photos, seeds))
        return painted

    def start_from(self, fast: Mapping[str, Tensor]) -> None:
        """Take over the weights of a ``fast`` generator, its gains and shifts in every row."""
        own = self.state_dict()
        self.load_state_dict({name: fast.get(name, tensor) for name, tensor in own.items()})
        row = self._neutral_row()
        offset = 0
        for name, layer in self._conditioned():
            norm = name.removesuffix(".affine_of_row")
            for kind in ("weight", "bias"):
                if norm != name:
                    row[offset : offset + layer.channels] = fast[f"{norm}.{kind}"]
                offset += layer.channels
        self.rows.data.copy_(row)

    def baked(self, row: int | None = None) -> FastGenerator:
        """The generator ``fast`` that paints as this one does in ``row``, by default its own."""
        row = self.style_row if row is None else row
        fast = FastGenerator(
            **WIDTHS, normalization=InstanceNorm, padding=self.padding, grain=self.grain_strength
        )
        weights = {n: t.clone() for n, t in self.state_dict().items() if n != "rows"}
        offset = 0
        for name, layer in self._conditioned():
            numbers = self.rows.detach()[row, offset : offset + 2 * layer.channels]
            gain, shift = numbers[: layer.channels], numbers[layer.channels :]
            offset += 2 * layer.channels
            norm = name.removesuffix(".affine_of_row")
            if norm != name:
                weights |= {f"{norm}.weight": gain, f"{norm}.bias": shift}
                continue
            # What follows a convolution is part of it: gain (W x + b) + shift.
            before = "to_rgb" if layer is self.palette else name.removesuffix(".2") + ".1"
            weights[f"{before}.weight"] *= gain.view(-1, 1, 1, 1)
            weights[f"{before}.bias"] = weights[f"{before}.bias"] * gain + shift
        fast.load_state_dict(weights)
        return fast.train(self.training).requires_grad_(requires_grad=False)

    def _conditioned(self) -> Iterator[tuple[str, Conditioned]]:
        """The layers that a row sets, in the order of its numbers."""
        for name, module in self.named_modules():
            if isinstance(module, Conditioned):
                yield name, module

    def _neutral_row(self) -> Tensor:
        """Gain 1, shift 0."""
        channels = [layer.channels for _, layer in self._conditioned()]
        return torch.cat([torch.tensor([1.0, 0.0]).repeat_interleave(n) for n in channels])


def row_count(generator: Generator) -> int:
    """How many rows ``generator`` can mix; 0 where it has none."""
    return len(generator.rows) if isinstance(generator, ConditionalGenerator) else 0


def row_mix(generator: Generator, row: int) -> Tensor | None:
    """``mixes`` for pictures in one row of ``generator``, (1, R); None where it has no rows."""
    if not isinstance(generator, ConditionalGenerator):
        return None
    return torch.eye(len(generator.rows), device=generator.rows.device)[row, None]


@contextmanager
def mixed(generator: Generator, mixes: Tensor | None) -> Iterator[None]:
    """Within, ``generator`` paints in ``mixes``, (N, R) or (1, R); None for other generators."""
    if not isinstance(generator, ConditionalGenerator):
        yield
        return
    before, generator.mixes = generator.mixes, mixes
    try:
        yield
    finally:
        generator.mixes = before
