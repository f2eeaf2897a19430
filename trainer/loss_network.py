"""The frozen loss network: VGG activations by name, with the preprocessing of its weights."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.errors import TrainerError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

VGG19_URL = "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"
"""torchvision's VGG19_Weights.IMAGENET1K_V1; the file name carries the start of its sha256."""

# Convolutions in each of the five blocks (Simonyan and Zisserman 2014, table 1, columns D and E).
_BLOCKS = {"VGG-16": (2, 2, 3, 3, 3), "VGG-19": (2, 2, 4, 4, 4)}


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a photograph in [0, 1] enters the network: (x * scale - mean) / std, channel by channel.

    Caffe's weights are used here with the channel order of their files already turned to RGB.
    """

    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


CAFFE = Preprocessing(scale=255.0, mean=(123.68, 116.779, 103.939), std=(1.0, 1.0, 1.0))
"""The authors' own weights: 0..255 minus the mean of ImageNet, no division."""
TORCHVISION = Preprocessing(scale=1.0, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""torchvision's weights: [0, 1], ImageNet's mean and standard deviation."""


class LossNetwork(nn.Module):
    """The convolutions of a VGG up to the deepest layer that a loss asks for, frozen.

    Layers are named as in the field: ``relu2_1`` is the first activation of the second block.
    """

    def __init__(self, tensors: Mapping[str, Tensor], preprocessing: Preprocessing) -> None:
        """Take ``convB_I.weight`` (out, in, 3, 3) and ``convB_I.bias`` tensors, any prefix of VGG.

        Raises:
            TrainerError: a tensor is missing between two others or has another shape.
        """
        super().__init__()
        self.mean: Tensor
        self.factor: Tensor
        self.layer_names = _reachable_layers(tensors)
        self.convolutions = nn.ModuleDict()
        in_channels = 3
        for layer in self.layer_names:
            name = layer.replace("relu", "conv")
            weight, bias = tensors[f"{name}.weight"].float(), tensors[f"{name}.bias"].float()
            fits = weight.shape[1:] == (in_channels, 3, 3) and bias.shape == weight.shape[:1]
            if not fits or not len(weight):
                raise TrainerError(
                    f"loss network: {name}.weight has shape {tuple(weight.shape)}, "
                    f"expected (any, {in_channels}, 3, 3) with as many biases"
                )
            conv = nn.Conv2d(in_channels, len(weight), 3, padding=1)
            conv.load_state_dict({"weight": weight, "bias": bias})
            self.convolutions[layer] = conv
            in_channels = len(weight)
        self.preprocessing = preprocessing
        shape = (1, 3, 1, 1)
        mean, std = (torch.tensor(v).view(shape) for v in (preprocessing.mean, preprocessing.std))
        self.register_buffer("mean", mean / preprocessing.scale)
        self.register_buffer("factor", preprocessing.scale / std)
        self.eval().requires_grad_(requires_grad=False)

    def activations(self, photos: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Activations of ``layers`` for RGB photographs in [0, 1], (N, 3, H, W).

        Computes no layer deeper than the deepest asked for. The dtype of the answer is that of
        the weights: cast the module to bfloat16 to compute in it.
        """
        dtype = next(self.parameters()).dtype
        x = ((photos - self.mean) * self.factor).to(dtype)
        wanted = set(layers)
        activations: dict[str, Tensor] = {}
        block = "1"
        for layer in self.layer_names:
            if layer[4] != block:
                x = F.max_pool2d(x, 2)  # (N, C, H/2, W/2)
                block = layer[4]
            x = F.relu(self.convolutions[layer](x))
            if layer in wanted:
                activations[layer] = x
                if len(activations) == len(wanted):
                    break
        return activations


def load_loss_network(path: Path) -> LossNetwork:
    """Load VGG weights in either layout: ``convB_I.*`` (Caffe) or ``features.N.*`` (torchvision).

    Args:
        path: .safetensors, or .pth / .pt that holds tensors alone.

    Raises:
        TrainerError: the file cannot be read or holds no VGG.
    """
    tensors = _read_tensors(path)
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise TrainerError(f"loss network {path}: {name} holds NaN or infinity; fetch it again")
    if "conv1_1.weight" in tensors:
        return LossNetwork(tensors, CAFFE)
    if "features.0.weight" in tensors:
        return LossNetwork(_caffe_names(tensors), TORCHVISION)
    raise TrainerError(
        f"{path}: holds neither conv1_1.weight nor features.0.weight, so it is no VGG; "
        "fetch one with `python -m trainer loss-network --download`"
    )


def download_loss_network(path: Path) -> None:
    """Fetch torchvision's VGG-19, check its hash, and write its convolutions to ``path``.

    Raises:
        TrainerError: no connection, or the file that came is not the one expected.
    """
    try:
        tensors = torch.hub.load_state_dict_from_url(VGG19_URL, map_location="cpu", check_hash=True)
    except (OSError, RuntimeError) as error:
        raise TrainerError(
            f"{VGG19_URL} cannot be fetched ({error}); "
            "download it elsewhere and give its path as --loss-network"
        ) from error
    convolutions = {k: v.contiguous() for k, v in tensors.items() if k.startswith("features.")}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(convolutions, path)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    advice = "give a .safetensors or .pth file of VGG weights as --loss-network"
    if not path.is_file():
        raise TrainerError(f"loss network {path} is not a file; {advice}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise TrainerError(f"loss network {path} cannot be read ({reason}); {advice}") from error
    except Exception as error:  # pickle.UnpicklingError and whatever a foreign pickle throws
        raise TrainerError(f"loss network {path} holds more than tensors; {advice}") from error
    if not isinstance(tensors, dict) or not all(isinstance(t, Tensor) for t in tensors.values()):
        raise TrainerError(f"loss network {path} is not a table of tensors; {advice}")
    return tensors


def _caffe_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``features.N.weight`` -> ``convB_I.weight``; N counts convolutions, ReLUs and pools."""
    # The 8th module of the third block is a convolution in VGG-19 and a pool in VGG-16.
    network = "VGG-19" if "features.16.weight" in tensors else "VGG-16"
    renamed: dict[str, Tensor] = {}
    position = 0
    for block, convolutions in enumerate(_BLOCKS[network], 1):
        for index in range(1, convolutions + 1):
            for kind in ("weight", "bias"):
                if f"features.{position}.{kind}" in tensors:
                    renamed[f"conv{block}_{index}.{kind}"] = tensors[f"features.{position}.{kind}"]
            position += 2  # convolution, ReLU
        position += 1  # max pool
    return renamed


def _reachable_layers(tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Names of the layers from relu1_1 on without a gap, in order."""
    present = {
        (int(match[1]), int(match[2]))
        for key in tensors
        if (match := re.fullmatch(r"conv(\d)_(\d)\.weight", key)) and f"{key[:-6]}bias" in tensors
    }
    if (1, 1) not in present:
        raise TrainerError("loss network: conv1_1 is missing, or its weight or bias is")
    reachable = []
    for block, index in sorted(present):
        previous = (block, index - 1) if index > 1 else (block - 1, 2)  # every block has two
        if previous not in present and (block, index) != (1, 1):
            raise TrainerError(f"loss network: conv{previous[0]}_{previous[1]} is missing")
        reachable.append(f"relu{block}_{index}")
    return tuple(reachable)
