"""Each metric on pictures that were built to fail it, and on pictures that must pass."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from skimage import data as skimage_data
from torch.nn import functional as F

from model_zoo.checkpoints import build_generator
from trainer.picture_metrics import (
    border_ratio,
    checkerboard_energy,
    clipped_share,
    contrast_invariance,
    flat_share,
)
from trainer.pictures import as_seen

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
TEXTURES = ("brick", "grass", "gravel")
SIZES = ((32, 32), (97, 338), (64, 97), (256, 256))
STEP = 1 / 255

PICTURE_METRICS = (checkerboard_energy, border_ratio, flat_share)


def photograph(name: str) -> Tensor:
    """RGB in [0, 1], (1, 3, H, W)."""
    pixels = getattr(skimage_data, name)()
    pixels = pixels if pixels.ndim == 3 else np.stack([pixels] * 3, axis=-1)
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255


def crop(name: str, size: tuple[int, int]) -> Tensor:
    """The middle of a photograph, (1, 3, *size)."""
    photo = photograph(name)
    top, left = ((have - want) // 2 for have, want in zip(photo.shape[-2:], size, strict=True))
    return photo[..., top : top + size[0], left : left + size[1]]


def noise(size: tuple[int, int], deviation: float = 0.1) -> Tensor:
    """Grey noise around 0.5, as seen: (1, 3, *size)."""
    values = torch.randn(1, 1, *size, generator=torch.Generator().manual_seed(0))
    return as_seen(0.5 + deviation * values).expand(1, 3, *size)


def on_border(picture: Tensor, border: Tensor, width: int) -> Tensor:
    """``picture`` with its outer ``width`` px from ``border``."""
    framed = border.clone()
    inside = (..., slice(width, -width), slice(width, -width))
    framed[inside] = picture[inside]
    return framed


# --- checkerboard_energy


def grid(kind: str, size: tuple[int, int]) -> Tensor:
    """A pattern of amplitude 1, (*size)."""
    down, across = torch.arange(size[0])[:, None], torch.arange(size[1])[None]
    return {
        "columns of 2": (1 - 2 * (across % 2)).float().expand(size),
        "rows of 2": (1 - 2 * (down % 2)).float().expand(size),
        "chessboard": 1 - 2 * ((across + down) % 2).float(),
        "every second pixel": 2 * ((across % 2) * (down % 2)).float() - 1,
        "waves of 4": torch.cos(math.pi / 2 * across + 0.4).expand(size),
        "lines every 4": 2 * torch.maximum(across % 4 == 0, down % 4 == 0).float() - 1,
        "upright waves of 4": torch.cos(math.pi / 2 * down + 0.4).expand(size),
        "falling diagonals of 4": torch.cos(math.pi / 2 * (across - down) + 0.4),
        "rising diagonals of 4": torch.cos(math.pi / 2 * (across + down) + 0.4),
        "weave of 2 and 4": (1 - 2 * (across % 2)) * torch.cos(math.pi / 2 * down + 0.4),
        "weave of 4 and 2": (1 - 2 * (down % 2)) * torch.cos(math.pi / 2 * across + 0.4),
        "waves of 3": torch.cos(2 * math.pi / 3 * across).expand(size),
        "waves of 7": torch.cos(2 * math.pi / 7 * across).expand(size),
    }[kind]


def with_grid(picture: Tensor, kind: str, steps: float) -> Tensor:
    return as_seen(picture + steps * STEP * grid(kind, (picture.shape[-2], picture.shape[-1])))


@pytest.mark.parametrize("name", PHOTOGRAPHS + TEXTURES)
def test_a_photograph_has_no_grid(name: str) -> None:
    assert checkerboard_energy(photograph(name)) < 0.3


@pytest.mark.parametrize("name", PHOTOGRAPHS)
@pytest.mark.parametrize(
    "kind",
    [
        "columns of 2",
        "rows of 2",
        "chessboard",
        "every second pixel",
        "waves of 4",
        "upright waves of 4",
        "lines every 4",
        "falling diagonals of 4",
        "rising diagonals of 4",
        "weave of 2 and 4",
        "weave of 4 and 2",
    ],
)
def test_a_grid_of_two_steps_is_seen_and_one_of_four_seen_better(name: str, kind: str) -> None:
    faint = checkerboard_energy(with_grid(photograph(name), kind, 2))
    strong = checkerboard_energy(with_grid(photograph(name), kind, 4))

    assert faint > 3
    assert strong > faint + 1


@pytest.mark.parametrize("kind", ["every second pixel", "waves of 4"])
@pytest.mark.parametrize("name", TEXTURES)
def test_a_grid_of_four_steps_is_seen_on_texture(name: str, kind: str) -> None:
    assert checkerboard_energy(with_grid(photograph(name), kind, 4)) > 2


@pytest.mark.parametrize("kind", ["waves of 3", "waves of 7"])
def test_waves_of_other_periods_are_no_grid(kind: str) -> None:
    assert checkerboard_energy(with_grid(photograph("chelsea"), kind, 4)) < 0.3


def test_a_transposed_convolution_leaves_a_grid_and_upsampling_leaves_none() -> None:
    """A kernel of 3 at stride 2 meets some pixels once, some twice and some four times."""
    small = F.avg_pool2d(photograph("coffee"), 2).transpose(0, 1)  # (3, 1, H/2, W/2)
    kernel = torch.tensor([[1.0, 2.0, 1.0], [2.0, 3.4, 2.0], [1.0, 2.0, 1.0]])[None, None] / 4
    transposed = F.conv_transpose2d(small, kernel, stride=2, padding=1, output_padding=1)
    nearest = F.conv2d(F.interpolate(small, scale_factor=2), kernel / kernel.sum(), padding=1)

    assert checkerboard_energy(as_seen(transposed.transpose(0, 1))) > 3
    assert checkerboard_energy(as_seen(nearest.transpose(0, 1))) < 0.3


@pytest.mark.parametrize("degrees", [0, 20, 45, 70, 90, 135])
def test_strokes_of_one_direction_are_no_grid(degrees: int) -> None:
    """Noise of all periods across the strokes: its spectrum is one ridge through many bins."""
    along = math.radians(degrees)
    radius = 12
    brush = torch.zeros(1, 1, 2 * radius + 1, 2 * radius + 1)
    for place in torch.linspace(-radius, radius, 200).tolist():
        brush[
            0, 0, round(radius + place * math.sin(along)), round(radius + place * math.cos(along))
        ] = 1
    values = torch.randn(1, 1, 320, 320, generator=torch.Generator().manual_seed(1))
    strokes = F.conv2d(values, brush / brush.sum())
    strokes = as_seen(0.5 + 0.15 * strokes / strokes.std()).expand(1, 3, -1, -1)

    assert checkerboard_energy(strokes) < 0.4


def test_an_even_picture_and_noise_have_no_grid() -> None:
    assert checkerboard_energy(torch.full((3, 128, 128), 0.4)) == 0
    assert checkerboard_energy(noise((256, 256))) < 0.3


@pytest.mark.parametrize("size", SIZES)
def test_a_grid_is_seen_at_any_size(size: tuple[int, int]) -> None:
    photo = crop("coffee", size)

    assert checkerboard_energy(photo) < 0.3
    assert checkerboard_energy(with_grid(photo, "every second pixel", 2)) > 3
    assert checkerboard_energy(with_grid(photo, "waves of 4", 4)) > 3


def test_a_grid_on_half_of_the_picture_counts_half() -> None:
    photo = crop("chelsea", (256, 384))
    whole = with_grid(photo, "every second pixel", 3)
    half = torch.cat([whole[..., :192], photo[..., 192:]], dim=-1)

    assert checkerboard_energy(half) == pytest.approx(checkerboard_energy(whole) / 2, rel=0.25)


def test_the_grid_of_a_turned_or_brighter_picture_is_the_same() -> None:
    photo = with_grid(0.1 + 0.6 * crop("coffee", (192, 256)), "lines every 4", 3)
    energy = checkerboard_energy(photo)

    assert checkerboard_energy(photo.mT) == pytest.approx(energy, rel=1e-3)
    assert checkerboard_energy(photo + 20 * STEP) == pytest.approx(energy, rel=1e-3)


# --- border_ratio


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_the_border_of_a_photograph_is_about_as_busy_as_what_lies_inside(name: str) -> None:
    assert 0.6 < border_ratio(photograph(name)) < 1.2


def test_the_border_of_an_even_texture_is_as_busy_as_what_lies_inside() -> None:
    assert border_ratio(noise((97, 338))) == pytest.approx(1, abs=0.1)
    assert border_ratio(photograph("gravel")) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("size", SIZES)
def test_a_busy_border_is_far_above_1_and_a_dull_one_far_below(size: tuple[int, int]) -> None:
    calm, busy = noise(size, 0.02), noise(size, 0.06)

    assert border_ratio(on_border(calm, busy, 8)) > 1.7
    assert border_ratio(on_border(busy, calm, 8)) < 0.75


def test_a_ring_of_its_own_width_sees_a_narrow_frame_best() -> None:
    framed = on_border(noise((128, 160), 0.02), noise((128, 160), 0.1), 4)

    assert border_ratio(framed, 4) > 4
    assert border_ratio(framed, 16) < 0.6 * border_ratio(framed, 4)


def test_only_the_neighbouring_ring_counts_as_inside() -> None:
    """A subject in the middle of an empty picture says nothing of the border."""
    with_subject = noise((256, 256), 0.02).clone()
    with_subject[..., 64:-64, 64:-64] = noise((128, 128), 0.2)

    assert border_ratio(with_subject) == pytest.approx(1, abs=0.1)


def test_a_reference_takes_the_photographs_own_border_out() -> None:
    photo = on_border(noise((128, 128), 0.02), noise((128, 128), 0.06), 16)
    damaged = on_border(photo, noise((128, 128), 0.18), 16)

    assert border_ratio(photo) > 2
    assert border_ratio(photo, reference=photo) == 1
    assert border_ratio(damaged, reference=photo) == pytest.approx(3, rel=0.1)
    narrow = border_ratio(damaged, 8) / border_ratio(photo, 8)
    assert border_ratio(damaged, 8, reference=photo) == pytest.approx(narrow)


def test_the_border_of_an_even_picture_is_1() -> None:
    assert border_ratio(torch.full((3, 32, 32), 0.7)) == 1


def test_the_border_ratio_does_not_depend_on_contrast_or_side() -> None:
    photo = photograph("astronaut")[..., :301, :]
    ratio = border_ratio(photo)

    assert border_ratio(0.2 + 0.5 * photo) == pytest.approx(ratio, rel=0.02)
    assert border_ratio(photo.mT) == pytest.approx(ratio, rel=1e-4)
    assert border_ratio(photo.flip(-1)) == pytest.approx(ratio, rel=0.02)


def test_when_the_ring_has_no_width_then_says_so() -> None:
    with pytest.raises(ValueError, match="ring_px 0 must be at least 1"):
        border_ratio(torch.rand(3, 64, 64), 0)


# --- clipped_share


def test_clipped_share_counts_pixels_in_which_any_channel_is_cut() -> None:
    unclamped = torch.full((1, 3, 4, 5), 0.5)
    unclamped[0, 0, 0, 0] = -0.1
    unclamped[0, :, 1, 1] = 1.1  # three channels, one pixel
    unclamped[0, 2, 3, 4] = math.nan

    assert clipped_share(unclamped) == pytest.approx(3 / 20)
    assert clipped_share(unclamped[0]) == pytest.approx(3 / 20)


def test_what_rounding_hides_is_not_clipped() -> None:
    assert (
        clipped_share(torch.tensor([0.0, 1.0, 1 + 0.49 * STEP, -0.49 * STEP]).expand(3, 1, 4)) == 0
    )
    assert clipped_share(torch.tensor([1 + 0.51 * STEP, -0.51 * STEP]).expand(3, 1, 2)) == 1


# --- flat_share


@pytest.mark.parametrize("size", SIZES)
def test_a_grey_card_is_all_flat_and_noise_is_not_at_all(size: tuple[int, int]) -> None:
    assert flat_share(torch.full((1, 3, *size), 0.37)) == 1
    assert flat_share(noise(size)) == 0


def test_texture_is_not_flat() -> None:
    assert flat_share(photograph("gravel")) < 0.001


def test_flat_areas_count_by_their_size() -> None:
    picture = noise((97, 338)).clone()
    picture[..., 30:38, 51:59] = 0.2  # as large as a window
    picture[..., 60:90, 100:107] = 0.2  # narrower than one
    picture[..., :50, 200:] = 0.8

    expected = (8 * 8 + 50 * 138) / (97 * 338)
    assert flat_share(picture) == pytest.approx(expected, rel=0.02)


def test_flat_ends_at_a_deviation_of_one_and_a_half_steps() -> None:
    """A chessboard of amplitude a deviates by a."""
    grey = torch.full((1, 3, 64, 64), 128 / 255)

    assert flat_share(with_grid(grey, "chessboard", 1)) == 1
    assert flat_share(with_grid(grey, "chessboard", 2)) == 0


# --- contrast_invariance


def johnson(**arguments: str) -> Callable[[Tensor], Tensor]:
    torch.manual_seed(0)
    generator = build_generator("johnson_half", arguments).eval().requires_grad_(False)
    return lambda photo: generator(photo)


def test_instance_normalization_with_reflection_does_not_see_the_contrast() -> None:
    assert contrast_invariance(johnson(), crop("coffee", (97, 130))) <= 1


@pytest.mark.parametrize("arguments", [{"normalization": "batch"}, {"padding": "zero"}])
def test_batch_normalization_and_zero_padding_see_the_contrast(arguments: dict[str, str]) -> None:
    assert contrast_invariance(johnson(**arguments), crop("coffee", (97, 130))) > 3


def test_contrast_invariance_is_the_largest_change_in_steps() -> None:
    """Dark white and pale black are 128 steps away; a quarter of a contrast of 64 changes by 48."""
    photo = torch.ones(1, 3, 32, 32)
    photo[..., 16:] = 1 - 128 * STEP

    assert contrast_invariance(lambda x: x, photo) == pytest.approx(128, abs=1.5)
    assert contrast_invariance(lambda x: x, 1 - photo.ceil()) == pytest.approx(128, abs=1.5)
    assert contrast_invariance(lambda x: 0.5 + x - x.mean(), photo) == pytest.approx(48, abs=1.5)


def test_contrast_invariance_compares_what_is_seen() -> None:
    """Values far outside [0, 1] change, and are all white; changes below half a step are none."""
    photo = crop("coffee", (32, 32))

    assert contrast_invariance(lambda x: 5 + 20 * x, photo) == 0
    assert contrast_invariance(lambda x: 128 / 255 + 0.3 * STEP * x, photo) == 0


def test_photographs_of_other_contrasts_stay_in_range() -> None:
    seen = []

    def stylize(photo: Tensor) -> Tensor:
        seen.append(photo)
        return photo

    contrast_invariance(stylize, torch.rand(1, 3, 32, 32).round())

    assert len(seen) > 2
    assert all(photo.min() >= 0 and photo.max() <= 1 for photo in seen)


# --- what is asked of pictures


@pytest.mark.parametrize("metric", PICTURE_METRICS)
def test_a_picture_may_come_alone_or_as_a_batch_of_one(metric: Callable[[Tensor], float]) -> None:
    picture = with_grid(crop("rocket", (97, 120)), "every second pixel", 2)

    value = metric(picture)

    assert isinstance(value, float)
    assert metric(picture[0]) == value
    assert metric(picture.double()) == pytest.approx(value, rel=1e-3)


@pytest.mark.parametrize("metric", PICTURE_METRICS)
@pytest.mark.parametrize("shape", [(2, 3, 64, 64), (64, 64), (1, 64, 64), (3, 31, 64), (3, 64, 31)])
def test_when_it_is_no_single_picture_of_32_px_then_says_so(
    metric: Callable[[Tensor], float], shape: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="cannot be measured"):
        metric(torch.rand(shape))


@pytest.mark.parametrize("metric", PICTURE_METRICS)
@pytest.mark.parametrize("value", [-0.01, 1.01, math.nan])
def test_when_a_picture_is_not_clamped_then_says_so(
    metric: Callable[[Tensor], float], value: float
) -> None:
    picture = torch.rand(3, 64, 64)
    picture[1, 2, 3] = value

    with pytest.raises(ValueError, match=r"outside \[0, 1\]"):
        metric(picture)
