"""The loops that the training benchmark compares: the trainer's own, and plain ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_

from model_zoo.checkpoints import build_generator
from trainer.devices import choose_device, choose_dtype
from trainer.errors import TrainerError
from trainer.learner import Learner
from trainer.lessons import Lesson
from trainer.loss_network import LossNetwork, load_loss_network
from trainer.losses import load_perceptual_loss
from trainer.pictures import load_picture

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trainer.devices import Precision
    from trainer.recipe import TrainingRecipe


@dataclass(frozen=True, slots=True)
class Case:
    """All that the sides share; ``recipe`` says crop and batch size, too."""

    recipe: TrainingRecipe
    photos: Path
    style_picture: Path
    loss_network: Path
    device: str
    threads: int
    workers: int
    """Processes that decode photographs for each side; 0 decodes between steps."""


class Loop(Protocol):
    """A generator in training."""

    def step(self, pixels: Tensor) -> Callable[[], tuple[float, float]]:
        """Learn from uint8 (N, 3, S, S); the answer gives the objective and its gradient's norm.

        It is a function, so that nobody waits for the device to tell what nobody asks.
        """


def build_loop(name: str, case: Case, precision: Precision = "auto") -> Loop:
    """Build a side's loop, its generator new; only the trainer's has a choice of precision."""
    if name == "trainer":
        return TrainerLoop(case, precision)
    return PlainLoop(case, whole_network=name == "plain")


class TrainerLoop:
    """``Learner`` with all that ``trainer/train.py`` gives it."""

    def __init__(self, case: Case, precision: Precision) -> None:
        recipe = case.recipe
        device = choose_device(case.device)
        dtype = choose_dtype(precision, device)
        torch.manual_seed(recipe.optimization.seed)
        generator = build_generator(recipe.generator.name, recipe.generator.arguments)
        loss = load_perceptual_loss(
            recipe.loss,
            case.loss_network,
            case.style_picture,
            recipe.style.size_px,
            device=device,
            dtype=dtype,
        )
        lessons = [Lesson(loss)]
        self.learner = Learner(generator, lessons, recipe.optimization, device=device, dtype=dtype)
        self.steps_done = 0

    def step(self, pixels: Tensor) -> Callable[[], tuple[float, float]]:
        result = self.learner.step(pixels, self.steps_done)
        if result is None:
            raise TrainerError("the gradient is not finite")
        self.steps_done += 1
        return lambda: (result.terms.objective.mean().item(), result.gradient_norm.item())


class PlainLoop:
    """The loop that a careful reader of the paper writes in an afternoon; fp32 throughout."""

    def __init__(self, case: Case, *, whole_network: bool) -> None:
        recipe = case.recipe
        self.device = choose_device(case.device)
        self.weights = recipe.loss
        torch.manual_seed(recipe.optimization.seed)
        generator = build_generator(recipe.generator.name, recipe.generator.arguments)
        self.generator = generator.to(self.device).train()
        self.optimizer = torch.optim.Adam(
            self.generator.parameters(), lr=recipe.optimization.learning_rate
        )
        kept = {*self.weights.content_layers, *self.weights.style_layers}
        self.network = PlainVgg(load_loss_network(case.loss_network), kept, whole=whole_network)
        self.network.to(self.device)
        picture = load_picture(case.style_picture, recipe.style.size_px).to(self.device)
        batch = recipe.data.batch_size
        self.targets = {
            scale: {
                name: plain_gram(features).repeat(batch, 1, 1)
                for name, features in self.network(shrink(picture, scale)).items()
            }
            for scale in self.weights.style_scales
        }

    def objective(self, pixels: Tensor) -> Tensor:
        """Stylize uint8 (N, 3, S, S) and measure: a scalar, differentiable."""
        # As torchvision's ToTensor gives them; a stack of our crops would be channels_last.
        photos = pixels.to(self.device).contiguous().float() / 255  # (N, 3, S, S)
        stylized = self.generator(photos)
        # Nothing here needs a gradient, weights included, so without no_grad nothing is stored.
        wanted = self.network(photos)
        painted = self.network(stylized)
        content = stylized.new_zeros(())
        for name in self.weights.content_layers:
            error = (painted[name] - wanted[name]).square().mean((1, 2, 3))
            content = content + (error / wanted[name].square().mean((1, 2, 3))).mean()
        style = stylized.new_zeros(())
        for scale, targets in self.targets.items():
            features = painted if scale == 1 else self.network(shrink(stylized, scale))
            for name in self.weights.style_layers:
                gram, target = plain_gram(features[name]), targets[name]
                style = style + F.mse_loss(gram, target) / target.square().mean()
        variation = F.mse_loss(stylized[..., 1:, :], stylized[..., :-1, :]) + F.mse_loss(
            stylized[..., :, 1:], stylized[..., :, :-1]
        )
        objective: Tensor = (
            self.weights.content_weight * content / len(self.weights.content_layers)
            + self.weights.style_weight * style / len(self.weights.style_layers) / len(self.targets)
            + self.weights.total_variation_weight * variation
        )
        return objective

    def step(self, pixels: Tensor) -> Callable[[], tuple[float, float]]:
        self.optimizer.zero_grad()
        objective = self.objective(pixels)
        objective.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        value = objective.item()  # such scripts add it up for their log, step by step
        return lambda: (value, clip_grad_norm_(self.generator.parameters(), math.inf).item())


class PlainVgg(nn.Module):
    """The loss network as modules in a row: every layer is run, ``kept`` ones are returned."""

    def __init__(self, network: LossNetwork, kept: set[str], *, whole: bool) -> None:
        super().__init__()
        names = network.layer_names
        if not whole:
            names = names[: 1 + max(names.index(name) for name in kept)]
        self.kept = kept
        self.stages = nn.ModuleDict()
        for previous, name in pairwise(("relu1_0", *names)):
            stage = nn.Sequential(network.convolutions[name], nn.ReLU(inplace=True))
            if name[4] != previous[4]:  # the first of a block
                stage.insert(0, nn.MaxPool2d(2))
            self.stages[name] = stage
        self.scale = network.preprocessing.scale
        self.mean: Tensor
        self.std: Tensor
        for name in ("mean", "std"):
            values = torch.tensor(getattr(network.preprocessing, name))
            self.register_buffer(name, values.view(1, 3, 1, 1))

    def forward(self, photos: Tensor) -> dict[str, Tensor]:
        x = (photos * self.scale - self.mean) / self.std
        features = {}
        for name, stage in self.stages.items():
            x = stage(x)
            if name in self.kept:
                features[name] = x
        return features


def plain_gram(features: Tensor) -> Tensor:
    """F F^T / (C H W): (N, C, H, W) -> (N, C, C)."""
    batch, channels, height, width = features.shape
    flat = features.view(batch, channels, height * width)
    return flat.bmm(flat.transpose(1, 2)) / (channels * height * width)


def shrink(photos: Tensor, scale: float) -> Tensor:
    """``photos`` at a half, a third and so on of their size."""
    return photos if scale == 1 else F.avg_pool2d(photos, round(1 / scale))
