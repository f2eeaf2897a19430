"""The stylizer with real, if untrained, generators."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from model_zoo.cards import Manifest, ZooError
from service.errors import DeviceOutOfMemoryError, StylizationError
from service.stylizer import StyleJob, Stylizer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from PIL import Image


@pytest.fixture(scope="module")
def manifest(tiny_zoo: Path) -> Manifest:
    return Manifest.read(tiny_zoo)


@pytest.fixture(scope="module")
def stylizer(manifest: Manifest) -> Stylizer:
    return Stylizer(manifest, device="cpu", threads=2)


@pytest.fixture(scope="module")
def jobs(manifest: Manifest, photograph: Callable[..., Image.Image]) -> list[StyleJob]:
    """Three photographs of one size in one style."""
    return [
        StyleJob(manifest.cards[0], np.asarray(photograph(80, 64, name)))
        for name in ("coffee", "astronaut", "chelsea")
    ]


def test_stylize_gives_uint8_of_the_same_size(stylizer: Stylizer, manifest: Manifest) -> None:
    for width, height in ((64, 48), (33, 17), (1, 1)):
        pixels = np.zeros((height, width, 3), np.uint8)
        (painted,) = stylizer.stylize([StyleJob(manifest.cards[0], pixels)])
        assert isinstance(painted, np.ndarray)
        assert painted.shape == pixels.shape
        assert painted.dtype == np.uint8


def test_stylize_when_batched_then_equals_each_alone(
    stylizer: Stylizer, jobs: list[StyleJob]
) -> None:
    """Instance normalization takes its statistics from each picture alone."""
    together = np.asarray(stylizer.stylize(jobs), int)
    alone = np.asarray([stylizer.stylize([job])[0] for job in jobs], int)
    assert np.abs(together - alone).max() <= 1
    assert not np.array_equal(alone[0], alone[1])


def test_stylize_when_repeated_then_gives_the_same_pixels(
    stylizer: Stylizer, jobs: list[StyleJob]
) -> None:
    first, second = stylizer.stylize(jobs), stylizer.stylize(jobs)
    assert np.array_equal(np.asarray(first), np.asarray(second))


def test_stylize_equals_the_generator_called_directly(
    stylizer: Stylizer, jobs: list[StyleJob]
) -> None:
    generator = stylizer._generators[jobs[0].card.style_id]
    with torch.inference_mode():
        photo = torch.from_numpy(jobs[0].pixels.copy()).permute(2, 0, 1)[None] / 255
        expected = (generator(photo).clamp(0, 1) * 255).round()[0].permute(1, 2, 0).numpy()
    assert np.abs(np.asarray(stylizer.stylize(jobs[:1])[0], int) - expected).max() <= 1


def test_stylize_gives_each_picture_its_own_seed(manifest: Manifest, jobs: list[StyleJob]) -> None:
    stylizer = Stylizer(manifest, device="cpu")
    given: list[object] = []

    def remember_seeds(photos: torch.Tensor, seeds: object) -> torch.Tensor:
        given.append(seeds)
        return photos

    stylizer._generators["ink"].forward = remember_seeds  # type: ignore[assignment]
    seeded = [StyleJob(job.card, job.pixels, seed) for seed, job in enumerate(jobs, 5)]
    painted = stylizer.stylize(seeded)
    assert given == [[5, 6, 7]]
    assert np.array_equal(np.asarray(painted), np.asarray([job.pixels for job in jobs]))


def test_stylize_when_a_style_breaks_then_that_picture_is_an_error(
    manifest: Manifest, jobs: list[StyleJob]
) -> None:
    stylizer = Stylizer(manifest, device="cpu")
    generator = stylizer._generators["ink"]
    forward = generator.forward

    def spoil_the_second(photos: torch.Tensor, _seeds: object) -> torch.Tensor:
        painted = forward(photos)
        painted[1, 0, 0, 0] = torch.nan
        return painted

    generator.forward = spoil_the_second  # type: ignore[assignment]
    first, second, third = stylizer.stylize(jobs)
    assert isinstance(second, StylizationError)
    assert isinstance(first, np.ndarray)
    assert isinstance(third, np.ndarray)


@pytest.mark.parametrize(
    "fault",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_stylize_when_memory_runs_out_then_says_so(
    fault: RuntimeError, manifest: Manifest, jobs: list[StyleJob]
) -> None:
    stylizer = Stylizer(manifest, device="cpu")

    def fail(_photos: object, _seeds: object) -> torch.Tensor:
        raise fault

    stylizer._generators["ink"].forward = fail  # type: ignore[assignment]
    with pytest.raises(DeviceOutOfMemoryError, match=r"80x64 .* smaller max_side"):
        stylizer.stylize(jobs)


def test_jobs_share_a_batch_key_only_in_style_and_size(manifest: Manifest) -> None:
    ink, wash = manifest
    wide, high = np.zeros((8, 16, 3), np.uint8), np.zeros((16, 8, 3), np.uint8)
    keys = {StyleJob(card, pixels).batch_key for card in (ink, wash) for pixels in (wide, high)}
    assert len(keys) == 4
    assert StyleJob(ink, wide, seed=1).batch_key == StyleJob(ink, wide + 1, seed=2).batch_key
    assert StyleJob(ink, wide).pixel_count == 128


def test_stylizer_when_weights_do_not_fit_then_names_the_file(
    make_zoo: Callable[[Path], Path], tmp_path: Path
) -> None:
    zoo = make_zoo(tmp_path)
    manifest = Manifest.read(zoo)
    (zoo / "wash.safetensors").write_bytes(b"not weights")
    with pytest.raises(ZooError, match=r"wash\.safetensors"):
        Stylizer(manifest, device="cpu")


def test_warm_up_paints_in_every_style(stylizer: Stylizer, manifest: Manifest) -> None:
    stylizer.warm_up(manifest.cards, 16)
    assert stylizer.styles_loaded == len(manifest)
    assert stylizer.device == "cpu"
    assert stylizer.device_memory_bytes() == 0
