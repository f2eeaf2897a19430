"""The CUDA kernels and what is fused with them, without a GPU: their source runs as C++."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from model_zoo.cards import SHIPPED_ZOO, Manifest
from model_zoo.checkpoints import load_generator
from model_zoo.frames import as_next_frame
from model_zoo.generators import GENERATORS
from model_zoo.generators.conditional import mixed, row_mix
from model_zoo.layers import Generator, InstanceNorm, convolution
from model_zoo.tiling import as_part_of, measure_whole, statistics_size
from service.runtimes import cuda_kernels, fusing, half_convolutions
from service.runtimes.cuda_kernels import VECTOR, Kernels
from service.runtimes.cuda_runtime import MIN_HALF_PSNR_DB, CudaPainter
from service.runtimes.memory import bytes_to_paint
from service.runtimes.passes import to_photos, to_pixels
from service.runtimes.torch_runtime import TorchPainter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from PIL import Image
    from torch import Tensor


EMULATION = Path(__file__).parent / "emulation"
COMPILER = shutil.which("g++")

pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs g++, to run the kernels as C++")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    assert COMPILER is not None
    folder = tmp_path_factory.mktemp("kernels")
    source, built = folder / "kernels.cpp", folder / "kernels.so"
    kernels = cuda_kernels._SOURCE.replace("extern __shared__ float shared[];", "")
    parts = (EMULATION / "cuda_on_cpu.hpp").read_text(), kernels
    source.write_text("\n".join([*parts, (EMULATION / "launchers.hpp").read_text()]))
    options = ["-std=c++20", "-O2", "-shared", "-fPIC", "-pthread"]
    subprocess.run([COMPILER, *options, "-o", str(built), str(source)], check=True, timeout=120)
    return ctypes.CDLL(str(built))


@pytest.fixture
def kernels(library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> Kernels:
    def launch(
        kernel: str,
        grid: tuple[int, int, int],
        threads: int,
        arguments: Sequence[Any],
        *,
        shared_bytes: int = 0,
    ) -> None:
        assert shared_bytes <= 48 * 1024  # more needs a setting of its own
        assert threads <= 1024
        kinds = {int: ctypes.c_int, float: ctypes.c_float}
        values = [
            ctypes.c_void_p(a.data_ptr()) if isinstance(a, torch.Tensor) else kinds[type(a)](a)
            for a in arguments
        ]
        getattr(library, f"launch_{kernel}")((ctypes.c_uint * 3)(*grid), threads, *values)

    def suits(x: Tensor) -> bool:
        channels_last = x.is_contiguous(memory_format=torch.channels_last)
        return x.dtype is torch.bfloat16 and x.shape[1] % VECTOR == 0 and channels_last

    monkeypatch.setattr(cuda_kernels, "_launch", launch)
    for module in (fusing, half_convolutions):
        monkeypatch.setattr(module, "suits", suits)
    return Kernels(*Kernels.__slots__)


def half(x: Tensor) -> Tensor:
    return x.bfloat16().contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", [(2, 96, 9, 11), (1, 16, 20, 33), (3, 128, 8, 8), (2, 24, 5, 40)])
@pytest.mark.parametrize("rows", ["one", "each", "all"])
def test_instance_affine_normalizes(kernels: Kernels, shape: tuple[int, ...], rows: str) -> None:
    batch, channels, _, _ = shape
    x = half(torch.randn(shape) * 0.5 + 5 * torch.randn(channels, 1, 1))  # far from 0
    size = {"one": (channels,), "each": (batch, channels), "all": (1, channels)}[rows]
    weight, bias = torch.randn(2, *size)
    affine = kernels.instance_affine(x, weight, bias, 1e-5)
    expected = F.instance_norm(x.double()) * weight.view(-1, channels, 1, 1)
    expected += bias.view(-1, channels, 1, 1)
    gain, shift = affine[..., None, None].unbind(1)
    assert (x * gain.double() + shift - expected).abs().max() < 1e-3 * expected.abs().max()


@pytest.mark.parametrize("mode", ["reflect", "replicate", "zeros"])
@pytest.mark.parametrize("batch_of_affine", [1, 2])
def test_rewritten_does_all_at_once(kernels: Kernels, mode: Any, batch_of_affine: int) -> None:
    x, other = half(torch.randn(2, 24, 7, 9)), half(torch.randn(2, 24, 7, 9))
    affine = torch.randn(batch_of_affine, 2, 24)
    gain, shift = affine[..., None, None].unbind(1)
    torch_mode = "constant" if mode == "zeros" else mode
    answer = kernels.rewritten(x, affine, other=other, relu=True, padding=3, mode=mode)
    expected = F.pad((x * gain + shift + other).relu(), (3,) * 4, mode=torch_mode)
    assert (answer - expected).abs().max() <= expected.abs().max() / 256
    padded = kernels.rewritten(x, padding=2, mode=mode)
    assert torch.equal(padded.float(), F.pad(x.float(), (2,) * 4, mode=torch_mode))
    assert padded.is_contiguous(memory_format=torch.channels_last)


def in_phases(x: Tensor, phases: int) -> Tensor:
    """(N, C, H, W) -> (N, f f C, H / f, W / f), written out."""
    rows = [x[..., row::phases, column::phases] for row, column in np.ndindex(phases, phases)]
    return half(torch.cat(rows, 1))


@pytest.mark.parametrize(("phases", "answer_phases"), [(2, 1), (1, 4), (2, 3), (4, 4)])
def test_maps_may_have_their_pixels_in_phases(
    kernels: Kernels, phases: int, answer_phases: int
) -> None:
    x = half(torch.randn(2, 16, 8, 20) + 3 * torch.randn(16, 1, 1))
    weight, bias = torch.randn(2, 16)
    affine = kernels.instance_affine(in_phases(x, phases), weight, bias, 1e-5, phases=phases)
    # The chunks are other ones, and the first pixel is the same.
    assert torch.allclose(affine, kernels.instance_affine(x, weight, bias, 1e-5), atol=1e-4)
    options: Any = {"relu": True, "padding": 2, "mode": "reflect"}
    answer = kernels.rewritten(
        in_phases(x, phases), affine, phases=phases, answer_phases=answer_phases, **options
    )
    assert torch.equal(answer, in_phases(kernels.rewritten(x, affine, **options), answer_phases))
    assert answer.is_contiguous(memory_format=torch.channels_last)


def test_rewritten_keeps_what_is_not_a_number(kernels: Kernels) -> None:
    x = half(torch.zeros(1, 8, 2, 2))
    x[0, 3, 0, 1], x[0, 4, 1, 1] = torch.nan, torch.inf
    affine = torch.stack((torch.ones(8), torch.zeros(8)))[None]
    answer = kernels.rewritten(x, affine, relu=True)
    assert answer.isnan().sum() == 1
    assert answer[0, 3, 0, 1].isnan()
    assert answer[0, 4, 1, 1] == torch.inf


@pytest.mark.parametrize("padding", ["reflect", "replicate", "zero"])
@pytest.mark.parametrize("name", ["fast", "johnson_half", "conditional"])
def test_fused_generator_paints_nearly_the_same(
    kernels: Kernels, name: str, padding: str, photograph: Callable[..., Image.Image]
) -> None:
    generator = with_trained_weights(name, padding)
    fused = fusing.fuse(generator, kernels)
    kinds = [type(module).__name__ for module in fused.modules()]
    assert "Conv2d" not in kinds
    assert "ReLU" not in kinds
    assert ("PhasedConvolution" in kinds) == ("HalfPolyphase" in kinds) == (name == "johnson_half")
    pictures = [np.asarray(photograph(96, 64, n)) for n in ("coffee", "chelsea")]
    photos = to_photos(torch.from_numpy(np.stack(pictures)))
    for other_size in (photos, photos[..., :32, :32]):
        exact, near = (paint(one, other_size) for one in (generator, fused))
        error = (near.double() - exact).square().mean().item()
        assert 0 < error <= 255**2 / 10 ** (MIN_HALF_PSNR_DB / 10)
    contrast = photos[:1].std().view(1)
    with torch.inference_mode(), mixed(fused, row_mix(fused, 1)):
        whole = measure_whole(fused, photos[:1], contrast)
        zero = torch.tensor(0)
        with as_part_of(fused, whole, zero, zero):
            tile = to_pixels(fused.paint(photos[:1], None))[0]
        nothing = torch.zeros(statistics_size(fused))
        with as_next_frame(fused, nothing, torch.zeros(1)):
            frame = to_pixels(fused.paint(photos[:1], None))[0]
        painted = to_pixels(fused.paint(photos[:1], None))[0]
    for other_way in (tile, frame):
        error = (other_way.double() - painted).square().mean().item()
        assert 10 * np.log10(255**2 / (error + 1e-9)) > MIN_HALF_PSNR_DB


def test_sizes_that_leave_a_rest_are_fused_without_phases(kernels: Kernels) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(convolution(3, 16, 9), InstanceNorm(16), nn.ReLU())
    (fused,) = fusing.fuse(FakeGenerator(plain), kernels).children()
    with torch.inference_mode():
        for height, width in ((20, 24), (21, 24), (20, 25)):
            photo = torch.rand(1, 3, height, width) * 32
            error = (fused(photo) - plain(photo)).abs().max()
            assert 0 < error < 0.05


def test_what_is_behind_a_norm_is_padded_once(kernels: Kernels) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(InstanceNorm(3), convolution(3, 16, 9), InstanceNorm(16))
    (fused,) = fusing.fuse(FakeGenerator(plain), kernels).children()
    photo = torch.rand(1, 3, 20, 24)
    with torch.inference_mode():
        assert (fused(photo) - plain(photo)).abs().max() < 0.05


class FakeGenerator(Generator):
    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers


class PainterOnCpu(CudaPainter):
    """All of it but the copies to a GPU and back."""

    paint = TorchPainter.paint


def painter_of(generator: Generator, kernels: Kernels | None) -> PainterOnCpu:
    return PainterOnCpu(generator, SimpleNamespace(device=torch.device("cpu"), kernels=kernels))  # type: ignore[arg-type]


def test_painter_computes_in_bf16_where_that_is_near(kernels: Kernels) -> None:
    generator = with_trained_weights("fast", "reflect")
    in_fp32 = bytes_to_paint(generator)
    painter = painter_of(generator, kernels)
    assert painter.precision == "fused bf16"
    assert painter.bytes_to_paint < in_fp32 / 2


def test_half_precision_is_not_taken_where_it_would_not_be_near(
    kernels: Kernels, photograph: Callable[..., Image.Image]
) -> None:
    """An untrained texture_net normalizes maps of a few pixels, and amplifies what bf16 loses."""
    generator = GENERATORS["texture_net"]().eval()
    pixels = np.asarray(photograph(96, 64))[None]
    with torch.inference_mode():
        exact = to_pixels(generator.paint(to_photos(torch.from_numpy(pixels.copy())), [0]))[0]
    painter = painter_of(generator, kernels)
    assert painter.precision == "fp32"
    assert np.array_equal(painter.paint(pixels, [0])[0], exact)


def test_without_kernels_or_with_an_unknown_padding_all_is_in_fp32(kernels: Kernels) -> None:
    generator = with_trained_weights("fast", "reflect")
    painter = painter_of(generator, None)
    assert painter.precision == "fp32"
    assert painter.bytes_to_paint == bytes_to_paint(generator)
    circular = GENERATORS["johnson_half"](padding="circular").eval()
    assert painter_of(circular, kernels).precision == "fp32"


def with_trained_weights(name: str, padding: str) -> Generator:
    """Untrained weights magnify what bf16 loses."""
    manifest = Manifest.read(SHIPPED_ZOO)
    card = next(card for card in manifest if card.generator == name)
    trained = load_generator(manifest.weights_path(card), card.generator, card.arguments)
    generator = GENERATORS[name](**(dict(card.arguments) | {"padding": padding})).eval()
    generator.load_state_dict(trained.state_dict())
    return generator.requires_grad_(requires_grad=False)


@torch.inference_mode()
def paint(generator: Generator, photos: Tensor) -> Tensor:
    with mixed(generator, row_mix(generator, 1)):
        return to_pixels(generator.paint(photos, None))[0]


def test_a_padding_that_no_kernel_knows_is_refused(kernels: Kernels) -> None:
    with pytest.raises(ValueError, match="padding circular"):
        fusing.fuse(GENERATORS["johnson_half"](padding="circular").eval(), kernels)


def test_kernels_that_cannot_be_had_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cuda.bindings", None)
    with pytest.raises(cuda_kernels.KernelsUnavailableError, match="NVRTC cannot be used"):
        cuda_kernels.compile_kernels("sm_90")
