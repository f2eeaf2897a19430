"""Records: what a training writes down while it runs, to its run's folder and to TensorBoard."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from PIL import Image

    from trainer.runs import TrainingRun


class Records:
    """Losses, sheets and checkpoints of one training that starts or goes on at ``step``.

    Of several processes only one has them ``enabled``; for the others every call does nothing.
    """

    def __init__(self, run: TrainingRun, step: int, *, enabled: bool) -> None:
        self._run = run
        self._first_step = step
        self._started = time.monotonic()
        self._writer: SummaryWriter | None = None
        self._seconds_before = 0.0
        if enabled:
            self._seconds_before = float(run.facts()["seconds"])
            run.truncate_losses(step)
            self._writer = SummaryWriter(str(run.tensorboard_path), purge_step=step)

    def __enter__(self) -> Records:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._writer is not None:
            self._writer.close()

    def seconds_left(self, step: int, steps: int) -> int:
        """How long the rest will take at the speed so far."""
        taken = time.monotonic() - self._started
        return round(taken / max(1, step - self._first_step) * (steps - step))

    def add_losses(self, step: int, losses: Mapping[str, float], **more: Any) -> None:
        """Write ``losses`` to both places and ``more`` to the JSON lines."""
        if self._writer is None:
            return
        self._run.append_losses({"step": step, **losses, **more})
        for name, value in losses.items():
            self._writer.add_scalar(name, value, step)

    def go_back(self, step: int) -> None:
        """Drop the losses of steps after ``step``, which will come again."""
        if self._writer is not None:
            self._run.truncate_losses(step)

    def save_sheet(self, step: int, sheet: Image.Image) -> None:
        """Write a contact sheet, and half its size to TensorBoard, which keeps every one."""
        if self._writer is None:
            return
        sheet.save(self._run.sheet_path(step), quality=90)
        self._writer.add_image("sheet", np.asarray(sheet.reduce(2)), step, dataformats="HWC")

    def save_checkpoint(self, state: Mapping[str, Any], *, bad_photos: int) -> None:
        """Replace the checkpoint and bring the run's facts up to date."""
        if self._writer is None:
            return
        self._run.save_checkpoint(state)
        seconds = self._seconds_before + time.monotonic() - self._started
        self._run.add_facts(
            steps_done=state["step"], seconds=round(seconds, 1), bad_photos=bad_photos
        )

    def save_best(self, state: Mapping[str, Any]) -> None:
        """Replace the best generator so far."""
        if self._writer is not None:
            self._run.save_best(state)
