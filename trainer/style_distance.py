"""How far pictures are from paintings in style: near to their own, and to no other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from trainer.losses import PerceptualLoss, style_loss

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class StyleDistances:
    """Style distances of one style's pictures; means over photographs.

    Attributes:
        own: from its own painting.
        other: from the nearest other painting; infinite where there is none.
        nearest_other: whose name this is; empty where there is none.
        times_nearer: how many times nearer a picture is to the own painting than its photograph
            was: the least of all photographs. 1 is a photograph that came through as it was.
    """

    own: float
    other: float
    nearest_other: str
    times_nearer: float


def style_distance(picture: Tensor, losses: Sequence[PerceptualLoss]) -> list[float]:
    """Squared error of Gram matrices over those of each painting, mean over layers and scales.

    That is the style loss of a recipe of ``kind = "relative"``, for other kinds too, lest paintings
    be compared in different units. 0 is the painting itself.

    Args:
        picture: RGB in [0, 1], (1, 3, H, W); H, W >= 32 at the smallest scale.
        losses: one a painting; each counts the layers and scales of its own recipe.
    """
    grams: dict[tuple[object, ...], list[dict[str, Tensor]]] = {}
    distances = []
    for loss in losses:
        settings = (loss.weights.style_layers, loss.weights.style_scales)
        if settings not in grams:
            # The picture in the place of a painting: its Gram matrices serve all of one setting.
            grams[settings] = PerceptualLoss(loss.network, picture, loss.weights).targets
        errors = [
            style_loss(gram, target[layer])
            for of_scale, target in zip(grams[settings], loss.targets, strict=True)
            for layer, gram in of_scale.items()
        ]
        distances.append(torch.cat(errors).mean().item())
    return distances


def style_distances(
    photos: Sequence[Tensor],
    pictures: Sequence[Tensor],
    own: str,
    paintings: Mapping[str, PerceptualLoss],
) -> StyleDistances:
    """Compare the pictures of one style with every painting.

    Args:
        photos: each (1, 3, H, W), RGB in [0, 1].
        pictures: what became of them, as users see it.
        own: name of the style's painting.
        paintings: by name, ``own`` among them.
    """
    losses = list(paintings.values())
    of_pictures = torch.tensor([style_distance(p, losses) for p in pictures])  # (photos, paintings)
    before = torch.tensor([style_distance(p, [paintings[own]])[0] for p in photos])
    means = dict(zip(paintings, of_pictures.mean(0).tolist(), strict=True))
    after = of_pictures[:, list(paintings).index(own)]
    others = {name: mean for name, mean in means.items() if name != own}
    nearest = min(others, key=others.__getitem__, default="")
    return StyleDistances(
        own=means[own],
        other=others.get(nearest, float("inf")),
        nearest_other=nearest,
        times_nearer=(before / after.clamp_min(1e-12)).min().item(),
    )
