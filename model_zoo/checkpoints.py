"""Weights on disk: safetensors only, fp16 as a rule, strict keys. No pickle is ever read here."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from model_zoo.cards import ZooError, check_sha256
from model_zoo.generators import GENERATORS
from model_zoo.generators.conditional import IDENTITY_ROW, ConditionalGenerator, row_count

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from model_zoo.cards import Manifest, StyleCard
    from model_zoo.layers import Generator


def build_generator(generator: str, arguments: Mapping[str, Any]) -> Generator:
    """Build an untrained generator by its name in GENERATORS.

    Raises:
        ZooError: the name is unknown or the builder does not take these arguments.
    """
    try:
        builder = GENERATORS[generator]
    except KeyError:
        known = ", ".join(GENERATORS)
        raise ZooError(f"no generator {generator!r}; there are: {known}") from None
    try:
        return builder(**arguments)
    except (TypeError, ValueError) as error:
        raise ZooError(f"generator {generator!r} with {dict(arguments)}: {error}") from error


def load_generator(path: Path, generator: str, arguments: Mapping[str, Any]) -> Generator:
    """Build a generator and load its weights, ready for inference: fp32, CPU, eval mode.

    Raises:
        ZooError: the file is absent, no safetensors, or its tensors are not exactly the
            generator's; the message names the file and the first tensor that differs.
    """
    return _parse_generator(path, _read(path), generator, arguments)


def load_style(manifest: Manifest, card: StyleCard) -> Generator:
    """Load the generator of one style of a zoo, as :func:`load_generator` does.

    Raises:
        ZooError: its weights cannot be loaded, are not those of the card, or hold no such row.
    """
    path = manifest.weights_path(card)
    document = _read(path)
    # Of the very bytes that are loaded: the file may have been replaced since it was verified.
    check_sha256(path, card, hashlib.sha256(document).hexdigest())
    generator = _parse_generator(path, document, card.generator, card.arguments)
    check_row(card, generator)
    if isinstance(generator, ConditionalGenerator):
        generator.style_row = card.style_row
    return generator


def check_row(card: StyleCard, generator: Generator) -> None:
    """See that ``generator`` has the row of ``card``, or neither has any.

    Raises:
        ZooError: it has not.
    """
    rows = row_count(generator)
    if rows and not IDENTITY_ROW < card.style_row < rows:
        raise ZooError(
            f"style {card.style_id!r}: style_row = {card.style_row} must be one of the rows "
            f"{IDENTITY_ROW + 1} to {rows - 1} of {card.weights}"
        )
    if card.style_row and not rows:
        raise ZooError(
            f"style {card.style_id!r}: style_row = {card.style_row}, "
            f"but generator {card.generator!r} has no rows"
        )


def save_generator(module: Generator, path: Path, *, dtype: torch.dtype = torch.float16) -> None:
    """Write the weights of ``module`` to ``path`` as safetensors, atomically.

    Args:
        module: the generator.
        path: the file.
        dtype: of the weights on disk, float16 or float32.

    Raises:
        ZooError: a weight is not finite in ``dtype``, or the file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    for name, tensor in module.state_dict().items():
        # Running variances of batch normalization may exceed fp16's 65504; they are small files.
        keep = not tensor.is_floating_point() or name.endswith(("running_mean", "running_var"))
        tensors[name] = tensor.detach().cpu().to(tensor.dtype if keep else dtype)
        if not torch.isfinite(tensors[name]).all():
            bits = torch.finfo(dtype).bits
            raise ZooError(f"{path}: {name} is not finite in fp{bits}; the training went wrong")
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    write_file(save(tensors, metadata={"format": "pt"}), path)


def write_file(data: bytes, path: Path) -> None:
    """Replace ``path`` in one step.

    Raises:
        ZooError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        raise ZooError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        partial.unlink(missing_ok=True)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ZooError(f"{path}: cannot be read ({error.strerror or error})") from error


def _parse_generator(
    path: Path, document: bytes, generator: str, arguments: Mapping[str, Any]
) -> Generator:
    module = build_generator(generator, arguments)
    try:
        tensors = load(document)
    except SafetensorError as error:
        raise ZooError(f"{path}: is not a safetensors file ({error})") from error
    _check_tensors(path, generator, module.state_dict(), tensors)
    module.load_state_dict(tensors)  # copies into the module's own fp32
    return module.eval().requires_grad_(requires_grad=False)


def _check_tensors(
    path: Path, generator: str, expected: Mapping[str, Tensor], actual: Mapping[str, Tensor]
) -> None:
    for name, tensor in expected.items():
        if name not in actual:
            raise ZooError(f"{path}: lacks {name}, which generator {generator!r} needs")
        if actual[name].shape != tensor.shape:
            raise ZooError(
                f"{path}: {name} has shape {tuple(actual[name].shape)}, "
                f"generator {generator!r} needs {tuple(tensor.shape)}"
            )
        if not torch.isfinite(actual[name]).all():
            raise ZooError(f"{path}: {name} holds values that are not finite")
    surplus = actual.keys() - expected.keys()
    if surplus:
        raise ZooError(f"{path}: holds {min(surplus)}, unknown to generator {generator!r}")
