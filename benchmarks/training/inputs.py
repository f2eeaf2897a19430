"""What stands in where there are no photographs and no loss network."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from trainer.commands.arguments import asset

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor


def draw_photos(folder: Path, count: int = 32) -> Path:
    """Write ``count`` seeded pictures of gradients and noise; give the folder, or the only one."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 1, 320)
    for number in range(count):
        from_corner = rng.uniform(-1, 1, (3, 2)) @ np.stack(np.meshgrid(ramp, ramp)).reshape(2, -1)
        blurred = rng.normal(0, 0.3, (20, 20, 3)).repeat(16, 0).repeat(16, 1)
        picture = 0.5 + from_corner.T.reshape(320, 320, 3) / 4 + blurred
        picture += rng.normal(0, 0.03, picture.shape)
        path = folder / f"{number:02}.jpg"
        Image.fromarray((picture.clip(0, 1) * 255).astype(np.uint8)).save(path, quality=85)
    return path if count == 1 else folder


def found_loss_network() -> Path | None:
    """Development's loss network, where there is one."""
    folder = asset("loss_network")
    return min(folder.glob("*.safetensors"), default=None) if folder else None


def draw_loss_network(folder: Path) -> Path:
    """Write a random VGG-19 to relu3_4, full width; its speed is that of the trained one."""
    torch.manual_seed(0)
    tensors: dict[str, Tensor] = {}
    in_channels = 3
    for block, (convolutions, channels) in enumerate([(2, 64), (2, 128), (4, 256)], 1):
        for index in range(1, convolutions + 1):
            deviation = math.sqrt(2 / (9 * in_channels))  # He et al. 2015: keeps the variance
            weight = torch.randn(channels, in_channels, 3, 3) * deviation
            tensors[f"conv{block}_{index}.weight"] = weight
            tensors[f"conv{block}_{index}.bias"] = torch.zeros(channels)
            in_channels = channels
    path = folder / "random_vgg19_relu3_4.safetensors"
    save_file(tensors, path)
    return path
