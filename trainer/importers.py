"""Checkpoints of other projects, converted once into styles of a zoo; the service never sees them.

Pickles are read by torch.load with ``weights_only`` alone, and what comes out is not trusted.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from model_zoo.checkpoints import build_generator
from model_zoo.layers import INPUT_GAIN
from trainer.drafts import StyleDraft, check_style_id
from trainer.errors import TrainerError
from trainer.export import write_style

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from model_zoo.cards import StyleCard
    from model_zoo.layers import Generator

MOST_BYTES = 256 * 2**20
"""Checkpoints of these networks have 7 MB, some times that with an optimizer's state."""

UNKNOWN = "unknown"
"""What a card says where nobody said better: a checkpoint brings neither credits nor a licence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """Which checkpoint of which project to import, where to, and words for the card."""

    checkpoint: Path
    project: str
    style_id: str
    zoo: Path
    preview_photo: Path | None = None
    title: str | None = None
    artist: str | None = None
    year: str | None = None
    description: str | None = None
    picture_license: str | None = None
    weights_license: str | None = None


@dataclass(frozen=True, slots=True)
class Converted:
    """A generator with imported weights, and how to build it again."""

    name: str
    arguments: Mapping[str, Any]
    generator: Generator


def import_style(options: ImportOptions) -> StyleCard:
    """Convert a checkpoint and write it into a zoo, as ``trainer.export.write_style`` does.

    Raises:
        TrainerError: the checkpoint or the preview photograph cannot be read or used.
        ZooError: the zoo cannot be written or its manifest is not valid.
    """
    check_style_id(options.style_id)
    data = _read(options.checkpoint)
    convert = IMPORTERS[options.project]
    converted = convert(_state_dict(data, options.checkpoint), options.checkpoint)
    file_name = os.fsencode(options.checkpoint.name).decode(errors="replace")
    draft = StyleDraft(
        style_id=options.style_id,
        title=options.title or options.style_id.replace("-", " ").title(),
        artist=options.artist or UNKNOWN,
        year=options.year or UNKNOWN,
        description=options.description or "",
        generator=converted.name,
        arguments=converted.arguments,
        picture_license=options.picture_license or UNKNOWN,
        weights_license=options.weights_license or UNKNOWN,
        recipe="",  # names a file of trainer/recipes, and no recipe made this
        training={
            "imported_from": options.project,
            "file": file_name,
            "sha256": hashlib.sha256(data).hexdigest(),
        },
    )
    return write_style(
        options.zoo,
        draft,
        converted.generator,
        preview_photo=options.preview_photo,
        # An import should answer as its source does. Measured at 320x512 px after rounding to
        # 0..255, on weights of our own trainings in their layout and on random ones: fp16 moves
        # 2 to 8 % of the values by 1 and single ones by 2; fp32 a hundredth of a percent by 1.
        dtype=torch.float32,
    )


def pytorch_examples(tensors: Mapping[str, Tensor], path: Path) -> Converted:
    """The network of pytorch/examples, ``fast_neural_style``, as our ``johnson``.

    Theirs takes and gives RGB in [0, 255], ours in [0, 1] and multiplies its input by INPUT_GAIN:
    the first convolution's weights grow by 255 / INPUT_GAIN, so that the normalization behind it,
    eps and all, sees the same; the last one's weights and bias shrink by 255. The other biases
    stand before an instance normalization, which removes them, and are left out. For sizes that
    are multiples of 4 the answers are equal but for rounding errors.

    Args:
        tensors: a state dict. ``running_mean``, ``running_var`` and ``num_batches_tracked``, which
            torch before 0.4 saved, were never used and are passed over.
        path: the file, for messages.

    Raises:
        TrainerError: naming the first tensor that is missing, misshapen, not finite or unknown.
    """
    arguments = {"normalization": "instance", "padding": "reflect", "last_kernel": 9}
    generator = build_generator("johnson", arguments)
    ours = generator.state_dict()
    layers = tuple(_pytorch_examples_layers())

    shapes: dict[str, torch.Size] = {}
    for conv, norm, our_conv, our_norm in layers:
        weight = ours[f"{our_conv}.weight"].shape
        shapes |= {f"{conv}.weight": weight, f"{conv}.bias": weight[:1]}
        if norm:
            shapes |= {f"{norm}.{kind}": ours[f"{our_norm}.{kind}"].shape for kind in _AFFINE}
    theirs = _expected(tensors, shapes, _STATISTICS, path)

    for conv, norm, our_conv, our_norm in layers:
        ours[f"{our_conv}.weight"] = theirs[f"{conv}.weight"].double()
        if norm:
            ours |= {f"{our_norm}.{kind}": theirs[f"{norm}.{kind}"] for kind in _AFFINE}
    ours["encoder.0.0.weight"] *= 255 / INPUT_GAIN
    ours["to_rgb.weight"] /= 255
    ours["to_rgb.bias"] = theirs["deconv3.conv2d.bias"].double() / 255
    generator.load_state_dict(ours)  # rounds to fp32 once, behind the factors
    return Converted("johnson", arguments, generator)


IMPORTERS: dict[str, Callable[[Mapping[str, Tensor], Path], Converted]] = {
    "pytorch-examples": pytorch_examples,
}
"""Conversion by the name of the project that trained the checkpoint."""

_AFFINE = ("weight", "bias")
_STATISTICS = re.compile(r"(res\d\.)?in\d\.(running_mean|running_var|num_batches_tracked)")


def _pytorch_examples_layers() -> Iterator[tuple[str, str, str, str]]:
    """Names of each convolution and its normalization: theirs, theirs, ours, ours; in order."""
    for number in range(3):
        block = f"encoder.{number}"
        yield f"conv{number + 1}.conv2d", f"in{number + 1}", f"{block}.0", f"{block}.1"
    for number in range(5):
        for half, position in ((1, 0), (2, 3)):
            residual, block = f"res{number + 1}", f"trunk.{number}.branch"
            yield (
                f"{residual}.conv{half}.conv2d",
                f"{residual}.in{half}",
                f"{block}.{position}",
                f"{block}.{position + 1}",
            )
    for number in range(2):
        block = f"decoder.{number}"
        yield f"deconv{number + 1}.conv2d", f"in{number + 4}", f"{block}.1", f"{block}.2"
    yield "deconv3.conv2d", "", "to_rgb", ""


def _expected(
    tensors: Mapping[str, Tensor],
    shapes: Mapping[str, torch.Size],
    passed_over: re.Pattern[str],
    path: Path,
) -> dict[str, Tensor]:
    """The tensors that ``shapes`` names, in fp32; all others must be ``passed_over``."""
    expected = {}
    for key, shape in shapes.items():
        if key not in tensors:
            raise TrainerError(f"{path} lacks {key}; is it of the project that --from names?")
        tensor = tensors[key]
        if not _is_plain(tensor):
            raise TrainerError(f"{path}: {key} is not a tensor of plain floating-point numbers")
        if tensor.shape != shape:
            raise TrainerError(
                f"{path}: {key} has shape {tuple(tensor.shape)}, expected {tuple(shape)}; "
                "it is of another network"
            )
        expected[key] = tensor.detach().to(torch.float32)
        if not torch.isfinite(expected[key]).all():
            raise TrainerError(f"{path}: {key} holds NaN or infinity; the file is damaged")
    for key in tensors:
        if key not in shapes and not passed_over.fullmatch(key):
            raise TrainerError(f"{path} holds {key!r}, unknown here; it is of another network")
    return expected


def _is_plain(tensor: Tensor) -> bool:
    """Not sparse, nested, quantized, complex, or without data."""
    return (
        tensor.dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16)
        and tensor.layout is torch.strided
        and tensor.device.type == "cpu"
        and not tensor.is_nested
    )


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise TrainerError(f"checkpoint {path} is not a file")
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise TrainerError(
                f"checkpoint {path} has {size / 2**20:.0f} MiB; those that can be imported stay "
                f"below {MOST_BYTES / 2**20:.0f} MiB"
            )
        data = path.read_bytes()
    except OSError as error:
        raise TrainerError(f"checkpoint {path} cannot be read: {error.strerror}") from error
    if data[:256].lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise TrainerError(f"checkpoint {path} is a web page; download the file behind its link")
    return data


def _state_dict(data: bytes, path: Path) -> dict[str, Tensor]:
    """The table of tensors in a checkpoint, as it is or below ``state_dict`` or ``model``."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that old formats are old
            table = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or foreign pickle throws
        raise TrainerError(
            f"checkpoint {path} is damaged, or holds more than tensors; "
            "what can be imported is torch.save(network.state_dict(), file)"
        ) from error
    for wrapper in ("state_dict", "model"):
        if isinstance(table, dict) and isinstance(table.get(wrapper), dict):
            table = table[wrapper]
    if not isinstance(table, dict) or not table:
        raise TrainerError(f"checkpoint {path} is not a table of tensors, as a state_dict() is")
    for key, value in table.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise TrainerError(f"checkpoint {path}: {key!r} is not a name with its tensor")
    if all(key.startswith("module.") for key in table):  # of torch.nn.DataParallel
        return {key.removeprefix("module."): value for key, value in table.items()}
    return table
