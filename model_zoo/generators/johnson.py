"""The residual generator of Johnson, Alahi and Fei-Fei, *Perceptual Losses* (2016).

Layout from their supplementary material, as changed by Ulyanov et al. 2016 (instance
normalization) and by later practice (nearest upsampling and convolution instead of a transposed
convolution, reflection padding, linear output instead of a scaled tanh, which darkens colours).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor, nn

from model_zoo.layers import (
    INPUT_GAIN,
    Generator,
    Grain,
    Normalization,
    Padding,
    ResidualBlock,
    conv_block,
    convolution,
    upsampling_block,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


def johnson(
    normalization: Normalization = "instance",
    padding: Padding = "reflect",
    last_kernel: int = 9,
    grain: float = 0.0,
    *,
    normalize_decoder: bool = True,
) -> Generator:
    """32/64/128 channels, 5 residual blocks: 1.68 M parameters, 40 GMAC at 512 x 512 px.

    With ``last_kernel=3`` it ends as texture_nets' ``johnson.lua`` does, with 9 as Johnson's own.
    """
    return ResidualGenerator(
        channels=(32, 64, 128),
        residual_blocks=5,
        first_kernel=9,
        last_kernel=last_kernel,
        normalization=normalization,
        padding=padding,
        grain=grain,
        normalize_decoder=normalize_decoder,
    )


def johnson_half(
    normalization: Normalization = "instance",
    padding: Padding = "reflect",
    last_kernel: int = 9,
    grain: float = 0.0,
    *,
    normalize_decoder: bool = True,
) -> Generator:
    """16/32/64 channels, 5 residual blocks: 0.42 M parameters, 11 GMAC at 512 x 512 px.

    The width of the authors' own instance-normalized models (fast-neural-style, README).
    """
    return ResidualGenerator(
        channels=(16, 32, 64),
        residual_blocks=5,
        first_kernel=9,
        last_kernel=last_kernel,
        normalization=normalization,
        padding=padding,
        grain=grain,
        normalize_decoder=normalize_decoder,
    )


class ResidualGenerator(Generator):
    """Two strided convolutions down, residual blocks at a quarter of the size, two up.

    ``grain`` is the standard deviation of noise that is added to the photograph, relative to the
    photograph's own. A network of convolutions answers an even area evenly, however large it is;
    grain gives it something to paint strokes from, as the noise z of *Texture Networks* does.

    Without ``normalize_decoder`` nothing behind the trunk is normalized, as in texture_nets'
    ``johnson_small.lua``: a normalized decoder can set its contrast only by painting spots strong
    enough to move the statistics, and such blobs are seen (docs/decisions/0005).
    """

    stride = 4
    minimum_side = 16  # the quarter-size map must be larger than the 3x3 kernels' padding

    def __init__(
        self,
        *,
        channels: tuple[int, int, int],
        residual_blocks: int,
        first_kernel: int,
        last_kernel: int,
        normalization: Normalization,
        padding: Padding,
        grain: float,
        normalize_decoder: bool,
    ) -> None:
        super().__init__()
        if not 0 <= grain <= 1:
            raise ValueError(f"grain {grain} must be between 0 and 1")
        if last_kernel < 1 or last_kernel % 2 == 0:
            raise ValueError(f"last_kernel {last_kernel} must be odd")
        # First and last convolution, the strided ones, two a block at a quarter of the size, and
        # those of the decoder with the pixels that nearest upsampling repeats.
        self.reach_px = 4 * math.ceil(
            (first_kernel // 2 + 3 + 8 * residual_blocks + 4 + 2 + 3 + last_kernel // 2) / 4
        )
        self.grain = Grain(grain) if grain else nn.Identity()
        full, half, quarter = channels
        self.encoder = nn.Sequential(
            conv_block(3, full, first_kernel, normalization, padding),
            conv_block(full, half, 3, normalization, padding, stride=2),
            conv_block(half, quarter, 3, normalization, padding, stride=2),
        )
        self.trunk = nn.Sequential(
            *(ResidualBlock(quarter, normalization, padding) for _ in range(residual_blocks))
        )
        of_decoder = normalization if normalize_decoder else None
        self.decoder = nn.Sequential(
            upsampling_block(quarter, half, of_decoder, padding),
            upsampling_block(half, full, of_decoder, padding),
        )
        self.to_rgb = convolution(full, 3, last_kernel, padding, bias=True)
        # Start at mid-grey: from black, half of the first outputs would be clipped.
        nn.init.constant_(self.to_rgb.bias, 0.5)  # type: ignore[arg-type]  # bias=True above

    def paint(self, photos: Tensor, seeds: Sequence[int] | None) -> Tensor:  # noqa: ARG002
        x = self.encoder(self.grain(photos) * INPUT_GAIN)  # (N, quarter, H/4, W/4)
        x = self.trunk(x)
        x = self.decoder(x)  # (N, full, H, W)
        painted: Tensor = self.to_rgb(x)  # (N, 3, H, W)
        return painted
