"""Checkpoints of other projects against an implementation of their networks, written anew here."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from skimage import data as skimage_data
from torch import Tensor, nn
from torch.nn import functional as F

from model_zoo.cards import Manifest, ZooError
from service.stylizer import StyleJob, Stylizer
from trainer.__main__ import main
from trainer.errors import TrainerError
from trainer.importers import IMPORTERS, ImportOptions, import_style

if TYPE_CHECKING:
    from collections.abc import Callable

Tensors = dict[str, Tensor]


class Padded(nn.Module):
    """Nearest upsampling, reflection, a convolution with a bias."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, up: int = 1):
        super().__init__()
        self.up, self.border = up, kernel // 2
        self.conv2d = nn.Conv2d(inputs, outputs, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        x = x.repeat_interleave(self.up, 2).repeat_interleave(self.up, 3)
        return self.conv2d(F.pad(x, (self.border,) * 4, mode="reflect"))


class Residual(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        for number in (1, 2):
            self.add_module(f"conv{number}", Padded(channels, channels, 3))
            self.add_module(f"in{number}", nn.InstanceNorm2d(channels, affine=True))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.in2(self.conv2(self.in1(self.conv1(x)).relu()))


class PytorchExamples(nn.Module):
    """RGB in [0, 255] to the same; the names of its layers are those of the checkpoints."""

    def __init__(self) -> None:
        super().__init__()
        down = (Padded(3, 32, 9), Padded(32, 64, 3, stride=2), Padded(64, 128, 3, stride=2))
        up = (Padded(128, 64, 3, up=2), Padded(64, 32, 3, up=2))
        for number, layer in enumerate(down, 1):
            self.add_module(f"conv{number}", layer)
        for number in range(1, 6):
            self.add_module(f"res{number}", Residual(128))
        for number, layer in enumerate((*up, Padded(32, 3, 9)), 1):
            self.add_module(f"deconv{number}", layer)
        for number, channels in enumerate((32, 64, 128, 64, 32), 1):
            self.add_module(f"in{number}", nn.InstanceNorm2d(channels, affine=True))

    def forward(self, x: Tensor) -> Tensor:
        layer = self.get_submodule
        for number in (1, 2, 3):
            x = layer(f"in{number}")(layer(f"conv{number}")(x)).relu()
        for number in range(1, 6):
            x = layer(f"res{number}")(x)
        for number in (1, 2):
            x = layer(f"in{number + 3}")(layer(f"deconv{number}")(x)).relu()
        return layer("deconv3")(x)


def trained_like() -> PytorchExamples:
    """Random, but with the sizes that training leaves: answers that fill [0, 255] and overshoot."""
    torch.manual_seed(1)
    network = PytorchExamples()
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.dim() == 4:
                tensor.normal_(std=(2 / tensor[0].numel()) ** 0.5)
            elif name.endswith(".bias"):
                tensor.normal_(std=0.3)
            else:
                tensor.normal_(1, 0.4)
        network.conv1.conv2d.weight *= 0.2
        network.deconv3.conv2d.weight *= 60
        network.deconv3.conv2d.bias += torch.tensor([120.0, 110.0, 100.0])
    return network.eval().requires_grad_(requires_grad=False)


@pytest.fixture(scope="module")
def network() -> PytorchExamples:
    return trained_like()


@pytest.fixture
def tensors(network: PytorchExamples) -> Tensors:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


@pytest.fixture
def options(tensors: Tensors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImportOptions:
    monkeypatch.setattr("trainer.previews.PREVIEW_SIDE_PX", 64)  # sooner painted
    path = tmp_path / "mosaic.pth"
    torch.save(tensors, path)
    return ImportOptions(
        checkpoint=path, project="pytorch-examples", style_id="old-mosaic", zoo=tmp_path / "zoo"
    )


def photo(height: int, width: int) -> Tensor:
    """RGB of whole numbers in [0, 255], (1, 3, height, width)."""
    pixels = torch.from_numpy(skimage_data.astronaut()[40 : 40 + height, 120 : 120 + width])
    return pixels.permute(2, 0, 1)[None].float()


def rounded(picture: Tensor) -> Tensor:
    return picture.clamp(0, 255).round()


def convert(tensors: Tensors) -> Callable[[Tensor], Tensor]:
    """The converted network, from [0, 255] to [0, 255]."""
    generator = IMPORTERS["pytorch-examples"](tensors, Path("any.pth")).generator.eval()
    return lambda pixels: generator(pixels / 255).detach() * 255


@pytest.mark.parametrize(("height", "width"), [(16, 16), (64, 100), (128, 96)])
def test_the_generator_answers_as_the_network_that_it_was(
    network: PytorchExamples, tensors: Tensors, height: int, width: int
) -> None:
    expected = network(photo(height, width))
    assert expected.std() > 40
    assert expected.min() < 0
    assert expected.max() > 255

    answer = convert(tensors)(photo(height, width))

    assert (rounded(answer) - rounded(expected)).abs().max() <= 1
    torch.testing.assert_close(answer, expected, atol=0.05, rtol=0)


def test_a_nearly_black_photograph_is_answered_alike(
    network: PytorchExamples, tensors: Tensors
) -> None:
    """Where variances are small, eps counts: the first normalization must see the same scale.

    Their network answers in double, since rounding differs between processors and is magnified
    here: in fp32 it is 0.26 of 255 away from itself.
    """
    faint = photo(32, 32) / 2000

    expected = copy.deepcopy(network).double()(faint.double()).float()
    torch.testing.assert_close(convert(tensors)(faint), expected, atol=0.05, rtol=0)


def test_the_style_stands_in_a_zoo_that_verifies_and_that_the_service_paints_with(
    network: PytorchExamples, options: ImportOptions
) -> None:
    card = import_style(options)

    manifest = Manifest.read(options.zoo)
    manifest.verify()
    assert manifest.cards == (card,)
    assert (card.title, card.artist, card.year) == ("Old Mosaic", "unknown", "unknown")
    assert (card.picture_license, card.weights_license) == ("unknown", "unknown")
    assert card.generator == "johnson"
    assert card.training == {
        "imported_from": "pytorch-examples",
        "file": "mosaic.pth",
        "sha256": hashlib.sha256(options.checkpoint.read_bytes()).hexdigest(),
    }
    pixels = photo(64, 96)
    array = pixels[0].permute(1, 2, 0).numpy().astype(np.uint8)
    painted = Stylizer(manifest, device="cpu", threads=1).run([StyleJob(card, array)])[0]
    assert isinstance(painted, np.ndarray)
    expected = rounded(network(pixels))[0].permute(1, 2, 0).numpy()
    assert np.abs(painted - expected).max() <= 1


def test_statistics_of_old_files_are_passed_over(tensors: Tensors) -> None:
    old = dict(tensors)
    for name in tensors:
        if ".in" in f".{name}" and name.endswith(".weight"):
            layer = name.removesuffix("weight")
            old[f"{layer}running_mean"] = torch.full_like(tensors[name], torch.nan)
            old[f"{layer}running_var"] = torch.ones(7)
            old[f"{layer}num_batches_tracked"] = torch.tensor(3)
    assert len(old) == len(tensors) + 3 * 15

    assert torch.equal(convert(old)(photo(32, 32)), convert(tensors)(photo(32, 32)))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tensors: {"state_dict": tensors, "epoch": 2},
        lambda tensors: {"model": tensors, "optimizer": {"state": {}}},
        lambda tensors: {f"module.{name}": tensor for name, tensor in tensors.items()},
        lambda tensors: {"state_dict": {f"module.{name}": t for name, t in tensors.items()}},
        lambda tensors: {name: nn.Parameter(tensor) for name, tensor in tensors.items()},
        lambda tensors: {name: tensor.double() for name, tensor in tensors.items()},
    ],
)
def test_wrapped_checkpoints_are_the_same_style(
    options: ImportOptions, tensors: Tensors, wrap: Callable[[Tensors], Any], tmp_path: Path
) -> None:
    plain = import_style(options)
    torch.save(wrap(tensors), options.checkpoint)

    wrapped = import_style(replace(options, zoo=tmp_path / "second zoo"))

    assert wrapped.sha256 == plain.sha256


def test_a_file_of_the_format_before_torch_1_6_is_read(
    options: ImportOptions, tensors: Tensors
) -> None:
    torch.save(tensors, options.checkpoint, _use_new_zipfile_serialization=False)

    assert import_style(options).style_id == "old-mosaic"


def without(tensors: Tensors, *names: str) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if name not in names}


def with_value(tensors: Tensors, name: str, value: float) -> Tensors:
    changed = tensors[name].clone()
    changed.view(-1)[-1] = value
    return tensors | {name: changed}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: without(t, "conv1.conv2d.bias", "in4.bias"), "lacks conv1.conv2d.bias"),
        (lambda t: without(t, "res5.in2.weight"), "lacks res5.in2.weight"),
        (lambda t: t | {"res6.in1.weight": torch.ones(128)}, "holds 'res6.in1.weight', unknown"),
        (lambda t: t | {"in1.running": torch.ones(32)}, "holds 'in1.running', unknown"),
        (
            lambda t: t | {"conv1.conv2d.weight": torch.ones(16, 3, 9, 9)},
            r"conv1.conv2d.weight has shape \(16, 3, 9, 9\), expected \(32, 3, 9, 9\)",
        ),
        (lambda t: with_value(t, "in3.weight", torch.nan), "in3.weight holds NaN or infinity"),
        (lambda t: with_value(t, "deconv3.conv2d.bias", torch.inf), "deconv3.conv2d.bias holds"),
        (lambda t: with_value(t, "conv2.conv2d.bias", -torch.inf), "conv2.conv2d.bias holds"),
        (lambda t: t | {"in1.bias": torch.ones(32, dtype=torch.long)}, "in1.bias is not a tensor"),
        (lambda t: t | {"in1.bias": torch.ones(32).to_sparse()}, "in1.bias is not a tensor"),
        (lambda t: t | {"in1.bias": torch.ones(32, device="meta")}, "in1.bias is not a tensor"),
        (lambda t: t | {"in1.bias": torch.ones(1).expand(10**12)}, "in1.bias has shape"),
        (lambda t: t | {"epoch": 3}, "'epoch' is not a name with its tensor"),
        (lambda t: t | {7: torch.ones(1)}, "7 is not a name with its tensor"),
        (lambda _: {}, "is not a table of tensors"),
        (lambda t: list(t.values()), "is not a table of tensors"),
        (lambda _: torch.ones(3), "is not a table of tensors"),
        (lambda _: {"state_dict": {"features.0.weight": torch.ones(1)}}, "lacks conv1.conv2d"),
    ],
)
def test_a_file_of_another_network_is_named_with_its_first_wrong_tensor(
    options: ImportOptions, tensors: Tensors, change: Callable[[Tensors], Any], message: str
) -> None:
    torch.save(change(tensors), options.checkpoint)

    with pytest.raises(TrainerError, match=message) as raised:
        import_style(options)

    assert str(options.checkpoint) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not options.zoo.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "is a web page"),
        (b"\n<HTML>", "is a web page"),
        (b"", "is damaged, or holds more than tensors"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is damaged"),
        (b"PK\x03\x04" + bytes(200), "is damaged"),
        (b"\x80\x02" + bytes(range(256)), "is damaged"),
        (bytes(range(256)) * 40, "is damaged"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_named(
    options: ImportOptions, content: bytes, message: str
) -> None:
    options.checkpoint.write_bytes(content)

    with pytest.raises(TrainerError, match=message) as raised:
        import_style(options)

    assert str(options.checkpoint) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not options.zoo.exists()


def test_a_checkpoint_cut_short_is_named(options: ImportOptions) -> None:
    whole = options.checkpoint.read_bytes()
    for length in (3, 100, len(whole) // 2, len(whole) - 5):
        options.checkpoint.write_bytes(whole[:length])
        with pytest.raises(TrainerError, match="is damaged"):
            import_style(options)


class Trap:
    """Unpickled without care, it would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_code_in_a_checkpoint_does_not_run(
    options: ImportOptions, tensors: Tensors, tmp_path: Path
) -> None:
    torch.save(tensors | {"trap": Trap(tmp_path / "sprung")}, options.checkpoint)

    with pytest.raises(TrainerError, match="holds more than tensors"):
        import_style(options)

    assert not (tmp_path / "sprung").exists()


def test_a_path_that_is_no_file_or_too_large_is_named(
    options: ImportOptions, tmp_path: Path
) -> None:
    for absent in (tmp_path / "gone.pth", tmp_path):
        with pytest.raises(TrainerError, match="is not a file"):
            import_style(replace(options, checkpoint=absent))
    with options.checkpoint.open("r+b") as file:
        file.truncate(2**40)  # takes no room on the disk
    with pytest.raises(TrainerError, match="1048576 MiB"):
        import_style(options)


def test_an_id_or_a_preview_photograph_that_will_not_do_is_named(options: ImportOptions) -> None:
    with pytest.raises(ZooError, match="lower-case"):
        import_style(replace(options, style_id="../Mosaic"))
    with pytest.raises(TrainerError, match="--preview-photo"):
        import_style(replace(options, preview_photo=options.checkpoint))

    assert not options.zoo.exists()


def test_import_on_the_command_line_says_what_it_wrote(
    options: ImportOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    named = options.checkpoint.rename(options.checkpoint.with_name("mos\udcffaic.pth"))
    arguments = ["import", str(named), "--from=pytorch-examples", "--style-id=mosaic"]

    assert main([*arguments, f"--zoo={options.zoo}", "--title=Mosaïque", "--artist="]) == 0

    card = Manifest.read(options.zoo).card("mosaic")
    assert (card.title, card.artist) == ("Mosaïque", "unknown")
    assert card.training["file"] == "mos\N{REPLACEMENT CHARACTER}aic.pth"
    assert f"mosaic: {options.zoo / card.weights}" in capsys.readouterr().out


def test_import_of_a_wrong_file_is_one_line_and_exit_code_2(
    options: ImportOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    options.checkpoint.write_text("<html>", encoding="utf-8")

    arguments = ["import", str(options.checkpoint), "--from=pytorch-examples"]
    assert main([*arguments, "--style-id=mosaic", f"--zoo={options.zoo}"]) == 2

    errors = capsys.readouterr().err.strip()
    assert errors.startswith("error: ")
    assert "\n" not in errors


def test_import_from_a_project_that_is_unknown_names_those_there_are(
    options: ImportOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["import", str(options.checkpoint), "--from=caffe", "--style-id=mosaic"])

    assert stopped.value.code == 2
    assert "pytorch-examples" in capsys.readouterr().err
