from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from model_zoo.cards import ZooError
from model_zoo.checkpoints import build_generator, load_generator, save_generator
from model_zoo.generators import GENERATORS


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        *((name, {}) for name in GENERATORS),
        *((n, {"normalization": "batch"}) for n in GENERATORS if n != "conditional"),
        ("conditional", {"rows": 5}),
    ],
)
def test_saved_weights_load_again_within_fp16(
    name: str, arguments: dict[str, Any], tmp_path: Path
) -> None:
    generator = build_generator(name, arguments).eval()
    path = tmp_path / "weights.safetensors"

    save_generator(generator, path)
    loaded = load_generator(path, name, arguments)

    photo = torch.rand(1, 3, 32, 32)
    assert (loaded(photo) - generator(photo)).abs().mean() < 5e-3
    assert {t.dtype for t in loaded.state_dict().values()} <= {torch.float32, torch.int64}
    assert not loaded.training
    parameters = sum(p.numel() for p in generator.parameters())
    assert path.stat().st_size < 2.1 * parameters + 256 * len(generator.state_dict())
    assert [p.name for p in tmp_path.iterdir()] == ["weights.safetensors"]


def test_load_when_the_file_is_no_safetensors_then_names_it(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"PK\x03\x04 a pickle in a zip")

    with pytest.raises(ZooError, match=r"weights\.safetensors: is not a safetensors file"):
        load_generator(path, "johnson_half", {})


def test_load_when_the_file_is_absent_then_names_it(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=r"gone\.safetensors: cannot be read"):
        load_generator(tmp_path / "gone.safetensors", "johnson_half", {})


def test_load_when_a_tensor_is_missing_surplus_or_misshapen_then_names_it(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_generator(build_generator("johnson_half", {}), path)
    tensors = load_file(path)

    save_file({k: v for k, v in tensors.items() if k != "to_rgb.bias"}, path)
    with pytest.raises(ZooError, match=r"lacks to_rgb\.bias"):
        load_generator(path, "johnson_half", {})

    save_file(tensors | {"extra": torch.zeros(1)}, path)
    with pytest.raises(ZooError, match="holds extra"):
        load_generator(path, "johnson_half", {})

    save_file(tensors, path)
    with pytest.raises(ZooError, match=r"has shape \(16, 3, 9, 9\)"):
        load_generator(path, "johnson", {})


def test_load_when_a_weight_is_not_finite_then_refuses(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_generator(build_generator("johnson_half", {}), path)
    tensors = load_file(path)
    tensors["to_rgb.bias"][0] = float("nan")
    save_file(tensors, path)

    with pytest.raises(ZooError, match=r"to_rgb\.bias holds values that are not finite"):
        load_generator(path, "johnson_half", {})


def test_save_when_a_weight_overflows_fp16_then_writes_nothing(tmp_path: Path) -> None:
    generator = build_generator("johnson_half", {})
    with torch.no_grad():
        next(generator.parameters()).view(-1)[0] = 1e6

    with pytest.raises(ZooError, match="not finite in fp16"):
        save_generator(generator, tmp_path / "weights.safetensors")

    assert list(tmp_path.iterdir()) == []


def test_build_when_the_name_or_an_argument_is_unknown_then_says_so() -> None:
    with pytest.raises(ZooError, match="there are: conditional, fast, johnson"):
        build_generator("vgg", {})
    with pytest.raises(ZooError, match="widht"):
        build_generator("johnson", {"widht": 3})
    with pytest.raises(ZooError, match="instance, batch"):
        build_generator("johnson", {"normalization": "layer"})
