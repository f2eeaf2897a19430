"""A folder of real photographs, a small loss network of random weights, a quick recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from skimage import data as skimage_data

if TYPE_CHECKING:
    from pathlib import Path

RECIPE = """\
[style]
title = "Bricks"
artist = "A mason"
year = "1950"
description = "A wall"
picture = "style.png"
picture_license = "CC0-1.0"
size_px = 96

[generator]
name = "johnson_half"

[loss]
content_layers = ["relu2_2"]
content_weight = 1.0
style_layers = ["relu1_2", "relu2_2"]
style_weight = 5.0
style_scales = [1.0, 0.5]
total_variation_weight = 0.05

[data]
crop_px = 64
batch_size = 2

[optimization]
steps = 6
learning_rate = 1e-3
schedule = "cosine"
seed = 5
"""

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")


def vgg_tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    """conv1_1 to conv3_2 with a few random channels each, as a loss network file holds them."""
    rng = torch.Generator().manual_seed(seed)
    tensors = {}
    layers = (("1_1", 3, 8), ("1_2", 8, 8), ("2_1", 8, 16), ("2_2", 16, 16), ("3_1", 16, 24))
    for name, in_channels, out_channels in (*layers, ("3_2", 24, 24)):
        scale = (2 / (9 * in_channels)) ** 0.5
        weight = torch.randn(out_channels, in_channels, 3, 3, generator=rng) * scale
        tensors[f"conv{name}.weight"] = weight
        tensors[f"conv{name}.bias"] = torch.zeros(out_channels)
    return tensors


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for name in PHOTOGRAPHS:
        photo = Image.fromarray(getattr(skimage_data, name)())
        photo.thumbnail((160, 160))
        photo.save(folder / f"{name}.jpg", quality=90)
    return folder


@pytest.fixture(scope="session")
def loss_network_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("loss_network") / "vgg.safetensors"
    save_file(vgg_tensors(), path)
    return path


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    """A recipe of six quick steps with its style picture beside it."""
    Image.fromarray(skimage_data.brick()).convert("RGB").resize((128, 112)).save(
        tmp_path / "style.png"
    )
    path = tmp_path / "bricks.toml"
    path.write_text(RECIPE, encoding="utf-8")
    return path
