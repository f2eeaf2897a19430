"""The folder of one training run: recipe, losses, atomic checkpoints, contact sheets."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from model_zoo.checkpoints import build_generator
from trainer.errors import TrainerError
from trainer.recipe import GeneratorChoice, TrainingRecipe, parse_recipe

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from model_zoo.layers import Generator


CHECKPOINT_KEYS = frozenset(
    {
        "step",
        "generator",
        "average",
        "optimizer",
        "learning_rate_factor",
        "random_state",
        "rollbacks",
        "best",
    }
)
BEST_KEYS = frozenset({"step", "generator", "validation"})

FACTS: dict[str, tuple[type, ...]] = {
    "recipe": (str,),
    "started": (str,),
    "photos": (int,),
    "loss_network": (str,),
    "device": (str,),
    "threads": (int,),
    "precision": (str,),
    "torch": (str,),
    "seconds": (int, float),
}
"""What run.json must say, for the card that export writes."""


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """Paths and files of a run; everything in it can be read after a crash at any moment."""

    folder: Path

    @property
    def recipe_path(self) -> Path:
        return self.folder / "recipe.toml"

    @property
    def checkpoint_path(self) -> Path:
        return self.folder / "checkpoint.pt"

    @property
    def best_path(self) -> Path:
        return self.folder / "best.pt"

    @property
    def evaluation_path(self) -> Path:
        return self.folder / "evaluation.json"

    @property
    def losses_path(self) -> Path:
        return self.folder / "losses.jsonl"

    @property
    def facts_path(self) -> Path:
        return self.folder / "run.json"

    @property
    def tensorboard_path(self) -> Path:
        return self.folder / "tensorboard"

    def sheet_path(self, step: int) -> Path:
        """Contact sheet after ``step`` steps."""
        return self.folder / "sheets" / f"step_{step:06d}.jpg"

    def start(self, recipe: TrainingRecipe, facts: Mapping[str, Any]) -> None:
        """Create the folder and write down the recipe and ``facts`` about this run."""
        try:
            (self.folder / "sheets").mkdir(parents=True, exist_ok=True)
            _write(self.recipe_path, recipe.source)
            _write(self.facts_path, json.dumps(facts, indent=2) + "\n")
            for path in (self.losses_path, self.best_path, self.evaluation_path):
                path.unlink(missing_ok=True)
        except OSError as error:
            raise TrainerError(f"--out {self.folder} cannot be written: {error}") from error

    def recipe(self) -> TrainingRecipe:
        """The recipe that this run was started with.

        Raises:
            TrainerError: the folder holds no run.
        """
        try:
            text = self.recipe_path.read_text(encoding="utf-8")
            name = self.facts()["recipe"]
        except (OSError, UnicodeDecodeError) as error:
            raise TrainerError(f"{self.folder} holds no training run ({error})") from error
        recipe = parse_recipe(text, name=name, where=str(self.recipe_path))
        row = self.facts().get("new_row")
        return recipe if row is None else _of_new_row(recipe, row)

    def facts(self) -> dict[str, Any]:
        """What :meth:`start` and :meth:`add_facts` wrote down."""
        try:
            facts = json.loads(self.facts_path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise TrainerError(f"{self.facts_path} cannot be read: {error}") from error
        if not isinstance(facts, dict):
            raise TrainerError(f"{self.facts_path} is not a JSON object")
        for name, kinds in FACTS.items():
            if not isinstance(facts.get(name), kinds):
                raise TrainerError(f"{self.facts_path}: {name!r} is missing or of a wrong type")
        return facts

    def add_facts(self, **facts: Any) -> None:
        """Add to what is known about this run."""
        _write(self.facts_path, json.dumps(self.facts() | facts, indent=2) + "\n")

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Replace the checkpoint in one step: a crash leaves the old one or the new one."""
        _save(state, self.checkpoint_path)

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The last checkpoint, or None where there is none yet.

        Raises:
            TrainerError: the file is damaged.
        """
        return _load(self.checkpoint_path, CHECKPOINT_KEYS)

    def save_best(self, state: Mapping[str, Any]) -> None:
        """Replace the best generator so far: its ``step``, ``validation`` and weights."""
        _save(state, self.best_path)

    def load_best(self) -> dict[str, Any] | None:
        """The generator of the least validation objective, or None where none was measured yet.

        Raises:
            TrainerError: the file is damaged.
        """
        return _load(self.best_path, BEST_KEYS)

    def trained_generator(self) -> tuple[Generator, int]:
        """The averaged generator of the least validation objective, else of the last step.

        Returns:
            The generator, in evaluation mode, and its steps.

        Raises:
            TrainerError: there is no checkpoint yet, or it does not fit the recipe.
        """
        recipe, checkpoint = self.recipe(), self.load_checkpoint()
        if checkpoint is None:
            raise TrainerError(f"{self.folder} holds no checkpoint yet; train some steps first")
        path, step = self.checkpoint_path, checkpoint["step"]
        # Of the averaged model's state: its counter is not the generator's.
        weights = {
            name.removeprefix("module."): tensor
            for name, tensor in checkpoint["average"].items()
            if name.startswith("module.")
        }
        if (best := self.load_best()) is not None:
            path, step, weights = self.best_path, best["step"], best["generator"]
        generator = build_generator(recipe.generator.name, recipe.generator.arguments)
        try:
            generator.load_state_dict(weights)
        except (RuntimeError, TypeError, AttributeError) as error:
            raise TrainerError(
                f"{path} does not fit {self.recipe_path}; was either changed by hand?"
            ) from error
        return generator.eval().requires_grad_(requires_grad=False), int(step)

    def append_losses(self, line: Mapping[str, Any]) -> None:
        """Add one JSON line to the loss log."""
        with self.losses_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def truncate_losses(self, step: int) -> None:
        """Drop lines later than ``step``: a resumed run writes them again."""
        if not self.losses_path.exists():
            return
        kept = []
        for line in self.losses_path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except (ValueError, KeyError, TypeError):
                continue  # half a line, from a crash while it was written
        _write(self.losses_path, "".join(kept))


def _of_new_row(recipe: TrainingRecipe, row: Mapping[str, Any]) -> TrainingRecipe:
    """What became of ``recipe`` where it was one for a new row; see trainer.shared_network."""
    generator = GeneratorChoice(name=row["generator"], arguments=row["arguments"])
    plan = replace(recipe.optimization, steps=row["steps"], warm_up_steps=row["warm_up_steps"])
    return replace(recipe, generator=generator, optimization=plan)


def _write(path: Path, text: str) -> None:
    """Replace a file in one step: who reads meanwhile, or is killed, finds it whole."""
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _save(state: Mapping[str, Any], path: Path) -> None:
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        torch.save(dict(state), file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _load(path: Path, keys: frozenset[str]) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a foreign pickle may raise anything
        raise TrainerError(f"{path} is damaged; remove it to start this run anew") from error
    if not isinstance(state, dict) or not state.keys() >= keys:
        raise TrainerError(f"{path} is not of this trainer, or of another version of it")
    return state
