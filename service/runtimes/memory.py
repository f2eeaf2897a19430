"""How much memory passes take, from the size of a generator's maps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from model_zoo.tiling import measure_whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from model_zoo.layers import Generator

# For the picture itself: its pixels, the photograph and the painting in fp32.
_PIXEL_BYTES = 40.0
# What torch holds of the largest map: padded, convolved, normalized, and the allocator's rest.
# 4.1 of them for johnson to 6.6 for texture_net, at 1024 x 1024 px.
_MAPS_OF_TORCH = 6.6
# The same where maps are in bf16 and fused: 0.4 of them for johnson to 0.8 for fast, and one more
# in fp32 where statistics are carried on from frame to frame.
MAPS_OF_FUSED = 2.0
# The same as the first without the painting: 2.4 of them for fast to 5.4 for texture_net.
_MAPS_TO_MEASURE = 5.5
_SIDE_PX = 64


def bytes_to_paint(generator: Generator, maps_at_once: float = _MAPS_OF_TORCH) -> float:
    """Bytes that a pass takes at most, a pixel of the photograph."""
    return _bytes_per_px(generator, maps_at_once, lambda photos: generator.paint(photos, [0]))


def bytes_to_measure(generator: Generator) -> float:
    """Bytes that ``measure_whole`` takes at most in torch, a pixel of the patches."""
    contrast = torch.ones(1)
    return _bytes_per_px(
        generator, _MAPS_TO_MEASURE, lambda photos: measure_whole(generator, photos, contrast)
    )


@torch.inference_mode()
def _bytes_per_px(
    generator: Generator, maps_at_once: float, run: Callable[[Tensor], object]
) -> float:
    """Watch how large the largest map is, in fp32, that any module gives in ``run``."""
    largest = 0

    def look(_module: object, _inputs: Any, output: object) -> None:
        nonlocal largest
        if isinstance(output, Tensor):
            largest = max(largest, output.numel())

    hooks = [module.register_forward_hook(look) for module in generator.modules()]
    # Any size would do that suits the network; this one is quick.
    side = max(_SIDE_PX, generator.minimum_side)
    side += -side % generator.stride
    try:
        run(torch.zeros(1, 3, side, side))
    finally:
        for hook in hooks:
            hook.remove()
    return _PIXEL_BYTES + maps_at_once * largest * 4 / side**2
