"""ONNX files against the generators that they were made from, in onnxruntime."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import onnx
import onnxruntime
import pytest
import torch
from skimage import data as skimage_data
from torch import Tensor, nn

from model_zoo.cards import Manifest
from model_zoo.checkpoints import load_generator
from model_zoo.generators import GENERATORS
from model_zoo.layers import Generator
from tests.trainer.test_export import make_run
from trainer.__main__ import main
from trainer.errors import TrainerError
from trainer.onnx_export import write_onnx

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


class Small(Generator):
    """Quick to export, with a stride and a crop as the large ones have."""

    stride = 4
    minimum_side = 8

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 4, 4, stride=4)
        self.up = nn.Upsample(scale_factor=4, mode="nearest")
        self.to_rgb = nn.Conv2d(4, 3, 1)

    def paint(self, photos: Tensor, seeds: Sequence[int] | None) -> Tensor:  # noqa: ARG002
        return photos + self.to_rgb(self.up(self.down(photos)))


class Undecided(Small):
    """Its way depends on what the photograph shows, which no graph can hold."""

    def paint(self, photos: Tensor, seeds: Sequence[int] | None) -> Tensor:
        return super().paint(photos, seeds) if photos.mean() > 0.5 else photos


def ready(generator: Generator) -> Generator:
    """As if trained: normalizations that differ by channel."""
    with torch.no_grad():
        for parameter in generator.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return generator.eval().requires_grad_(requires_grad=False)


@pytest.fixture
def small() -> Generator:
    torch.manual_seed(0)
    return ready(Small())


def run_onnx(path: Path, photos: Tensor) -> Tensor:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options)
    return torch.from_numpy(session.run(["stylized"], {"photos": photos.numpy()})[0])


def shape_of(value: onnx.ValueInfoProto) -> list[str | int]:
    return [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        *((name, {}) for name in GENERATORS),
        ("johnson_half", {"grain": 0.1, "normalize_decoder": False}),
        ("johnson_half", {"normalization": "batch", "padding": "circular"}),
    ],
)
def test_every_generator_answers_alike_at_any_size_and_batch(
    name: str, arguments: dict[str, Any], tmp_path: Path
) -> None:
    torch.manual_seed(7)
    generator = ready(GENERATORS[name](**arguments))
    path = tmp_path / "style.onnx"

    write_onnx(generator, path, {})

    photo = torch.from_numpy(skimage_data.coffee().copy()).permute(2, 0, 1)[None].float() / 255
    for batch, height, width in ((1, 128, 192), (1, 1, 1), (2, 3, 70), (3, 65, 64), (1, 99, 131)):
        photos = photo[..., 100 : 100 + height, 150 : 150 + width].repeat(batch, 1, 1, 1)
        photos *= torch.linspace(0.5, 1, batch).view(-1, 1, 1, 1)
        answer, expected = run_onnx(path, photos), generator(photos)
        assert answer.shape == photos.shape
        torch.testing.assert_close(answer, expected, atol=0.5 / 255, rtol=0)


def test_the_file_says_what_it_takes_gives_and_is(small: Generator, tmp_path: Path) -> None:
    path = tmp_path / "folder" / "style.onnx"

    write_onnx(small, path, {"title": "Die große Welle"})

    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    for value, name in ((model.graph.input, "photos"), (model.graph.output, "stylized")):
        assert [v.name for v in value] == [name]
        assert value[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        assert shape_of(value[0]) == ["batch", 3, "height", "width"]
    assert {entry.key: entry.value for entry in model.metadata_props} == {
        "title": "Die große Welle"
    }
    assert files(tmp_path) == {"style.onnx"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda answer: answer + 1.5 / 255, r"differs from the generator by 1\.5 of 255"),
        (lambda answer: answer * torch.nan, "differs from the generator by nan"),
        (lambda answer: answer[..., :-1], r"answers \(1, 3, 8, 12\) with \(1, 3, 8, 11\)"),
    ],
)
def test_when_the_file_answers_differently_then_nothing_is_written(
    small: Generator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Tensor], Tensor],
    message: str,
) -> None:
    # Pale, so that no difference is hidden by clamping.
    nn.init.zeros_(small.to_rgb.weight)
    nn.init.constant_(small.to_rgb.bias, -0.3)
    path = tmp_path / "style.onnx"
    path.write_bytes(b"an older file")
    monkeypatch.setattr(
        "trainer.onnx_export._answer", lambda file, photos: change(run_onnx(file, photos))
    )

    with pytest.raises(TrainerError, match=message):
        write_onnx(small, path, {})

    assert files(tmp_path) == {"style.onnx"}
    assert path.read_bytes() == b"an older file"


def test_when_the_exporter_writes_what_no_runtime_reads_then_says_so(
    small: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "trainer.onnx_export._write", lambda _generator, file, _metadata: file.write_bytes(b"ONNX?")
    )

    with pytest.raises(TrainerError, match="fails at") as raised:
        write_onnx(small, tmp_path / "style.onnx", {})

    assert "\n" not in str(raised.value)
    assert files(tmp_path) == set()


def test_a_generator_that_no_graph_can_hold_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="cannot export this generator") as raised:
        write_onnx(Undecided().eval(), tmp_path / "style.onnx", {})

    assert "\n" not in str(raised.value)
    assert files(tmp_path) == set()


def test_a_generator_with_noise_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="noise_channels"):
        write_onnx(GENERATORS["texture_net"](noise_channels=3), tmp_path / "style.onnx", {})

    assert files(tmp_path) == set()


def test_a_path_that_cannot_be_written_is_named(small: Generator, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    for path in (tmp_path / "file" / "style.onnx", tmp_path):
        with pytest.raises(TrainerError, match="cannot be written") as raised:
            write_onnx(small, path, {})
        assert str(path) in str(raised.value)

    assert files(tmp_path) == {"file"}


def test_export_of_a_run_writes_the_zoos_weights_as_onnx(recipe_file: Path, tmp_path: Path) -> None:
    run, path = make_run(tmp_path / "run", recipe_file), tmp_path / "bricks.onnx"
    zoo = tmp_path / "zoo"

    assert main(["export", str(run), "--style-id=bricks", f"--zoo={zoo}", f"--onnx={path}"]) == 0

    manifest = Manifest.read(zoo)
    manifest.verify()
    card = manifest.card("bricks")
    generator = load_generator(manifest.weights_path(card), card.generator, card.arguments)
    photos = torch.rand(2, 3, 33, 40)
    torch.testing.assert_close(run_onnx(path, photos), generator(photos), atol=0.5 / 255, rtol=0)


def test_export_from_a_zoo_writes_the_style_with_its_credits(
    tiny_zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ink.onnx"

    assert main(["export", "--from-zoo=ink", f"--zoo={tiny_zoo}", f"--onnx={path}"]) == 0

    assert f"ink: {path}" in capsys.readouterr().out
    facts = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert facts["style_id"] == "ink"
    assert facts["artist"] == "Nobody"
    assert facts["weights_license"] == "Apache-2.0"
    assert files(tmp_path) == {"ink.onnx"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a run and its style"),
        (["--style-id=ink", "--onnx=ink.onnx"], "name a run and its style"),
        (["--from-zoo=ink"], "--from-zoo needs --onnx"),
        (["RUN", "--from-zoo=ink", "--onnx=ink.onnx"], "instead of RUN"),
        (["--style-id=ink", "--from-zoo=ink", "--onnx=ink.onnx"], "instead of RUN"),
        (["--from-zoo=oil", "--onnx=ink.onnx"], "no style 'oil'"),
    ],
)
def test_arguments_that_do_not_go_together_are_one_line_and_exit_code_2(
    tiny_zoo: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)

    assert main(["export", *arguments, f"--zoo={tiny_zoo}"]) == 2

    errors = capsys.readouterr().err.strip()
    assert message in errors
    assert "\n" not in errors
    assert files(tmp_path) == set()


def test_weights_that_are_not_the_cards_are_refused(
    make_zoo: Callable[[Path], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zoo = make_zoo(tmp_path)
    (zoo / "ink.safetensors").write_bytes((zoo / "wash.safetensors").read_bytes())

    assert main(["export", "--from-zoo=ink", f"--zoo={zoo}", f"--onnx={zoo / 'a.onnx'}"]) == 2

    assert "ink.safetensors: sha256 is" in capsys.readouterr().err
    assert "a.onnx" not in files(zoo)


@pytest.mark.parametrize("missing", ["onnxruntime", "onnxscript"])
def test_without_the_extra_says_what_to_install_before_the_zoo_changes(
    recipe_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    missing: str,
) -> None:
    monkeypatch.delitem(sys.modules, "trainer.onnx_export", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    run = make_run(tmp_path / "run", recipe_file)

    arguments = ["export", str(run), "--style-id=bricks", f"--zoo={tmp_path / 'zoo'}"]
    assert main([*arguments, f"--onnx={tmp_path / 'bricks.onnx'}"]) == 2

    message = f"ONNX export needs {missing}, which is not installed; pip install 'atelier[onnx]'"
    assert message in capsys.readouterr().err
    assert not (tmp_path / "zoo").exists()
