"""ReferenceCache: what L-BFGS reaches for a photograph, kept, since it takes minutes to find."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model_zoo.checkpoints import write_file
from trainer.errors import TrainerError
from trainer.optimize import optimize
from trainer.picture_metrics import border_ratio, checkerboard_energy, flat_share
from trainer.pictures import to_image

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from trainer.losses import PerceptualLoss

SHIPPED_REFERENCES = Path(__file__).parent / "recipes/references.json"
"""Those of the shipped styles, so that a fresh clone need not find them for hours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What L-BFGS on the pixels reaches for one photograph.

    ``checkerboard``, ``border`` and ``flat`` are those of its picture, as picture_metrics has them.
    There is no share of clipped pixels: the objective clamps them, so how many lie outside is an
    accident of the line search. ``at_50`` is the objective after 50 evaluations.
    """

    photograph: str
    objective: float
    checkerboard: float
    border: float
    flat: float
    evaluations: int
    at_50: float
    size_px: tuple[int, int]
    seconds: float

    @classmethod
    def from_facts(cls, facts: Any) -> Reference:
        """What :meth:`as_facts` gave.

        Raises:
            ValueError, TypeError, KeyError: ``facts`` are not a reference, or lack a figure.
        """
        height, width = facts["size_px"]
        values = {f.name: facts[f.name] for f in fields(cls)} | {"size_px": (height, width)}
        for name in ("objective", "checkerboard", "border", "flat"):
            values[name] = float(values[name])
        return cls(**values)

    def as_facts(self) -> dict[str, Any]:
        """For a JSON file."""
        return asdict(self) | {"size_px": list(self.size_px)}


@dataclass(frozen=True, slots=True)
class ReferenceCache:
    """References after ``evaluations`` of L-BFGS started from the photograph.

    They are looked for in ``known``, then in ``folder``, which also gets the pictures; with
    ``anew`` in neither. A file's name is the checksum of everything that the figures depend on:
    photograph, painting, loss network, weights of the losses and ``evaluations``. ``used`` fills
    with what was asked for.
    """

    folder: Path
    evaluations: int
    known: Mapping[str, Reference] = field(default_factory=dict)
    anew: bool = False
    used: dict[str, Reference] = field(default_factory=dict)

    def reference(
        self,
        photo: Tensor,
        loss: PerceptualLoss,
        photograph: str,
        on_evaluation: Callable[[int, float], None] = lambda number, objective: None,  # noqa: ARG005
    ) -> Reference:
        """What is known about ``photo``, RGB in [0, 1], (1, 3, H, W), H, W >= 32, or found now.

        Args:
            photo: the content.
            loss: in fp32.
            photograph: its name, which is written down beside the figures.
            on_evaluation: told number and objective of each evaluation.

        Raises:
            TrainerError: the folder cannot be written.
        """
        key = self.key(photo, loss)
        reference = self.used.get(key) or self._remembered(key)
        if reference is None:
            reference = self._measure(key, photo, loss, photograph, on_evaluation)
        self.used[key] = reference
        return reference

    def key(self, photo: Tensor, loss: PerceptualLoss) -> str:
        """Checksum of all that a reference depends on: 32 hexadecimal digits."""
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

    def _remembered(self, key: str) -> Reference | None:
        if self.anew:
            return None
        if key in self.known:
            return self.known[key]
        try:
            text = (self.folder / f"{key}.json").read_text(encoding="utf-8")
            return Reference.from_facts(json.loads(text))
        except (OSError, ValueError, KeyError, TypeError):
            return None  # not there, half written, or from before it had these figures

    def _measure(
        self,
        key: str,
        photo: Tensor,
        loss: PerceptualLoss,
        photograph: str,
        on_evaluation: Callable[[int, float], None],
    ) -> Reference:
        found = optimize(photo, loss, evaluations=self.evaluations, on_evaluation=on_evaluation)
        height, width = photo.shape[-2:]
        reference = Reference(
            photograph=photograph,
            objective=found.objective,
            checkerboard=checkerboard_energy(found.picture),
            border=border_ratio(found.picture),
            flat=flat_share(found.picture),
            evaluations=len(found.curve),
            at_50=found.curve[min(49, len(found.curve) - 1)],
            size_px=(height, width),
            seconds=round(found.seconds, 1),
        )
        path = self.folder / f"{key}.json"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            to_image(found.picture).save(path.with_suffix(".png"))
            path.write_text(json.dumps(reference.as_facts()) + "\n", encoding="utf-8")
        except OSError as error:
            raise TrainerError(f"--references {self.folder} cannot be written: {error}") from error
        return reference


def read_references(path: Path) -> dict[str, Reference]:
    """References that :func:`write_references` wrote, by key; none where there is no file.

    Raises:
        TrainerError: the file is damaged.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return {key: Reference.from_facts(facts) for key, facts in document.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainerError(
            f"{path} cannot be read ({error!r}); restore it, or measure its references anew"
        ) from error


def write_references(path: Path, references: Mapping[str, Reference]) -> None:
    """Replace ``path`` by ``references``, one a line, sorted by key.

    Raises:
        ZooError: it cannot be written.
    """
    lines = [f'"{key}": {json.dumps(references[key].as_facts())}' for key in sorted(references)]
    write_file(("{\n" + ",\n".join(lines) + "\n}\n").encode(), path)
