"""Where large pictures are cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model_zoo.layers import contrast_of, pad_to_multiple
from service.tiles import TileLayout, measure_contrast, pad_pixels

SIZES = [(1, 1), (7, 300), (64, 64), (65, 129), (500, 333), (1000, 40), (481, 4000)]


def make_layout(sample_px: int = 50_000) -> TileLayout:
    return TileLayout(side_px=64, margin_px=16, sample_px=sample_px, stride=4, minimum_side=16)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_tiles_keep_every_pixel_once_with_context_around_it(height: int, width: int) -> None:
    layout = make_layout()
    kept = np.zeros((height, width), int)
    for tile in layout.tiles(height, width):
        kept[tile.core] += 1
        for span, size in ((tile.rows, height), (tile.columns, width)):
            assert span.outer[0] % layout.stride == 0
            assert span.outer[0] == 0 or span.core[0] - span.outer[0] >= layout.margin_px
            assert span.outer[1] >= size or span.outer[1] - span.core[1] >= layout.margin_px
    assert (kept == 1).all()


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_cut_gives_what_a_padded_picture_has_there(height: int, width: int) -> None:
    layout = make_layout()
    pixels = noise(height, width)
    padded = pad_pixels(pixels, layout.stride, layout.minimum_side)
    shapes = set()
    for tile in layout.tiles(height, width):
        piece = layout.cut(pixels, tile)
        top, left = tile.rows.outer[0], tile.columns.outer[0]
        expected = padded[top : top + piece.shape[0], left : left + piece.shape[1]]
        assert np.array_equal(piece, expected)
        assert piece.shape[0] % layout.stride == piece.shape[1] % layout.stride == 0
        shapes.add(piece.shape)
    assert len(shapes) == 1, "each new shape costs the runtime its preparation"


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("sample_px", [1, 100_000, 10**9])
def test_sample_is_within_its_bound_and_suits_the_network(
    sample_px: int, height: int, width: int
) -> None:
    layout = make_layout(sample_px)
    patches = layout.sample(noise(height, width))
    count, patch_height, patch_width, _ = patches.shape
    assert count == 1 or count * min(160, height) * min(160, width) <= sample_px < height * width
    for side in (patch_height, patch_width):
        assert side % layout.stride == 0
        assert side >= layout.minimum_side


def test_sample_is_the_picture_where_it_may_be() -> None:
    pixels = noise(480, 331)
    (patch,) = make_layout(480 * 331).sample(pixels)
    assert np.array_equal(patch, pad_pixels(pixels, 4, 16))


def test_sample_is_spread_over_the_picture() -> None:
    rows = np.broadcast_to(np.arange(960)[:, None, None] // 4, (960, 1280, 3)).astype(np.uint8)
    patches = make_layout(960 * 1280 // 4).sample(rows)
    assert len(patches) >= 6
    assert patches.min() == 0
    assert patches.max() == 239


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (5, 4), (16, 16), (33, 17)])
def test_pad_pixels_pads_as_generators_do(height: int, width: int) -> None:
    pixels = noise(height, width)
    photo = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    expected = pad_to_multiple(photo.float(), 8, 16)[0].permute(1, 2, 0).numpy()
    assert np.array_equal(pad_pixels(pixels, 8, 16), expected)


@pytest.mark.parametrize("pixels", [noise(600, 7), np.full((9, 9, 3), 50, np.uint8)])
def test_measure_contrast_equals_that_of_the_generators(pixels: np.ndarray) -> None:
    photo = torch.from_numpy(pixels).permute(2, 0, 1)[None].double() / 255
    assert measure_contrast(pixels) == pytest.approx(float(contrast_of(photo)), rel=1e-6)
