"""A style as an ONNX file, compared with its generator before it stands in its place.

Needs the extra ``onnx``: torch's exporter is built on onnxscript, and onnxruntime compares.
"""

from __future__ import annotations

import logging
import os
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import onnxruntime
import onnxscript  # noqa: F401  # torch.onnx.export imports it late, and says so at length
import torch
from torch.nn import functional as F

from model_zoo.cards import Manifest
from model_zoo.checkpoints import load_style
from model_zoo.generators.conditional import ConditionalGenerator
from trainer.errors import TrainerError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from torch import Tensor

    from model_zoo.cards import StyleCard
    from model_zoo.layers import Generator

OPSET = 18
"""The lowest that torch's exporter writes: more runtimes read it than newer ones."""

MOST_DIFFERENCE = 1 / 255
"""Between ONNX file and generator, of RGB in [0, 1] after clamping."""

PHOTOS = "photos"
STYLIZED = "stylized"
AXES = {0: "batch", 2: "height", 3: "width"}
"""Names of the axes that any number may stand for."""


def export_onnx(manifest: Manifest, card: StyleCard, path: Path) -> None:
    """Write the style of ``card`` to ``path``, with its credits and licences as metadata.

    Raises:
        ZooError: its weights cannot be read or are not those of the card.
        TrainerError: as :func:`write_onnx` does.
    """
    Manifest(manifest.zoo, (card,)).verify()
    generator = load_style(manifest, card)
    names = ("style_id", "title", "artist", "year", "picture_license", "weights_license")
    write_onnx(generator, path, {name: getattr(card, name) for name in names})


def write_onnx(generator: Generator, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a generator to ``path``, or nothing where that file would answer differently.

    The one input is ``photos``: RGB in [0, 1], float32, (N, 3, H, W) with any N, H, W >= 1. The
    one output is ``stylized``: RGB of the same shape, linear: the caller clamps to [0, 1].

    Args:
        generator: on the CPU, in eval mode.
        path: the file; folders above it are made, a file that is there is replaced.
        metadata: words that go into the file.

    Raises:
        TrainerError: the generator draws noise, the exporter fails, onnxruntime answers
            differently, or the file cannot be written.
    """
    if generator.noise_channels:
        # ONNX leaves the random numbers of a seed to each runtime, so no answer could be checked.
        raise TrainerError(
            f"{path}: a generator with noise_channels draws from torch's own random numbers, which "
            "ONNX does not have; only generators without can be exported"
        )
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # A row is written as the generator of one style that it is.
            written = generator
            if isinstance(generator, ConditionalGenerator):
                written = generator.baked()
            _write(written, partial, metadata)
            _compare(generator, partial, path)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise TrainerError(f"{path} cannot be written: {error.strerror or error}") from error


def _write(generator: Generator, path: Path, metadata: Mapping[str, str]) -> None:
    # Axes unlike each other and none 1, lest one be taken for another; none a multiple of the
    # stride, lest the crop be left out.
    side = generator.minimum_side + generator.stride + 1
    example = torch.zeros(2, 3, side, side + generator.stride)
    try:
        with _quiet_exporter():
            exported = torch.onnx.export(
                generator,
                (example,),
                dynamo=True,
                dynamic_shapes=(AXES,),
                input_names=[PHOTOS],
                output_names=[STYLIZED],
                opset_version=OPSET,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise TrainerError(
            f"torch {torch.__version__} cannot export this generator to ONNX: {_first_line(error)}"
        ) from error
    program = cast("torch.onnx.ONNXProgram", exported)  # None is what the older exporter gives
    # The exporter knows the crop only as min(H, what H was padded to), which is H.
    graph = program.model.graph
    graph.outputs[0].shape = graph.inputs[0].shape
    program.model.metadata_props.update(metadata)
    program.save(path)


def _compare(generator: Generator, file: Path, path: Path) -> None:
    """See that ``file``, which shall become ``path``, answers as the generator does."""
    runtime = f"onnxruntime {onnxruntime.__version__}"
    least, stride = generator.minimum_side, generator.stride
    sizes = (
        (1, least, least + stride),  # as they suit the network
        (2, least + 1, 2 * least + stride - 1),  # padded to suit it
        (3, 5, 2),  # reflected more than once
        (1, 9, 330),  # wider than the tiles of Grain
    )
    random = torch.Generator().manual_seed(0)
    for batch, height, width in sizes:
        photos = _photos(batch, height, width, random)
        with torch.inference_mode():
            expected = generator(photos)
        try:
            stylized = _answer(file, photos)
        except Exception as error:  # onnxruntime's own have no common base
            raise TrainerError(
                f"{path}: {runtime} fails at {tuple(photos.shape)}, so nothing was written: "
                f"{_first_line(error)}"
            ) from error
        if stylized.shape != expected.shape:
            raise TrainerError(
                f"{path}: {runtime} answers {tuple(photos.shape)} with {tuple(stylized.shape)}, "
                "so nothing was written"
            )
        difference = (stylized.clamp(0, 1) - expected.clamp(0, 1)).abs().max().item()
        if not difference <= MOST_DIFFERENCE:  # NaN, too
            raise TrainerError(
                f"{path}: {runtime} differs from the generator by {255 * difference:.3g} of 255 "
                f"at {tuple(photos.shape)}, more than 1, so nothing was written"
            )


def _answer(file: Path, photos: Tensor) -> Tensor:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    (stylized,) = session.run([STYLIZED], {PHOTOS: photos.numpy()})
    return torch.from_numpy(stylized)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _photos(batch: int, height: int, width: int, random: torch.Generator) -> Tensor:
    """Soft shapes with a little texture, as photographs have: (batch, 3, height, width)."""
    shapes = torch.rand(batch, 3, 4, 6, generator=random)
    shapes = F.interpolate(shapes, size=(height, width), mode="bicubic", align_corners=False)
    texture = torch.rand(batch, 3, height, width, generator=random)
    return (0.8 * shapes + 0.2 * texture).clamp(0, 1)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Without the exporter's words to its own developers, as of torch 2.13."""
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    registration.setLevel(logging.ERROR)  # torchvision's operators are not needed here
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r".*treespec, LeafSpec", FutureWarning)
            yield
    finally:
        registration.setLevel(level)
