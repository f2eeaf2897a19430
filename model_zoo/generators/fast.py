"""A generator for CPUs and for volume: thin stem, narrow trunk, decoder without normalization.

What the widths cost and what they are worth was measured: docs/decisions/0007.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from torch import Tensor, nn

from model_zoo.layers import (
    INPUT_GAIN,
    Generator,
    Grain,
    Normalization,
    NormalizationKind,
    Padding,
    ResidualBlock,
    conv_block,
    convolution,
    upsampling_block,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


def fast(
    normalization: Normalization = "instance",
    padding: Padding = "reflect",
    grain: float = 0.1,
) -> Generator:
    """16/32/96 channels, 5 residual blocks at an eighth of the size: 0.90 M parameters.

    With OpenVINO about a thirteenth of the time of ``johnson`` in eager torch, at 512 x 512 px.
    """
    return FastGenerator(**WIDTHS, normalization=normalization, padding=padding, grain=grain)


class Widths(TypedDict):
    """Channels of each convolution on the way down and up, blocks between, whether to skip."""

    encoder: tuple[int, ...]
    residual_blocks: int
    decoder: tuple[int, ...]
    skip: bool


WIDTHS: Widths = {
    "encoder": (16, 32, 96),
    "residual_blocks": 5,
    "decoder": (32, 24, 12),
    "skip": True,
}
"""Those of ``fast``."""


class FastGenerator(Generator):
    """Strided convolutions down to a small trunk of residual blocks, and straight up again.

    The first convolution is strided and overlaps (5x5): at full size, where a convolution costs
    most, only the last two layers run. ``skip`` hands the encoder's map at a quarter of the size
    to the decoder, for a trunk at an eighth.
    """

    minimum_side = 16  # the trunk's map must be larger than the 3x3 kernels' padding

    def __init__(
        self,
        *,
        encoder: tuple[int, ...],
        residual_blocks: int,
        decoder: tuple[int, ...],
        skip: bool,
        normalization: NormalizationKind,
        padding: Padding,
        grain: float,
    ) -> None:
        super().__init__()
        self.stride = 2 ** len(encoder)
        self.minimum_side = max(self.minimum_side, 2 * self.stride)
        # Two convolutions a block at the trunk's scale, and one at each scale on the way down and
        # up, with the pixels that nearest upsampling repeats.
        self.reach_px = (2 * residual_blocks + 4) * self.stride
        self.grain = Grain(grain) if grain else nn.Identity()
        inputs = (3, *encoder)
        self.encoder = nn.ModuleList(
            conv_block(inputs[n], width, 3 if n else 5, normalization, padding, stride=2)
            for n, width in enumerate(encoder)
        )
        self.trunk = nn.Sequential(
            *(ResidualBlock(encoder[-1], normalization, padding) for _ in range(residual_blocks))
        )
        inputs = (encoder[-1], *decoder)
        self.decoder = nn.ModuleList(
            upsampling_block(inputs[n], width, None, padding) for n, width in enumerate(decoder)
        )
        self.skip = skip
        self.to_rgb = convolution(decoder[-1], 3, 3, padding, bias=True)
        # Start at mid-grey: from black, half of the first outputs would be clipped.
        nn.init.constant_(self.to_rgb.bias, 0.5)  # type: ignore[arg-type]  # bias=True above

    def paint(self, photos: Tensor, seeds: Sequence[int] | None) -> Tensor:  # noqa: ARG002
        x = self.grain(photos) * INPUT_GAIN
        maps = []
        for block in self.encoder:
            x = block(x)
            maps.append(x)
        x = self.trunk(x)
        for number, block in enumerate(self.decoder):
            x = block(x)
            if self.skip and number < len(maps) - 2:
                x = x + maps[-2 - number]
        painted: Tensor = self.to_rgb(x)  # (N, 3, H, W)
        return painted
