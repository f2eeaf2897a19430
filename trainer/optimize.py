"""optimize(photo): Gatys et al. 2015, L-BFGS on the pixels: slow, and the yardstick of quality."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

from trainer.pictures import as_seen

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from trainer.losses import PerceptualLoss

EVALUATIONS = 300
"""Enough: after 50 the objective is within 5 % of what it is here."""


@dataclass(frozen=True, slots=True)
class Optimized:
    """What was reached.

    ``picture`` is [0, 1] in 256 steps, (1, 3, H, W), and ``objective`` its own; ``curve`` holds
    that of every evaluation on the way.
    """

    picture: Tensor
    curve: tuple[float, ...]
    objective: float
    seconds: float


def optimize(
    photo: Tensor,
    loss: PerceptualLoss,
    *,
    start: Tensor | None = None,
    evaluations: int = EVALUATIONS,
    show_progress: bool = False,
    on_evaluation: Callable[[int, float], None] = lambda number, objective: None,  # noqa: ARG005
) -> Optimized:
    """Move pixels until the objective of ``loss`` is least, by L-BFGS as Gatys' code does.

    Args:
        photo: the content, RGB in [0, 1], (1, 3, H, W).
        loss: in fp32; bf16 is too coarse for the line search.
        start: where to start, as ``photo``, which is the default.
        evaluations: how often objective and gradient are computed, at most.
        show_progress: whether to draw a progress bar.
        on_evaluation: told number and objective of each evaluation.
    """
    # L-BFGS flattens gradients, which take the layout of the pixels.
    pixels = (photo if start is None else start).clone(memory_format=torch.contiguous_format)
    pixels.requires_grad_()
    targets = loss.content_targets(photo)
    optimizer = torch.optim.LBFGS(
        [pixels],
        max_iter=evaluations,
        max_eval=evaluations,
        history_size=50,
        tolerance_grad=0,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )
    curve: list[float] = []
    started = time.monotonic()
    with tqdm(total=evaluations, unit="evaluation", disable=not show_progress) as progress:

        def evaluate() -> Tensor:
            optimizer.zero_grad(set_to_none=True)
            # Clamped, lest the optimum be one that no picture can hold.
            terms = loss(pixels.clamp(0, 1), targets)
            objective = terms.objective.sum()
            objective.backward()  # type: ignore[no-untyped-call]
            curve.append(objective.item())
            progress.update(len(curve) <= evaluations)
            progress.set_postfix(objective=f"{curve[-1]:.4f}", refresh=False)
            on_evaluation(len(curve), curve[-1])
            return objective

        optimizer.step(evaluate)  # type: ignore[no-untyped-call]
    picture = as_seen(pixels.detach())
    with torch.no_grad():
        objective = loss(picture, targets).objective.item()
    return Optimized(picture, tuple(curve), objective, time.monotonic() - started)
