"""The multi-scale generator g(x, z) of Ulyanov et al., *Texture Networks* (2016).

Layout from the authors' code (texture_nets, ``pyramid.lua``) with instance normalization. The
noise z is of v1 of that code; the later one, and the paper on instance normalization, stylize
without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_zoo.layers import (
    INPUT_GAIN,
    Generator,
    Normalization,
    Padding,
    contrast_of,
    conv_block,
    convolution,
    normalization_layer,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


def texture_net(
    normalization: Normalization = "instance",
    padding: Padding = "reflect",
    noise_channels: int = 0,
) -> Generator:
    """Scales 1/32 to 1, 8 channels a scale: 0.12 M parameters, 14 GMAC at 512 x 512 px."""
    return TextureNet(
        ratios=(32, 16, 8, 4, 2, 1),
        channels=8,
        normalization=normalization,
        padding=padding,
        noise_channels=noise_channels,
    )


class TextureNet(Generator):
    """Looks at the photograph at every scale and joins what it sees, coarsest first.

    ``noise_channels`` of noise z stand beside the photograph at each scale: normal, as the paper
    has it, and scaled by the photograph's own contrast, so that an answer under instance
    normalization stays independent of that contrast.
    """

    def __init__(
        self,
        *,
        ratios: tuple[int, ...],
        channels: int,
        normalization: Normalization,
        padding: Padding,
        noise_channels: int,
    ) -> None:
        super().__init__()
        if not 0 <= noise_channels <= 64:
            raise ValueError(f"noise_channels {noise_channels} must be between 0 and 64")
        self.ratios = ratios
        self.noise_channels = noise_channels
        self.stride = max(ratios)
        self.minimum_side = 2 * max(ratios)  # a 1 x 1 map under instance normalization is all 0
        # At every scale two convolutions of 3x3 in its branch and two behind its join; the sum of
        # scales is below twice the coarsest, as are the pixels that upsampling repeats.
        self.reach_px = 2 * (2 + 2 + 1) * max(ratios)
        inputs = 3 + noise_channels
        self.branches = nn.ModuleList(
            scale_block(inputs, channels, normalization, padding) for _ in ratios
        )
        self.joins = nn.ModuleList(
            Join(channels * number, channels, normalization, padding)
            for number in range(1, len(ratios))
        )
        self.to_rgb = convolution(channels * len(ratios), 3, 1, padding, bias=True)
        nn.init.constant_(self.to_rgb.bias, 0.5)  # type: ignore[arg-type]  # bias=True above

    def paint(self, photos: Tensor, seeds: Sequence[int] | None) -> Tensor:
        photos = photos * INPUT_GAIN
        scales = [F.avg_pool2d(photos, ratio) if ratio > 1 else photos for ratio in self.ratios]
        if self.noise_channels:
            scales = self._with_noise(scales, contrast_of(photos), seeds)
        x = self.branches[0](scales[0])  # (N, C, H/32, W/32)
        for number, join in enumerate(self.joins, 1):
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = join(x, self.branches[number](scales[number]))  # (N, (number + 1) C, ...)
        painted: Tensor = self.to_rgb(x)
        return painted

    def _with_noise(
        self, scales: list[Tensor], contrast: Tensor, seeds: Sequence[int] | None
    ) -> list[Tensor]:
        """Put noise beside each scale; without seeds it is new in training and 0's otherwise."""
        if seeds is None:
            seeds = [0] * len(contrast)
            if self.training:
                seeds = torch.randint(2**62, (len(contrast),)).tolist()
        # Drawn on the CPU, picture by picture: the same on every device and in every batch.
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        noisy = []
        for scale in scales:
            size = (self.noise_channels, *scale.shape[-2:])
            noise = torch.stack([torch.randn(size, generator=g) for g in generators])
            noise = noise.to(scale) * contrast.view(-1, 1, 1, 1)
            noisy.append(torch.cat([scale, noise], 1))
        return noisy


class Join(nn.Module):
    """Normalizes what comes from coarser scales and from this one, and convolves both together.

    Without the normalizations the coarse branch, which is deeper, would drown the new one.
    (N, C, H, W) and (N, C', H, W) -> (N, C + C', H, W).
    """

    def __init__(
        self, coarse: int, fine: int, normalization: Normalization, padding: Padding
    ) -> None:
        super().__init__()
        self.normalize_coarse = normalization_layer(normalization, coarse)
        self.normalize_fine = normalization_layer(normalization, fine)
        self.block = scale_block(coarse + fine, coarse + fine, normalization, padding)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        both = torch.cat([self.normalize_coarse(coarse), self.normalize_fine(fine)], 1)
        joined: Tensor = self.block(both)
        return joined


def scale_block(
    in_channels: int, out_channels: int, normalization: Normalization, padding: Padding
) -> nn.Sequential:
    """3x3, 3x3, 1x1, each with normalization and ReLU."""
    return nn.Sequential(
        conv_block(in_channels, out_channels, 3, normalization, padding),
        conv_block(out_channels, out_channels, 3, normalization, padding),
        conv_block(out_channels, out_channels, 1, normalization, padding),
    )
