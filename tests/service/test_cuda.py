"""What only a GPU shows. Skipped where there is none; the kernels run on a CPU in test_kernels."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from model_zoo.cards import SHIPPED_ZOO, Manifest
from model_zoo.checkpoints import load_generator
from model_zoo.generators import GENERATORS
from service.errors import DeviceOutOfMemoryError
from service.jobs import StyleJob
from service.runtimes.cuda_runtime import MIN_HALF_PSNR_DB
from service.runtimes.passes import to_photos, to_pixels
from service.runtimes.torch_runtime import TorchRuntime
from service.stylizer import Stylizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from PIL import Image

    from model_zoo.layers import Generator

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")

CUDA = torch.device("cuda")


@pytest.fixture(scope="module")
def photos(photograph: Callable[..., Image.Image]) -> np.ndarray:
    """Four photographs, uint8 (4, 192, 256, 3)."""
    names = ("coffee", "chelsea", "astronaut", "coffee")
    return np.stack([np.asarray(photograph(256, 192, name)) for name in names])


@pytest.fixture
def runtime() -> Any:
    from service.runtimes.cuda_runtime import CudaRuntime

    return CudaRuntime(CUDA)


def psnr_db(one: np.ndarray, other: np.ndarray) -> float:
    error = np.square(one.astype(float) - other).mean()
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def shipped(name: str) -> Generator:
    """The first shipped style of this architecture."""
    manifest = Manifest.read(SHIPPED_ZOO)
    card = next(card for card in manifest if card.generator == name)
    return load_generator(manifest.weights_path(card), card.generator, card.arguments)


@torch.inference_mode()
def paint_exactly(generator: Generator, pixels: np.ndarray) -> np.ndarray:
    seeds = list(range(len(pixels)))
    painted = generator.paint(to_photos(torch.from_numpy(pixels.copy())), seeds)
    return to_pixels(painted)[0].numpy()


@pytest.mark.parametrize(
    "shape", [(2, 96, 9, 11), (1, 16, 20, 33), (3, 128, 64, 64), (2, 24, 7, 9)]
)
@pytest.mark.parametrize("mode", ["reflect", "replicate", "zeros"])
def test_kernels_compute_what_torch_does(shape: tuple[int, ...], mode: Any) -> None:
    from service.runtimes.cuda_kernels import load_kernels

    kernels = load_kernels(CUDA)
    batch, channels, _, _ = shape
    x = torch.randn(shape, device=CUDA) * 0.5 + 5 * torch.randn(channels, 1, 1, device=CUDA)
    x, other = (
        t.bfloat16().contiguous(memory_format=torch.channels_last) for t in (x, torch.randn_like(x))
    )
    weight, bias = torch.randn(2, batch, channels, device=CUDA)
    affine = kernels.instance_affine(x, weight, bias, 1e-5)
    normalized = F.instance_norm(x.double()) * weight[..., None, None] + bias[..., None, None]
    whole = kernels.rewritten(x, affine)
    assert (whole - normalized).abs().max() < 0.005 * normalized.abs().max()
    answer = kernels.rewritten(x, affine, other=other, relu=True, padding=3, mode=mode)
    expected = F.pad(
        (normalized + other).relu(), (3,) * 4, mode="constant" if mode == "zeros" else mode
    )
    assert (answer - expected).abs().max() < 0.005 * expected.abs().max()
    assert torch.equal(kernels.instance_affine(x, weight, bias, 1e-5), affine)


@pytest.mark.parametrize("name", ["fast", "johnson_half", "conditional"])
def test_shipped_styles_run_fused_and_near(runtime: Any, name: str, photos: np.ndarray) -> None:
    painter = runtime.load(shipped(name), "any")
    assert painter.precision == "fused bf16"
    rows = getattr(painter.generator, "rows", None)
    mixes = None if rows is None else np.eye(len(rows), dtype=np.float32)[[1] * len(photos)]
    for _ in range(3):  # as it comes, recorded, replayed
        painted, finite = painter.paint(photos, [0] * len(photos), mixes)
        assert finite.all()
        assert psnr_db(painted, paint_exactly(shipped(name), photos)) > MIN_HALF_PSNR_DB
    contrast = float((photos[:1] / 255).std(ddof=1))
    mix = None if mixes is None else mixes[:1]
    whole = painter.measure(photos[:1], contrast, mix)
    tile, _ = painter.paint_tile(photos[:1], whole, 0, 0, mix)
    assert psnr_db(tile[0], painted[0]) > MIN_HALF_PSNR_DB


@pytest.mark.parametrize("name", ["fast", "johnson_half"])
def test_frames_carry_statistics_and_are_near(runtime: Any, name: str, photos: np.ndarray) -> None:
    painter = runtime.load(shipped(name), "any")
    exact = TorchRuntime(torch.device("cpu")).load(shipped(name), "any")
    before = exact_before = None
    for number, memory in ((0, 0.5), (1, 0.5), (1, 0.9)):
        frame = photos[number : number + 1]
        painted, finite, before = painter.paint_frame(frame, before, memory, 0)
        expected, _, exact_before = exact.paint_frame(frame, exact_before, memory, 0)
        assert finite.all()
        assert psnr_db(painted, expected) > MIN_HALF_PSNR_DB
    alone, _ = painter.paint(photos[1:2], [0])
    again, _, _ = painter.paint_frame(photos[1:2], before, 0.0, 0)
    assert psnr_db(again, alone) > MIN_HALF_PSNR_DB
    assert psnr_db(painted, alone) < 35  # by what the other photograph left


@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize("padding", ["reflect", "zero"])
def test_every_generator_is_near(runtime: Any, name: str, padding: str, photos: np.ndarray) -> None:
    torch.manual_seed(0)
    generator = GENERATORS[name](padding=padding).eval()
    exact = paint_exactly(generator, photos)
    painter = runtime.load(generator, "any")
    for _ in range(3):
        painted, _ = painter.paint(photos, list(range(len(photos))))
        assert psnr_db(painted, exact) > MIN_HALF_PSNR_DB - 2  # untrained ones amplify


@pytest.mark.parametrize("name", ["fast", "johnson_half"])
def test_batch_mates_hardly_change_an_answer(runtime: Any, name: str, photos: np.ndarray) -> None:
    painter = runtime.load(shipped(name), "any")
    together, _ = painter.paint(photos, [0] * len(photos))
    for number in range(len(photos)):
        alone, _ = painter.paint(photos[number : number + 1], [0])
        assert psnr_db(together[number], alone[0]) > 45
        mates = photos[[number, 0, 1, 2]]
        assert np.array_equal(painter.paint(mates, [0] * 4)[0][0], together[number])


def test_replays_keep_styles_and_answers_apart(runtime: Any, photos: np.ndarray) -> None:
    manifest = Manifest.read(SHIPPED_ZOO)
    cards = [card for card in manifest if card.generator == "fast"][:3]
    painters = [
        runtime.load(load_generator(manifest.weights_path(c), c.generator, c.arguments), "fast")
        for c in cards
    ]
    first = [painter.paint(photos[:2], [0, 0])[0] for painter in painters]
    for pixels in (photos[:2], photos[2:], photos[:2]):
        again = [painter.paint(pixels, [0, 0])[0] for painter in painters]
    assert len(runtime.replays) == len(painters)
    for one, other in zip(first, again, strict=True):
        assert np.array_equal(one, other)
    assert not np.array_equal(again[0], again[1])
    painters[0].release_memory()
    assert len(runtime.replays) == 0
    assert np.array_equal(painters[1].paint(photos[:2], [0, 0])[0], first[1])


def test_replays_are_bounded(runtime: Any, photos: np.ndarray) -> None:
    painter = runtime.load(shipped("fast"), "fast")
    for width in range(64, 64 + 8 * 40, 8):
        pixels = np.resize(photos[:1], (1, 64, width, 3))
        for _ in range(2):
            painter.paint(pixels, [0])
    assert len(runtime.replays) <= 32


def test_threads_paint_at_once(runtime: Any, photos: np.ndarray) -> None:
    painters = [runtime.load(shipped(name), "any") for name in ("fast", "johnson_half")]
    expected = [[p.paint(photos[n : n + 1], [0])[0] for n in range(4)] for p in painters]

    def work(number: int) -> bool:
        painter, photo = number % 2, number // 2 % 4
        painted, _ = painters[painter].paint(photos[photo : photo + 1], [0])
        return np.array_equal(painted, expected[painter][photo])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(400)))


@pytest.mark.parametrize("name", ["fast", "johnson_half"])
def test_a_pass_takes_no_more_memory_than_it_says(runtime: Any, name: str) -> None:
    painter = runtime.load(shipped(name), "any")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 1024, 1024, 3), np.uint8)
    for paint in (
        lambda: painter.paint(pixels, [0, 0]),
        lambda: painter.paint_frame(pixels[:1], None, 0.5, 0),
    ):
        torch.cuda.empty_cache()
        held = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        pixel_count = paint()[0].size // 3
        used = torch.cuda.max_memory_allocated() - held
        assert 0.05 * pixel_count * painter.bytes_to_paint < used
        assert used <= pixel_count * painter.bytes_to_paint


@pytest.fixture
def little_memory() -> Iterator[None]:
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.02)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.usefixtures("little_memory")
def test_out_of_memory_says_so_and_the_next_picture_is_painted() -> None:
    manifest = Manifest.read(SHIPPED_ZOO)
    one = Manifest(manifest.zoo, manifest.cards[:1])
    stylizer = Stylizer(one, device="cuda", memory_budget_bytes=2**40)
    job = StyleJob(one.cards[0], np.zeros((256, 256, 3), np.uint8))
    (before,) = stylizer.run([job])
    with pytest.raises(DeviceOutOfMemoryError, match="does not fit"):
        stylizer.run([StyleJob(one.cards[0], np.zeros((12000, 12000, 3), np.uint8))])
    for _ in range(3):
        (after,) = stylizer.run([job])
        assert np.array_equal(before, after)


def test_other_threads_may_allocate_while_a_pass_is_recorded(
    runtime: Any, photos: np.ndarray
) -> None:
    painter = runtime.load(shipped("fast"), "fast")
    stop = threading.Event()

    def allocate() -> None:
        while not stop.is_set():
            torch.empty(2**20, pin_memory=True).to(CUDA, non_blocking=True).sum().item()

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(allocate)
        for height in range(64, 192, 16):
            for _ in range(2):
                painter.paint(photos[:1, :height], [0])
        stop.set()
        other.result()
    assert len(runtime.replays) == 8
