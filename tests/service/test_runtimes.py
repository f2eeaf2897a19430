"""Every runtime against eager torch in fp32, for every generator."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pytest
import torch

from model_zoo.generators import GENERATORS
from service.runtimes import Painter, RuntimeName, RuntimeUnavailableError, create_runtime
from service.runtimes.memory import bytes_to_measure, bytes_to_paint
from service.runtimes.passes import to_photos, to_pixels

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL import Image

CPU = torch.device("cpu")
RUNTIMES = [name for name in get_args(RuntimeName) if name != "auto"]
ARGUMENTS: dict[str, dict[str, Any]] = {
    "johnson": {"padding": "zero", "grain": 0.2},
    "johnson_half": {"normalize_decoder": False, "padding": "replicate"},
}


def load(runtime: str, name: str, **arguments: Any) -> Painter:
    torch.manual_seed(0)
    generator = GENERATORS[name](**arguments).eval()
    return create_runtime(runtime, CPU, 1).load(generator, "any")  # type: ignore[arg-type]


@torch.inference_mode()
def paint_eagerly(name: str, pixels: np.ndarray, **arguments: Any) -> np.ndarray:
    torch.manual_seed(0)
    generator = GENERATORS[name](**arguments).eval()
    photos = to_photos(torch.from_numpy(pixels))
    return to_pixels(generator.paint(photos, list(range(len(pixels)))))[0].numpy()


@pytest.fixture(scope="module")
def photos(photograph: Callable[..., Image.Image]) -> np.ndarray:
    """Two photographs, uint8 (2, 64, 96, 3), read-only as decoded ones are."""
    return np.stack([np.asarray(photograph(96, 64, name)) for name in ("coffee", "chelsea")])


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", GENERATORS)
def test_paint_equals_eager_torch_at_every_size(
    runtime: str, name: str, photos: np.ndarray
) -> None:
    arguments = ARGUMENTS.get(name, {})
    painter = load(runtime, name, **arguments)
    for pixels in (photos, photos[:1, :, :64], photos[:1]):
        painted, finite = painter.paint(pixels, [0, 1][: len(pixels)])
        expected = paint_eagerly(name, pixels, **arguments)
        assert painted.dtype == np.uint8
        assert finite.tolist() == [True] * len(pixels)
        assert np.abs(painted.astype(int) - expected).max() <= 1
        assert painted.std() > 1


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", GENERATORS)
def test_paint_tile_of_a_whole_picture_equals_painting_it(
    runtime: str, name: str, photos: np.ndarray
) -> None:
    painter = load(runtime, name)
    contrast = float((photos[:1] / 255).std(ddof=1))
    whole = painter.measure(photos[:1], contrast)
    tile, _ = painter.paint_tile(photos[:1], whole, 0, 0)
    painted, _ = painter.paint(photos[:1], [0])
    assert np.abs(tile.astype(int) - painted).max() <= 1
    # Where a tile lies is seen by what adds a pattern of its own.
    moved, _ = painter.paint_tile(photos[:1], whole, 64, 32)
    if any(type(module).__name__ == "Grain" for module in painter.generator.modules()):
        assert not np.array_equal(moved, tile)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_paint_when_numbers_are_out_of_range_then_says_which(
    runtime: str, photos: np.ndarray
) -> None:
    torch.manual_seed(0)
    generator = GENERATORS["fast"](normalization="batch", grain=0.0).eval()
    with torch.no_grad():  # beyond fp32, unless a photograph is black: that stays 0 throughout
        for name, parameter in generator.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
        generator.to_rgb.weight.fill_(3e38)  # type: ignore[union-attr,operator]
    painter = create_runtime(runtime, CPU, 1).load(generator, "any")  # type: ignore[arg-type]
    _, finite = painter.paint(np.stack([photos[0], np.zeros_like(photos[0])]), [0, 0])
    assert finite.tolist() == [False, True]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_paint_tile_needs_no_statistics_for_batch_normalization(
    runtime: str, photos: np.ndarray
) -> None:
    painter = load(runtime, "johnson_half", normalization="batch")
    whole = painter.measure(photos[:1], 0.2)
    tile, _ = painter.paint_tile(photos[:1], whole, 0, 0)
    painted, _ = painter.paint(photos[:1], [0])
    assert np.abs(tile.astype(int) - painted).max() <= 1


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_answers_are_the_callers_own(runtime: str, photos: np.ndarray) -> None:
    painter = load(runtime, "fast")
    first, _ = painter.paint(photos[:1], [0])
    kept = first.copy()
    painter.paint(photos[1:], [0])
    painter.release_memory()
    painter.paint(photos[1:], [0])
    assert np.array_equal(first, kept)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_seeds_reach_generators_with_noise(runtime: str, photos: np.ndarray) -> None:
    painter = load(runtime, "texture_net", noise_channels=3)
    (one,), _ = painter.paint(photos[:1], [1])
    (again,), _ = painter.paint(photos[:1], [1])
    (other,), _ = painter.paint(photos[:1], [2])
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_auto_takes_openvino_on_a_cpu() -> None:
    assert create_runtime("auto", CPU, 1).name == "openvino"
    assert create_runtime("torch", CPU, 1).name == "torch"


def test_openvino_for_another_device_says_what_to_take() -> None:
    with pytest.raises(RuntimeUnavailableError, match="take torch"):
        create_runtime("openvino", torch.device("meta"), 1)


def test_openvino_where_it_is_not_installed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert create_runtime("auto", CPU, 1).name == "torch"
    with pytest.raises(RuntimeUnavailableError, match=r"pip install 'atelier\[cpu\]'"):
        create_runtime("openvino", CPU, 1)


def test_styles_of_one_architecture_keep_their_own_weights(photos: np.ndarray) -> None:
    runtime = create_runtime("openvino", CPU, 1)
    painted = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        generator = GENERATORS["fast"](normalization="batch").eval()
        with torch.no_grad():
            for tensor in (*generator.parameters(), *generator.buffers()):
                if tensor.dim() == 1:
                    tensor.add_(torch.rand_like(tensor))
        painted.append(runtime.load(generator, "fast batch").paint(photos, [0, 0])[0].astype(int))
        with torch.inference_mode():
            expected = to_pixels(generator.paint(to_photos(torch.from_numpy(photos.copy())), None))
        assert np.abs(painted[-1] - expected[0].numpy()).max() <= 1
    assert np.abs(painted[0] - painted[1]).mean() > 5


def test_what_is_kept_for_each_size_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO would keep 5,000 kernels a style, and cuDNN 10,000 plans."""
    module = pytest.importorskip("service.runtimes.openvino_runtime")
    options: list[dict[Any, Any]] = []

    class Core:
        def compile_model(self, _graph: object, _device: str, given: dict[Any, Any]) -> Any:
            options.append(given)
            return SimpleNamespace(create_infer_request=object)

    monkeypatch.setattr(module, "_core", Core)
    load("openvino", "fast")
    assert options[0]["CPU_RUNTIME_CACHE_CAPACITY"] <= 256
    importlib.import_module("service.runtimes.cuda_runtime")
    assert int(os.environ["TORCH_CUDNN_V8_API_LRU_CACHE_LIMIT"]) <= 1000


def test_openvino_has_one_core_for_the_life_of_the_process() -> None:
    first, second = (create_runtime("openvino", CPU, 1) for _ in range(2))
    assert first._core is second._core  # type: ignore[attr-defined]


def test_nothing_phones_home() -> None:
    """OpenVINO's telemetry package stays unimported, and nothing opens a connection."""
    script = (
        "import socket, sys\n"
        "def refuse(*_): raise SystemExit('a connection was opened')\n"
        "socket.socket.connect = socket.socket.connect_ex = socket.create_connection = refuse\n"
        "import torch\n"
        "from model_zoo.generators import GENERATORS\n"
        "from service.runtimes import create_runtime\n"
        "runtime = create_runtime('openvino', torch.device('cpu'), 1)\n"
        "runtime.load(GENERATORS['fast']().eval(), 'any')\n"
        "print([name for name in sys.modules if 'telemetry' in name and sys.modules[name]\n"
        "       and 'openvino_telemetry' in (getattr(sys.modules[name], '__file__', '') or '')])\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == "[]"


def test_bytes_to_paint_follow_the_largest_map() -> None:
    half, full = (bytes_to_paint(GENERATORS[name]()) for name in ("johnson_half", "johnson"))
    # The upsampled map of 32 or 64 channels at full size, in fp32.
    assert full - half == pytest.approx(6.6 * 32 * 4, rel=1e-6)


def test_bytes_to_measure_leave_out_what_comes_after_the_last_normalization() -> None:
    generator = GENERATORS["fast"]()
    assert bytes_to_measure(generator) < bytes_to_paint(generator) / 2


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", GENERATORS)
def test_paint_frame_equals_eager_torch_from_frame_to_frame(
    runtime: str, name: str, photos: np.ndarray
) -> None:
    painter, reference = load(runtime, name), load("torch", name)
    statistics = expected_statistics = None
    for number, memory in ((0, 0.5), (1, 0.5), (1, 0.0)):
        frame = photos[number : number + 1]
        painted, finite, statistics = painter.paint_frame(frame, statistics, memory, 3)
        expected, _, expected_statistics = reference.paint_frame(
            frame, expected_statistics, memory, 3
        )
        assert finite.tolist() == [True]
        assert np.abs(painted.astype(int) - expected).max() <= 1
        np.testing.assert_allclose(statistics, expected_statistics, rtol=1e-2, atol=1e-2)
    # Without memory it is a photograph like any other.
    alone, _ = painter.paint(photos[1:], [3])
    assert np.abs(painted.astype(int) - alone).max() <= 1
