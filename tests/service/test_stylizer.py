"""The stylizer with real, if untrained, generators."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from model_zoo.cards import SHIPPED_ZOO, Manifest, ZooError
from model_zoo.checkpoints import load_generator
from service.errors import DeviceLostError, DeviceOutOfMemoryError, StylizationError
from service.jobs import FrameJob, Job, MeasureJob, StyleJob, TileJob
from service.stylizer import DeviceUnavailableError, Stylizer, is_lost
from service.tiled import paint_in_tiles

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from PIL import Image

    from model_zoo.cards import StyleCard


@pytest.fixture(scope="module")
def manifest(tiny_zoo: Path) -> Manifest:
    return Manifest.read(tiny_zoo)


@pytest.fixture(scope="module", params=["torch", "openvino"])
def stylizer(manifest: Manifest, request: pytest.FixtureRequest) -> Stylizer:
    return Stylizer(manifest, device="cpu", runtime=request.param, threads=2)


@pytest.fixture
def torch_stylizer(manifest: Manifest) -> Stylizer:
    """One whose painters a test may spoil."""
    return Stylizer(manifest, device="cpu", runtime="torch", threads=2)


@pytest.fixture(scope="module")
def jobs(manifest: Manifest, photograph: Callable[..., Image.Image]) -> list[StyleJob]:
    """Three photographs of one size in one style."""
    return [
        StyleJob(manifest.cards[0], np.asarray(photograph(80, 64, name)))
        for name in ("coffee", "astronaut", "chelsea")
    ]


def test_run_gives_uint8_of_the_same_size(stylizer: Stylizer, manifest: Manifest) -> None:
    for width, height in ((64, 48), (33, 17), (1, 1)):
        pixels = np.zeros((height, width, 3), np.uint8)
        (painted,) = stylizer.run([StyleJob(manifest.cards[0], pixels)])
        assert painted.shape == pixels.shape
        assert painted.dtype == np.uint8


def test_run_when_batched_then_equals_each_alone(stylizer: Stylizer, jobs: list[StyleJob]) -> None:
    """Instance normalization takes its statistics from each picture alone."""
    together = np.asarray(stylizer.run(jobs), int)
    alone = np.asarray([stylizer.run([job])[0] for job in jobs], int)
    assert np.abs(together - alone).max() <= 1
    assert not np.array_equal(alone[0], alone[1])


def test_run_of_many_at_once_gives_the_same_pixels_as_one_after_the_other(
    manifest: Manifest, photograph: Callable[..., Image.Image]
) -> None:
    """To the last bit: what others ask for changes nobody's picture."""
    stylizer = Stylizer(manifest, device="cpu", runtime="openvino", threads=2)
    assert stylizer.passes_at_once == 3
    sizes = [(96, 64), (65, 130), (200, 40)]
    jobs = [StyleJob(card, np.asarray(photograph(*size))) for card in manifest for size in sizes]
    alone = [stylizer.run([job])[0] for job in jobs]
    with ThreadPoolExecutor(stylizer.passes_at_once) as pool:
        beside = list(pool.map(lambda job: stylizer.run([job])[0], jobs * 4))
    for expected, painted in zip(alone * 4, beside, strict=True):
        assert np.array_equal(painted, expected)


def test_run_of_many_at_once_keeps_a_budget_that_is_small(
    manifest: Manifest, photograph: Callable[..., Image.Image]
) -> None:
    stylizer = Stylizer(
        manifest, device="cpu", runtime="openvino", threads=2, memory_budget_bytes=5 * 2**20
    )
    jobs = [
        StyleJob(card, np.asarray(photograph(side, side)))
        for side in (64, 96, 128)
        for card in manifest
    ]
    with ThreadPoolExecutor(stylizer.passes_at_once) as pool:
        answers = list(pool.map(lambda job: stylizer.run([job])[0], jobs * 4))
    assert all(isinstance(answer, np.ndarray) for answer in answers)


def test_first_frames_and_tiles_may_come_at_once(
    manifest: Manifest, photograph: Callable[..., Image.Image]
) -> None:
    stylizer = Stylizer(manifest, device="cpu", runtime="openvino", threads=2)
    card, pixels = manifest.cards[0], np.asarray(photograph(96, 64))
    (whole,) = stylizer.run([MeasureJob(card, pixels[None], float(pixels.std()) / 255)])
    jobs = [FrameJob(card, pixels), TileJob(card, pixels, whole, 0, 0)] * 4
    with ThreadPoolExecutor(stylizer.passes_at_once) as pool:
        answers = [answer for (answer,) in pool.map(lambda job: stylizer.run([job]), jobs)]
    frames, tiles = [answer.pixels for answer in answers[::2]], answers[1::2]
    for same in (frames, tiles):
        assert all(np.array_equal(painted, same[0]) for painted in same)
    assert np.abs(frames[0].astype(int) - tiles[0]).max() <= 1


@pytest.mark.parametrize(("threads", "at_once"), [(1, 1), (2, 3), (4, 3), (8, 1)])
def test_passes_run_at_once_where_that_is_faster(
    manifest: Manifest, threads: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)  # of this whole process
    stylizer = Stylizer(manifest, device="cpu", runtime="openvino", threads=threads)
    assert stylizer.passes_at_once == at_once
    assert stylizer.crowd == at_once + 1  # fewer are sooner done one after the other
    assert Stylizer(manifest, device="cpu", runtime="torch", threads=threads).passes_at_once == 1


def test_jobs_overlap_where_a_pass_is_short(manifest: Manifest) -> None:
    card = manifest.cards[0]  # johnson_half: 78,000 operations a pixel
    stylizer = Stylizer(manifest, device="cpu", runtime="openvino", threads=2)
    small, large = (np.zeros((side, side, 3), np.uint8) for side in (400, 480))
    assert stylizer.overlaps(StyleJob(card, small))
    assert not stylizer.overlaps(StyleJob(card, large))
    assert not stylizer.overlaps(MeasureJob(card, small[None], 0.2))  # takes all that there is
    in_torch = Stylizer(manifest, device="cpu", runtime="torch", threads=2)
    assert not in_torch.overlaps(StyleJob(card, small))


def test_jobs_overlap_where_as_many_as_run_at_once_fit_the_budget(manifest: Manifest) -> None:
    card = manifest.cards[0]
    stylizer = Stylizer(
        manifest, device="cpu", runtime="openvino", threads=2, memory_budget_bytes=2**25
    )
    side_px = math.isqrt(stylizer.most_px(card) // stylizer.passes_at_once)
    assert side_px < 400
    fits, exceeds = (np.zeros((side, side, 3), np.uint8) for side in (side_px, side_px + 1))
    assert stylizer.overlaps(StyleJob(card, fits))
    assert not stylizer.overlaps(StyleJob(card, exceeds))


def test_run_when_repeated_then_gives_the_same_pixels(
    stylizer: Stylizer, jobs: list[StyleJob]
) -> None:
    first, second = stylizer.run(jobs), stylizer.run(jobs)
    assert np.array_equal(np.asarray(first), np.asarray(second))


def test_run_equals_the_generator_called_directly(
    stylizer: Stylizer, manifest: Manifest, photograph: Callable[..., Image.Image]
) -> None:
    card = manifest.cards[1]
    generator = load_generator(manifest.weights_path(card), card.generator, card.arguments)
    for size in ((80, 64), (77, 51), (9, 200)):
        pixels = np.asarray(photograph(*size))
        with torch.inference_mode():
            photo = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 255
            expected = (generator(photo).clamp(0, 1) * 255).round()[0].permute(1, 2, 0).numpy()
        (painted,) = stylizer.run([StyleJob(card, pixels)])
        assert np.abs(painted.astype(int) - expected).max() <= 1


def test_run_gives_each_picture_its_own_seed(
    torch_stylizer: Stylizer, jobs: list[StyleJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[object] = []

    def remember_seeds(
        pixels: np.ndarray, seeds: object, mixes: object
    ) -> tuple[np.ndarray, np.ndarray]:
        assert mixes is None  # no network of many styles
        given.append(seeds)
        return pixels, np.ones(len(pixels), bool)

    monkeypatch.setattr(torch_stylizer._painters[jobs[0].card.network], "paint", remember_seeds)
    seeded = [StyleJob(job.card, job.pixels, seed) for seed, job in enumerate(jobs, 5)]
    painted = torch_stylizer.run(seeded)
    assert given == [[5, 6, 7]]
    assert np.array_equal(np.asarray(painted), np.asarray([job.pixels for job in jobs]))


def test_run_when_a_style_breaks_then_that_picture_is_an_error(
    torch_stylizer: Stylizer, jobs: list[StyleJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch_stylizer._painters[jobs[0].card.network].generator
    paint = generator.paint

    def spoil_the_second(photos: torch.Tensor, seeds: Any) -> torch.Tensor:
        painted = paint(photos, seeds)
        painted[1, 0, 0, 0] = torch.nan
        return painted

    monkeypatch.setattr(generator, "paint", spoil_the_second)
    first, second, third = torch_stylizer.run(jobs)
    assert isinstance(second, StylizationError)
    assert isinstance(first, np.ndarray)
    assert isinstance(third, np.ndarray)


@pytest.mark.parametrize(
    "fault",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("Exception from src/plugins/intel_cpu: std::bad_alloc"),
        RuntimeError("CUDA error: out of memory"),
        MemoryError(),
    ],
)
def test_run_when_memory_runs_out_then_says_so_and_gives_back_what_is_held(
    fault: Exception,
    torch_stylizer: Stylizer,
    manifest: Manifest,
    jobs: list[StyleJob],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_inputs: object) -> object:
        raise fault

    released = []
    ink, wash = (torch_stylizer._painters[card.network] for card in manifest)
    monkeypatch.setattr(wash, "release_memory", lambda: released.append("wash"))
    torch_stylizer.run([StyleJob(manifest.cards[1], jobs[0].pixels)])
    monkeypatch.setattr(ink, "paint", fail)
    with pytest.raises(DeviceOutOfMemoryError, match=r"0\.0 MP .* smaller max_side"):
        torch_stylizer.run(jobs)
    assert released[-1] == "wash"


def test_device_is_lost_where_even_a_sum_fails() -> None:
    assert not is_lost(torch.device("cpu"))
    assert is_lost(torch.device("meta"))  # which computes nothing


def test_run_when_the_device_is_lost_then_says_so_and_keeps_the_cause(
    torch_stylizer: Stylizer, jobs: list[StyleJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_inputs: object) -> object:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(torch_stylizer._painters[jobs[0].card.network], "paint", fail)
    with pytest.raises(RuntimeError, match="device-side assert"):
        torch_stylizer.run(jobs)  # where a sum still succeeds, only this pass failed
    monkeypatch.setattr(torch_stylizer._runtime, "device", torch.device("meta"))
    with pytest.raises(DeviceLostError, match="broke down") as caught:
        torch_stylizer.run(jobs)
    assert "device-side assert" in str(caught.value.__cause__)


def test_run_when_it_fails_otherwise_then_the_fault_is_not_called_memory(
    torch_stylizer: Stylizer, jobs: list[StyleJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_inputs: object) -> object:
        raise RuntimeError("sizes do not match")

    monkeypatch.setattr(torch_stylizer._painters[jobs[0].card.network], "paint", fail)
    with pytest.raises(RuntimeError, match="sizes do not match"):
        torch_stylizer.run(jobs)


def test_most_px_follows_the_budget(manifest: Manifest) -> None:
    stylizer = Stylizer(manifest, device="cpu", threads=1, memory_budget_bytes=100 * 2**20)
    card = manifest.cards[0]
    most_px = 100 * 2**20 / stylizer._painters[card.network].bytes_to_paint
    side = int(most_px**0.5)
    assert stylizer.most_px(card) == int(most_px)
    layout = stylizer.layout(card)
    assert layout is not None
    assert layout.side_px <= side + layout.stride


def test_layout_is_none_where_a_tile_cannot_know_what_it_should(
    manifest: Manifest, torch_stylizer: Stylizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ink, wash = (torch_stylizer._painters[card.network].generator for card in manifest)
    monkeypatch.setattr(ink, "noise_channels", 3)
    monkeypatch.setattr(wash.to_rgb, "padding_mode", "circular")
    assert [torch_stylizer.layout(card) for card in manifest] == [None, None]


def test_run_when_a_batch_exceeds_the_budget_then_asks_to_split_it(
    manifest: Manifest, jobs: list[StyleJob]
) -> None:
    stylizer = Stylizer(manifest, device="cpu", threads=1, memory_budget_bytes=2 * 2**20)
    assert jobs[0].pixel_count <= stylizer.most_px(manifest.cards[0]) < 3 * jobs[0].pixel_count
    with pytest.raises(DeviceOutOfMemoryError, match="split"):
        stylizer.run(jobs)
    assert len(stylizer.run(jobs[:1])) == 1


@pytest.fixture
def paint_tiled() -> Callable[..., np.ndarray]:
    """Paint in tiles of some side, and see what jobs that takes."""

    def paint(
        stylizer: Stylizer,
        job: StyleJob,
        side_px: int,
        seen: list[Job] | None = None,
        sample_px: int = 10**6,
    ) -> np.ndarray:
        async def submit(part: Job) -> Any:
            if seen is not None:
                seen.append(part)
            return stylizer.run([part])[0]

        async def at_once(function: Callable[..., Any], *arguments: Any) -> Any:
            return function(*arguments)

        layout = stylizer.layout(job.card)
        assert layout is not None
        layout = dataclasses.replace(layout, side_px=side_px, sample_px=sample_px)
        return asyncio.run(paint_in_tiles(job, layout, submit=submit, on_codec_pool=at_once))

    return paint


@pytest.fixture(scope="module", params=["torch", "openvino"])
def shipped(request: pytest.FixtureRequest) -> tuple[Stylizer, StyleCard]:
    """A style that was trained: what does not matter to such is large in random weights."""
    manifest = Manifest.read(SHIPPED_ZOO)
    one = Manifest(manifest.zoo, manifest.cards[:1])
    return Stylizer(one, device="cpu", runtime=request.param, threads=2), one.cards[0]


def test_painting_in_tiles_is_near_painting_whole(
    shipped: tuple[Stylizer, StyleCard],
    photograph: Callable[..., Image.Image],
    paint_tiled: Callable[..., np.ndarray],
) -> None:
    """The statistics are those of the whole picture here, so that only rounding differs."""
    stylizer, card = shipped
    job = StyleJob(card, np.asarray(photograph(963, 709)))
    seen: list[Job] = []
    tiled = paint_tiled(stylizer, job, 512, seen).astype(float)
    assert isinstance(seen[0], MeasureJob)
    assert all(isinstance(part, TileJob) for part in seen[1:])
    assert len(seen) == 1 + 4 * 3
    whole = stylizer.run([job])[0].astype(float)
    assert np.abs(tiled - whole).max() <= 1


def test_tiles_do_not_show(
    shipped: tuple[Stylizer, StyleCard],
    photograph: Callable[..., Image.Image],
    paint_tiled: Callable[..., np.ndarray],
) -> None:
    """Cut elsewhere, the painting is the same."""
    stylizer, card = shipped
    job = StyleJob(card, np.asarray(photograph(963, 709)))
    small, large = (paint_tiled(stylizer, job, side_px).astype(int) for side_px in (400, 600))
    assert np.abs(small - large).max() <= 1


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


def test_stylizer_when_the_runtime_is_not_there_then_says_what_to_do(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(DeviceUnavailableError, match="pip install"):
        Stylizer(manifest, device="cpu", runtime="openvino")


def test_warm_up_paints_in_every_style(stylizer: Stylizer, manifest: Manifest) -> None:
    stylizer.warm_up(manifest.cards, 16)
    assert stylizer.device == "cpu"
    assert stylizer.runtime in {"torch", "openvino"}
    assert stylizer.device_memory_bytes() == 0


def test_run_of_frames_carries_statistics_from_one_to_the_next(
    stylizer: Stylizer, manifest: Manifest, photograph: Callable[..., Image.Image]
) -> None:
    card = manifest.cards[0]
    first, second = (
        np.asarray(photograph(83, 61, name))  # of no stride
        for name in ("coffee", "astronaut")
    )
    (painted,) = stylizer.run([FrameJob(card, first)])
    (whole,) = stylizer.run([StyleJob(card, first)])
    assert np.abs(painted.pixels.astype(int) - whole).max() <= 1

    (kept,) = stylizer.run([FrameJob(card, second, painted.statistics, memory=0.9)])
    (fresh,) = stylizer.run([FrameJob(card, second, painted.statistics, memory=0.0)])
    assert kept.pixels.shape == second.shape
    assert np.abs(kept.pixels.astype(int) - fresh.pixels).mean() > 1
    between = np.abs(kept.statistics - painted.statistics).sum()
    assert between < np.abs(fresh.statistics - painted.statistics).sum()


def test_run_of_a_frame_that_is_out_of_range_gives_the_error(
    torch_stylizer: Stylizer, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = manifest.cards[0]
    generator = torch_stylizer._painters[card.network].generator
    paint = generator.paint
    monkeypatch.setattr(generator, "paint", lambda *photos: paint(*photos) * torch.nan)
    (answer,) = torch_stylizer.run([FrameJob(card, np.zeros((32, 32, 3), np.uint8))])
    assert isinstance(answer, StylizationError)
