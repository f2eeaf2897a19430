"""Each metric: a picture built to fail it, one built to pass, and odd sizes."""

import numpy as np
import pytest
import torch
from skimage import data as skimage_data

from model_zoo.generators import GENERATORS
from trainer.picture_metrics import (
    border_ratio,
    checkerboard_energy,
    clipped_share,
    contrast_invariance,
    flat_share,
)
from trainer.pictures import as_seen


def photograph(name: str) -> torch.Tensor:
    pixels = torch.from_numpy(np.ascontiguousarray(getattr(skimage_data, name)()))
    pixels = pixels[..., None].expand(*pixels.shape, 3) if pixels.dim() == 2 else pixels
    return pixels.permute(2, 0, 1)[None, :, :300, :400].float() / 255


def grid(photo: torch.Tensor, period_px: int, amplitude: float) -> torch.Tensor:
    """A checkerboard such as transposed convolutions leave, ``amplitude`` in steps of 255."""
    rows, columns = (torch.arange(n) % period_px < period_px // 2 for n in photo.shape[-2:])
    return amplitude / 255 * ((rows[:, None] ^ columns).float() - 0.5)


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "gravel", "brick"])
@pytest.mark.parametrize(("period_px", "amplitude"), [(2, 4), (4, 8)])
def test_a_grid_raises_checkerboard_energy_and_photographs_have_little(
    name: str, period_px: int, amplitude: float
) -> None:
    photo = photograph(name)

    assert checkerboard_energy(photo) < 3
    assert checkerboard_energy(as_seen(photo + grid(photo, period_px, amplitude))) > 4


def test_strokes_of_one_direction_are_no_grid() -> None:
    """Stripes of many widths, upright: a line of bins, none of which stands out."""
    torch.manual_seed(0)
    stripes = torch.nn.functional.interpolate(torch.rand(1, 1, 1, 150), size=(256, 300))

    assert checkerboard_energy(as_seen(stripes.expand(1, 3, -1, -1))) < 4


def test_an_even_picture_has_no_grid() -> None:
    assert checkerboard_energy(torch.full((1, 3, 64, 64), 0.3)) == pytest.approx(1)


@pytest.mark.parametrize("name", ["astronaut", "gravel", "chelsea"])
def test_a_noisy_frame_raises_the_border_ratio_and_photographs_are_even(name: str) -> None:
    photo = photograph(name)
    framed = photo.clone()
    for side in (framed[..., :8, :], framed[..., -8:, :], framed[..., :8], framed[..., -8:]):
        side.copy_(torch.rand_like(side))

    assert 0.4 < border_ratio(photo) < 1.6
    assert border_ratio(framed) > 2


def test_a_faded_frame_lowers_the_border_ratio() -> None:
    photo = photograph("gravel")
    faded = torch.full_like(photo, 0.5)
    faded[..., 16:-16, 16:-16] = photo[..., 16:-16, 16:-16]

    assert border_ratio(faded) < 0.5


def test_clipped_share_counts_pixels_with_any_channel_outside() -> None:
    picture = torch.full((1, 3, 40, 50), 0.5)
    assert clipped_share(picture) == 0
    picture[0, 1, :10] = 1.1
    picture[0, 2, 30:] = -0.1
    assert clipped_share(picture) == pytest.approx(0.5)
    assert clipped_share(torch.full((1, 3, 40, 50), 1.0 + 0.4 / 255)) == 0


def test_flat_share_is_the_area_of_one_colour() -> None:
    lively = photograph("gravel")
    half = lively.clone()
    half[..., :152, :] = 0.25

    assert flat_share(lively) < 0.01
    assert flat_share(half) == pytest.approx(0.5, abs=0.02)
    assert flat_share(torch.full((1, 3, 64, 64), 0.7)) == 1


@pytest.mark.parametrize("normalization", ["instance", "batch"])
def test_contrast_invariance_tells_the_normalizations_apart(normalization: str) -> None:
    torch.manual_seed(2)
    generator = GENERATORS["johnson_half"](normalization=normalization)
    generator.train()(photograph("chelsea"))  # running statistics of photographs
    generator.eval()

    with torch.inference_mode():
        change = contrast_invariance(generator, photograph("coffee")[..., :128, :128])

    assert (change <= 2) is (normalization == "instance")


@pytest.mark.parametrize("size", [(32, 32), (97, 338), (1080, 40)])
def test_every_size_from_32_px_on_is_measured(size: tuple[int, int]) -> None:
    picture = as_seen(torch.rand(1, 3, *size))

    assert checkerboard_energy(picture) > 0
    assert border_ratio(picture) == pytest.approx(1, abs=0.2)
    assert flat_share(picture) == 0
