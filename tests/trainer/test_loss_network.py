from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from tests.trainer.conftest import vgg_tensors
from trainer.errors import TrainerError
from trainer.loss_network import CAFFE, TORCHVISION, LossNetwork, load_loss_network

SHARED = Path(__file__).parents[3] / "shared/assets/loss_network/vgg19_relu3_4_fp16.safetensors"

# torchvision numbers convolutions, ReLUs and pools alike (its vgg.py, configurations D and E).
VGG19_POSITIONS = {"1_1": 0, "1_2": 2, "2_1": 5, "2_2": 7, "3_1": 10, "3_2": 12}


def torchvision_names(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        f"features.{VGG19_POSITIONS[key[4:7]]}.{key[8:]}": tensor for key, tensor in tensors.items()
    }


def test_activations_equal_a_plain_vgg() -> None:
    tensors = vgg_tensors()
    photos = torch.rand(2, 3, 20, 28)

    x = photos * 255 - torch.tensor([123.68, 116.779, 103.939]).view(1, 3, 1, 1)
    expected = {}
    for name in ("1_1", "1_2", "2_1", "2_2", "3_1", "3_2"):
        if name in ("2_1", "3_1"):
            x = F.max_pool2d(x, 2)
        x = F.relu(F.conv2d(x, tensors[f"conv{name}.weight"], padding=1))
        expected[f"relu{name}"] = x
    actual = LossNetwork(tensors, CAFFE).activations(photos, list(expected))

    for name, activation in expected.items():
        torch.testing.assert_close(actual[name], activation, rtol=1e-4, atol=1e-2)


def test_torchvision_preprocessing_subtracts_mean_and_divides() -> None:
    network = LossNetwork(vgg_tensors(), TORCHVISION)
    photo = torch.rand(1, 3, 8, 8)
    normalized = (photo - torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(1, 3, 1, 1)

    expected = F.relu(F.conv2d(normalized, vgg_tensors()["conv1_1.weight"], padding=1))

    actual = network.activations(photo, ["relu1_1"])["relu1_1"]
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("layout", ["caffe", "torchvision"])
def test_both_layouts_load_from_both_kinds_of_file(
    layout: str, suffix: str, tmp_path: Path
) -> None:
    tensors = vgg_tensors() if layout == "caffe" else torchvision_names(vgg_tensors())
    path = tmp_path / f"vgg{suffix}"
    save_file(tensors, path) if suffix == ".safetensors" else torch.save(tensors, path)

    network = load_loss_network(path)

    assert network.layer_names == ("relu1_1", "relu1_2", "relu2_1", "relu2_2", "relu3_1", "relu3_2")
    assert network.preprocessing == (CAFFE if layout == "caffe" else TORCHVISION)
    assert not any(p.requires_grad for p in network.parameters())


def test_whole_torchvision_vgg19_and_vgg16_get_their_own_layer_names(tmp_path: Path) -> None:
    """The two differ in what ``features.16`` and later are."""
    blocks = {"vgg19": (2, 2, 4, 4, 4), "vgg16": (2, 2, 3, 3, 3)}
    for name, convolutions in blocks.items():
        tensors, position, in_channels = {}, 0, 3
        for count in convolutions:
            for _ in range(count):
                tensors[f"features.{position}.weight"] = torch.zeros(4, in_channels, 3, 3)
                tensors[f"features.{position}.bias"] = torch.zeros(4)
                position, in_channels = position + 2, 4
            position += 1
        tensors["classifier.0.weight"] = torch.zeros(2, 4)
        path = tmp_path / f"{name}.pth"
        torch.save(tensors, path)

        names = load_loss_network(path).layer_names

        assert len(names) == sum(convolutions)
        assert names[-1] == f"relu5_{convolutions[-1]}"


def test_only_the_layers_up_to_the_deepest_asked_for_are_computed() -> None:
    tensors = vgg_tensors()
    tensors["conv3_1.weight"].fill_(float("nan"))

    activations = LossNetwork(tensors, CAFFE).activations(torch.rand(1, 3, 16, 16), ["relu2_1"])

    assert torch.isfinite(activations["relu2_1"]).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is not a file"),
        (b"not a checkpoint", "cannot be read|more than tensors"),
        ({"weight": torch.zeros(1)}, "it is no VGG"),
        ({"conv1_1.weight": torch.full((4, 3, 3, 3), torch.nan)}, "holds NaN or infinity"),
        ({"conv1_1.weight": torch.zeros(0, 3, 3, 3), "conv1_1.bias": torch.zeros(0)}, "has shape"),
        ([torch.zeros(1)], "not a table of tensors"),
        ({"model": {"conv1_1.weight": torch.zeros(1)}}, "not a table of tensors"),
    ],
)
def test_load_when_the_file_is_no_vgg_then_says_what_to_do(
    content: object, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "vgg.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)

    with pytest.raises(TrainerError, match=message):
        load_loss_network(path)


def test_load_never_runs_what_a_pickle_holds(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "ran",))

    path = tmp_path / "vgg.pth"
    torch.save({"conv1_1.weight": Bomb()}, path)

    with pytest.raises(TrainerError, match="more than tensors"):
        load_loss_network(path)

    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["conv2_1.weight", "conv1_2.weight", "conv1_1.bias"])
def test_load_when_a_layer_in_the_middle_is_missing_then_names_it(
    name: str, tmp_path: Path
) -> None:
    tensors = vgg_tensors()
    del tensors[name]
    save_file(tensors, tmp_path / "vgg.safetensors")

    with pytest.raises(TrainerError, match=f"{name[:7]} is missing"):
        load_loss_network(tmp_path / "vgg.safetensors")


@pytest.mark.skipif(not SHARED.exists(), reason="development assets are not here")
def test_the_original_weights_load_to_relu3_4() -> None:
    network = load_loss_network(SHARED)

    assert network.layer_names[-1] == "relu3_4"
    features = network.activations(torch.rand(1, 3, 64, 64), ["relu3_4"])["relu3_4"]
    assert features.shape == (1, 256, 16, 16)
    assert 10 < features.max() < 1e5
