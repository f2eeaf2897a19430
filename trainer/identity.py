"""IdentityLoss: the objective of the row that paints a photograph as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainer.losses import LossTerms, content_loss

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from trainer.loss_network import LossNetwork

PIXEL_WEIGHT = 30.0
"""Of the mean squared error of pixels in [0, 1] beside the relative one of activations, so that
both count alike: 0.03 and 1 for an untrained row."""

_PIXELS = "pixels"


class IdentityLoss:
    """Distance of a picture from its photograph, in pixels and in activations of ``layers``.

    Instance normalization hides a photograph's contrast, so that no row can meet it fully.
    """

    def __init__(self, network: LossNetwork, layers: Sequence[str]) -> None:
        self.network = network
        self.layers = layers

    def content_targets(self, photos: Tensor) -> dict[str, Tensor]:
        """The photographs and their activations."""
        return {**self.network.activations(photos, self.layers), _PIXELS: photos}

    def __call__(self, stylized: Tensor, content_targets: Mapping[str, Tensor]) -> LossTerms:
        """Measure ``stylized``, RGB in [0, 1], (N, 3, H, W); differentiable."""
        photos = content_targets[_PIXELS]
        features = self.network.activations(stylized, self.layers)
        by_layer = {
            name: content_loss(features[name], content_targets[name]) for name in self.layers
        }
        of_pixels = (stylized - photos).square().mean((1, 2, 3))
        content = sum(by_layer.values(), start=of_pixels * 0) / len(by_layer)
        objective = content + PIXEL_WEIGHT * of_pixels
        none = of_pixels * 0
        return LossTerms(content, none, none, objective, {**by_layer, _PIXELS: of_pixels}, {})
