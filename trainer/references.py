"""ReferenceCache: what L-BFGS reaches for a photograph, kept, since it takes minutes to find."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.errors import TrainerError
from trainer.optimize import optimize

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

    from trainer.losses import PerceptualLoss


@dataclass(frozen=True, slots=True)
class ReferenceCache:
    """Objectives after ``evaluations`` of L-BFGS started from the photograph, in ``folder``.

    A file's name is the checksum of everything that the number depends on: photograph, painting,
    loss network, weights of the losses and ``evaluations``.
    """

    folder: Path
    evaluations: int

    def objective(
        self,
        photo: Tensor,
        loss: PerceptualLoss,
        on_evaluation: Callable[[int, float], None] = lambda number, objective: None,  # noqa: ARG005
    ) -> float:
        """The least objective for ``photo``, RGB in [0, 1], (1, 3, H, W), from disk or found now.

        Raises:
            TrainerError: the folder cannot be written.
        """
        path = self.folder / f"{self._key(photo, loss)}.json"
        try:
            return float(json.loads(path.read_text(encoding="utf-8"))["objective"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # not there, or half written
        found = optimize(photo, loss, evaluations=self.evaluations, on_evaluation=on_evaluation)
        facts = {
            "objective": found.objective,
            "evaluations": len(found.curve),
            "at_50": found.curve[min(49, len(found.curve) - 1)],
            "size_px": list(photo.shape[-2:]),
            "seconds": round(found.seconds, 1),
        }
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(facts) + "\n", encoding="utf-8")
        except OSError as error:
            raise TrainerError(f"--references {self.folder} cannot be written: {error}") from error
        return found.objective

    def _key(self, photo: Tensor, loss: PerceptualLoss) -> str:
        network = loss.network
        digest = hashlib.sha256(
            f"{self.evaluations} {loss.weights} {network.preprocessing}".encode()
        )
        pictures = [photo, loss.style_picture]
        for picture in pictures:
            digest.update(str(tuple(picture.shape)).encode())
            digest.update(picture.mul(255).round().byte().contiguous().cpu().numpy().tobytes())
        for parameter in network.parameters():
            digest.update(parameter.float().contiguous().cpu().numpy().tobytes())
        return digest.hexdigest()[:32]
