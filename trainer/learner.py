"""Learner: one step of learning, from photographs to better weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

from model_zoo.generators.conditional import mixed
from trainer.averaging import WeightAverage
from trainer.droplets import DropletPenalty
from trainer.faults import grid_penalty, range_penalty

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model_zoo.layers import Generator
    from trainer.distributed import World
    from trainer.lessons import Lesson
    from trainer.losses import LossTerms
    from trainer.recipe import Optimization


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one step saw: terms (N,), the unclamped answers (N, 3, S, S), the gradient's norm."""

    terms: LossTerms
    stylized: Tensor
    gradient_norm: Tensor


class Learner:
    """A generator, its optimizer and its average; :meth:`step` improves all three.

    ``lessons`` are taken in turn, one a step; weights that require no gradient stay as they are.
    ``dtype`` is that of convolutions under autocast, on a CPU: on a GPU the generator's many small
    maps are turned around and cast for longer than bf16 saves (docs/decisions/0013), and only the
    loss network runs in bf16. Where several processes train, gradients are averaged over them, so
    that all keep the same weights.
    """

    def __init__(
        self,
        generator: Generator,
        lessons: Sequence[Lesson],
        plan: Optimization,
        *,
        device: torch.device,
        dtype: torch.dtype,
        world: World | None = None,
    ) -> None:
        on_cpu = device.type == "cpu"
        self._layout = torch.channels_last if on_cpu else torch.contiguous_format
        self._half = on_cpu and dtype is not torch.float32
        self.generator = generator.to(device).to(memory_format=self._layout).train()  # type: ignore[call-overload]
        self.lessons = lessons
        self.plan = plan
        self.device = device
        self.dtype = dtype
        learnt = [weight for weight in self.generator.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.Adam(learnt, lr=plan.learning_rate)
        self.average = WeightAverage(self.generator, plan.average_decay)
        self.learning_rate_factor = 1.0
        # After the average has copied the generator: only the one that learns is watched.
        self._droplets = DropletPenalty(self.generator) if plan.droplet_weight else None
        self._forward: torch.nn.Module = self.generator
        if world is not None and world.size > 1:
            self._forward = DistributedDataParallel(self.generator)

    def learning_rate_at(self, number: int) -> float:
        """Learning rate of step ``number``, counted from 0."""
        return self.plan.learning_rate_at(number) * self.learning_rate_factor

    def step(self, pixels: Tensor, number: int) -> StepResult | None:
        """Learn from a batch, uint8 (N, 3, S, S), as step ``number``, counted from 0.

        Returns:
            None, and changes nothing, where the gradient is not finite.
        """
        photos = pixels.to(self.device, non_blocking=True).float() / 255
        photos = photos.contiguous(memory_format=self._layout)
        lesson = self.lessons[number % len(self.lessons)]
        targets = lesson.objective.content_targets(photos)
        with (
            torch.autocast(self.device.type, self.dtype, enabled=self._half),
            mixed(self.generator, lesson.mixes),
        ):
            stylized = self._forward(photos)
        terms = lesson.objective(stylized.float(), targets)
        objective = terms.objective.mean() + self._penalty(stylized)
        self.optimizer.zero_grad(set_to_none=True)
        objective.backward()  # type: ignore[no-untyped-call]
        norm = clip_grad_norm_(self.generator.parameters(), self.plan.gradient_clip)
        if not math.isfinite(norm.item()):
            return None
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate_at(number)
        self.optimizer.step()
        self.average.update(self.generator)
        return StepResult(terms, stylized.detach(), norm)

    def _penalty(self, stylized: Tensor) -> Tensor:
        """What the recipe weighs beside the perceptual losses."""
        plan, penalty = self.plan, stylized.new_zeros((), dtype=torch.float32)
        if self._droplets is not None and (droplets := self._droplets.take()) is not None:
            penalty = penalty + plan.droplet_weight * droplets
        if plan.grid_weight:
            penalty = penalty + plan.grid_weight * grid_penalty(stylized)
        if plan.range_weight:
            penalty = penalty + plan.range_weight * range_penalty(stylized)
        return penalty

    def state(self) -> dict[str, Any]:
        """What :meth:`load_state` takes, for a checkpoint."""
        return {
            "generator": self.generator.state_dict(),
            "average": self.average.state(),
            "optimizer": self.optimizer.state_dict(),
            "learning_rate_factor": self.learning_rate_factor,
            "random_state": torch.get_rng_state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from an earlier :meth:`state`, bit for bit."""
        self.generator.load_state_dict(state["generator"])
        self.average.load_state(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.learning_rate_factor = state["learning_rate_factor"]
        torch.set_rng_state(state["random_state"])
