"""World: the processes that ``torchrun`` started for one training, or this one alone."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from trainer.errors import TrainerError

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class World:
    """Which of ``size`` processes this is; the first, ``rank`` 0, is the only one that writes."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def writes(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def share_of(self, batch_size: int) -> int:
        """Pictures a step for each process.

        Raises:
            TrainerError: the batch cannot be shared out evenly.
        """
        if batch_size % self.size:
            raise TrainerError(
                f"data.batch_size = {batch_size} cannot be shared by {self.size} processes; "
                "make it a multiple of --nproc-per-node"
            )
        return batch_size // self.size

    def any(self, *, flag: bool, device: torch.device) -> bool:
        """Whether ``flag`` is set in any process; all must ask."""
        if self.size == 1:
            return flag
        answer = torch.tensor(float(flag), device=device)
        dist.all_reduce(answer, dist.ReduceOp.MAX)
        return bool(answer)

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """Mean of ``value`` over all processes; all must ask."""
        if self.size == 1:
            return value
        total = value.detach().clone()
        dist.all_reduce(total)
        return total / self.size


@contextmanager
def joined_world(device: str) -> Iterator[World]:
    """Join the processes that ``torchrun`` announced: NCCL on GPUs, gloo on the CPU."""
    if "WORLD_SIZE" not in os.environ or not dist.is_available():
        yield World()
        return
    on_gpu = device != "cpu" and torch.cuda.is_available()
    dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield World(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")))
    finally:
        dist.destroy_process_group()
