"""Content loss, Gram style loss, total variation, and their weighted sum.

Every term is relative to its target, so that one style weight means the same for every set of
layers, every loss network and every painting. The sources instead sum absolute errors, where the
right weight moves by orders of magnitude with the network (1e1 for Caffe's, 1e10 for
torchvision's); ``kind = "absolute"`` is theirs, for the recipes that repeat their numbers.

Where the Lua sources differ still: texture_nets takes MSECriterion (a mean, as here) of
F F^T / (C H W); fast-neural-style likewise, but sums its total variation over pixels in units of
0..255, as ``absolute`` does here, and only ever looks at its gradient.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from trainer.errors import TrainerError
from trainer.loss_network import load_loss_network
from trainer.pictures import load_picture

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from trainer.loss_network import LossNetwork

LossKind = Literal["relative", "absolute"]

MINIMUM_STYLE_SIDE_PX = 32
"""Below this a scale of the style picture holds no texture worth matching."""


def gram_matrix(features: Tensor) -> Tensor:
    """Correlations of channels, F F^T / (C H W): (N, C, H, W) -> (N, C, C), fp32 or wider.

    The division is that of Johnson et al. 2016, equation 3 (texture_nets does the same).
    """
    gram: Tensor = _GramMatrix.apply(features)  # type: ignore[no-untyped-call]
    return gram


class _GramMatrix(torch.autograd.Function):
    """F F^T with a backward pass of one matrix product, in the layout that the features have.

    bf16 features are multiplied as bf16, which CPUs and GPUs do several times faster, in runs of
    pixels whose products are summed in fp32; fp16 would overflow, since VGG reaches 1e4.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        batch, channels, height, width = features.shape
        flat = features.permute(0, 2, 3, 1).reshape(batch, height * width, channels)
        ctx.save_for_backward(flat)
        ctx.shape = features.shape
        if flat.dtype is not torch.bfloat16:
            return flat.transpose(1, 2) @ flat / (channels * height * width)
        runs = math.gcd(height * width, 64)
        parts = flat.reshape(batch * runs, -1, channels)  # (N*R, H*W/R, C)
        products = (parts.transpose(1, 2) @ parts).float().view(batch, runs, channels, channels)
        return products.sum(1) / (channels * height * width)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (flat,) = ctx.saved_tensors
        batch, channels, height, width = ctx.shape
        symmetric = (gradients[0] + gradients[0].transpose(1, 2)) / (channels * height * width)
        gradient: Tensor = flat @ symmetric.to(flat.dtype)  # (N, H*W, C)
        return gradient.view(batch, height, width, channels).permute(0, 3, 1, 2)


def content_loss(features: Tensor, target: Tensor, kind: LossKind = "relative") -> Tensor:
    """Mean squared error, over the mean square of ``target`` if relative: (N, C, H, W) -> (N,)."""
    target = target.to(torch.promote_types(target.dtype, torch.float32))
    error = (features - target).square().mean((1, 2, 3))
    if kind == "absolute":
        return error
    return error / target.square().mean((1, 2, 3)).clamp_min(1e-12)


def style_loss(gram: Tensor, target: Tensor, kind: LossKind = "relative") -> Tensor:
    """Mean squared error of Gram matrices, relative to ``target``'s: (N, C, C) -> (N,)."""
    error = (gram - target).square().mean((1, 2))
    if kind == "absolute":
        return error
    return error / target.square().mean((1, 2)).clamp_min(1e-12)


def total_variation(photos: Tensor) -> Tensor:
    """Mean squared difference of neighbours, down plus across: (N, 3, H, W) -> (N,)."""
    down = (photos[..., 1:, :] - photos[..., :-1, :]).square().mean((1, 2, 3))
    across = (photos[..., :, 1:] - photos[..., :, :-1]).square().mean((1, 2, 3))
    return down + across


@dataclass(frozen=True, slots=True)
class LossTerms:
    """The three terms, unweighted, and their weighted sum ``objective``; each (N,).

    ``content_by_layer`` and ``style_by_layer`` are what the first two are made of.
    """

    content: Tensor
    style: Tensor
    total_variation: Tensor
    objective: Tensor
    content_by_layer: Mapping[str, Tensor]
    style_by_layer: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class LossWeights:
    """Which layers count and how much; ``style_scales`` are sizes relative to the picture.

    ``relative`` terms are averaged over layers and scales, ``absolute`` ones are summed.
    """

    content_layers: tuple[str, ...]
    content_weight: float
    style_layers: tuple[str, ...]
    style_weight: float
    style_scales: tuple[float, ...]
    total_variation_weight: float
    kind: LossKind = "relative"


class PerceptualLoss:
    """The objective of one style: how far stylized pictures are from photograph and painting.

    The style loss is taken at several scales: at half size relu3 sees twice as far, which gives
    the larger brush strokes that deeper layers would, for a quarter of the cost of full size.
    """

    def __init__(self, network: LossNetwork, style_picture: Tensor, weights: LossWeights) -> None:
        """Measure the Gram matrices of ``style_picture``, RGB in [0, 1], (1, 3, H, W).

        Raises:
            TrainerError: a layer is not in ``network``, or the picture is too small for a scale.
        """
        check_reachable(weights, network)
        self.network = network
        self.style_picture = style_picture
        self.weights = weights
        self.targets: list[dict[str, Tensor]] = []
        for scale in weights.style_scales:
            picture = _resized(style_picture, scale)
            if min(picture.shape[-2:]) < MINIMUM_STYLE_SIDE_PX:
                raise TrainerError(
                    f"the style picture is {tuple(picture.shape[-2:])} px at scale {scale}; it "
                    f"needs {MINIMUM_STYLE_SIDE_PX} px: raise size_px or drop the scale"
                )
            with torch.no_grad():
                self.targets.append(self._grams(network.activations(picture, weights.style_layers)))

    @classmethod
    def of_picture(
        cls, network: LossNetwork, picture: Path, size_px: int, weights: LossWeights
    ) -> PerceptualLoss:
        """The objective of the painting in a file, its longer side ``size_px``.

        Raises:
            TrainerError: as :class:`PerceptualLoss`, or the file cannot be read.
        """
        return cls(network, load_picture(picture, size_px).to(network.mean.device), weights)

    def content_targets(self, photos: Tensor) -> dict[str, Tensor]:
        """Activations that ``photos`` ask the stylized pictures to keep."""
        with torch.no_grad():
            return self.network.activations(photos, self.weights.content_layers)

    def __call__(self, stylized: Tensor, content_targets: Mapping[str, Tensor]) -> LossTerms:
        """Measure ``stylized``, RGB in [0, 1], (N, 3, H, W); differentiable."""
        weights = self.weights
        style = {name: stylized.new_zeros(len(stylized)) for name in weights.style_layers}
        content: dict[str, Tensor] = {}
        for scale, targets in zip(weights.style_scales, self.targets, strict=True):
            layers: Sequence[str] = weights.style_layers
            if scale == 1.0:  # one pass serves both losses
                layers = (*layers, *weights.content_layers)
            features = self.network.activations(_resized(stylized, scale), layers)
            grams = self._grams({name: features[name] for name in weights.style_layers})
            for name, gram in grams.items():
                style[name] = style[name] + style_loss(gram, targets[name], weights.kind)
            if scale == 1.0:
                content = self._content(features, content_targets)
        if 1.0 not in weights.style_scales:
            features = self.network.activations(stylized, weights.content_layers)
            content = self._content(features, content_targets)
        if weights.kind == "relative":
            style = {name: loss / len(weights.style_scales) for name, loss in style.items()}
        content_term, style_term = self._over_layers(content), self._over_layers(style)
        variation = self._variation(stylized)
        objective = (
            weights.content_weight * content_term
            + weights.style_weight * style_term
            + weights.total_variation_weight * variation
        )
        return LossTerms(content_term, style_term, variation, objective, content, style)

    def _content(
        self, features: Mapping[str, Tensor], targets: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        kind = self.weights.kind
        return {name: content_loss(features[name], t, kind) for name, t in targets.items()}

    def _over_layers(self, losses: Mapping[str, Tensor]) -> Tensor:
        stacked = torch.stack(list(losses.values()))  # (layers, N)
        return stacked.mean(0) if self.weights.kind == "relative" else stacked.sum(0)

    def _variation(self, stylized: Tensor) -> Tensor:
        variation = total_variation(stylized)
        if self.weights.kind == "relative":
            return variation
        scale = self.network.preprocessing.scale
        return variation * (stylized[0].numel() * scale**2)

    @staticmethod
    def _grams(features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: gram_matrix(activations) for name, activations in features.items()}


def load_perceptual_loss(
    weights: LossWeights,
    loss_network: Path,
    style_picture: Path,
    size_px: int,
    *,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> PerceptualLoss:
    """The objective of a style, from files.

    Args:
        weights: of its terms.
        loss_network: file of VGG weights.
        style_picture: file of the painting.
        size_px: longer side at which the painting is shown to the network.
        device: where to compute.
        dtype: of the network's convolutions.

    Raises:
        TrainerError: a file cannot be read, or the network lacks a layer.
    """
    network = load_loss_network_for(weights, loss_network, device=device, dtype=dtype)
    return PerceptualLoss.of_picture(network, style_picture, size_px, weights)


def load_loss_network_for(
    weights: LossWeights,
    path: Path,
    *,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> LossNetwork:
    """The loss network in a file, where and as it shall compute.

    Raises:
        TrainerError: the file cannot be read, or the network lacks a layer of ``weights``.
    """
    network = load_loss_network(path)
    check_reachable(weights, network)
    network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.convolutions.to(dtype)
    return network


def check_reachable(weights: LossWeights, network: LossNetwork) -> None:
    """See that ``network`` has every layer that ``weights`` ask for.

    Raises:
        TrainerError: naming the first that it lacks, and the nearest recipe that runs on it.
    """
    reachable = network.layer_names
    missing = [n for n in (*weights.content_layers, *weights.style_layers) if n not in reachable]
    if not missing:
        return
    content = _nearest_layers(weights.content_layers, reachable)
    style = _nearest_layers(weights.style_layers, reachable)
    scales = weights.style_scales if len(weights.style_scales) > 1 else (*weights.style_scales, 0.5)
    raise TrainerError(
        f"the loss network does not reach layer {missing[0]!r}: it has {reachable[0]} to "
        f"{reachable[-1]}. Fetch the whole network (`python -m trainer loss-network --download`) "
        f"or take the nearest that runs on this one: content_layers = {json.dumps(content)}, "
        f"style_layers = {json.dumps(style)}, style_scales = {json.dumps(scales)} "
        "(the preset `default` is made for it)"
    )


def _nearest_layers(wanted: Sequence[str], reachable: Sequence[str]) -> list[str]:
    """Each wanted layer, or the deepest that is not deeper; every one once."""
    nearest: dict[str, None] = {}
    for name in wanted:
        shallower = [n for n in reachable if n <= name]  # relu1_1 < relu1_2 < relu2_1
        nearest[(shallower or list(reachable))[-1]] = None
    return list(nearest)


def _resized(photos: Tensor, scale: float) -> Tensor:
    if scale == 1.0:
        return photos
    if scale == 0.5:
        return F.avg_pool2d(photos, 2)
    size = [max(1, round(side * scale)) for side in photos.shape[-2:]]
    return F.interpolate(photos, size=size, mode="bilinear", antialias=True)
