"""Penalties for faults that the perceptual losses do not see: grids, and colours out of range."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainer.picture_metrics import grid_prominences, luma

if TYPE_CHECKING:
    from torch import Tensor


def grid_penalty(stylized: Tensor) -> Tensor:
    """How far grids of 2 and 4 px stand out, over all of them: (N, 3, H, W) -> ().

    What :func:`trainer.picture_metrics.checkerboard_energy` measures. Networks that upsample leave
    such grids, and the longer they are trained, the more style they make of them.
    """
    prominences = grid_prominences(luma(stylized.float().clamp(0, 1)))  # (N, 9)
    return prominences.clamp_min(0).sum(1).mean()


def range_penalty(stylized: Tensor) -> Tensor:
    """Mean distance of values from [0, 1], where they will be clamped: (N, 3, H, W) -> ().

    The loss network sees values as they are, so a generator finds colours that no picture has.
    """
    return ((stylized.float() - 0.5).abs() - 0.5).clamp_min(0).mean()
