"""SharedNetwork: a conditional network of a zoo, to which a new style is added as a row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from model_zoo.cards import Manifest, StyleCard
from model_zoo.checkpoints import build_generator, load_generator
from model_zoo.generators.conditional import IDENTITY_ROW, ConditionalGenerator
from trainer.errors import TrainerError
from trainer.recipe import GeneratorChoice

if TYPE_CHECKING:
    from pathlib import Path

    from trainer.recipe import TrainingRecipe

SHARE_OF_STEPS = 10
"""A new row needs a tenth of the steps that a network does (Dumoulin et al. 2017, section 3.2)."""


@dataclass(frozen=True, slots=True)
class SharedNetwork:
    """The network that ``card`` is a row of."""

    manifest: Manifest
    card: StyleCard

    @classmethod
    def of_style(cls, style_id: str, zoo: Path) -> SharedNetwork:
        """The network of a style.

        Raises:
            ZooError: there is no such style.
            TrainerError: it is no row of a network.
        """
        manifest = Manifest.read(zoo)
        card = manifest.card(style_id)
        if not card.style_row:
            able = [other.style_id for other in manifest if other.style_row]
            raise TrainerError(
                f"--add-style {style_id}: it has a network of its own, to which no row can be "
                f"added; those of shared networks are {', '.join(able) or 'none of this zoo'}"
            )
        return cls(manifest, card)

    @property
    def new_row(self) -> int:
        """The number of the row to come, which is also how many there are."""
        return int(self.card.arguments["rows"])

    @property
    def arguments(self) -> dict[str, Any]:
        """Those of the generator with the new row."""
        return {**self.card.arguments, "rows": self.new_row + 1}

    def recipe_of_new_row(self, recipe: TrainingRecipe) -> TrainingRecipe:
        """``recipe`` with this network's generator, and a tenth of its steps."""
        plan = recipe.optimization
        steps = max(1, plan.steps // SHARE_OF_STEPS)
        return replace(
            recipe,
            generator=GeneratorChoice(name=self.card.generator, arguments=self.arguments),
            optimization=replace(
                plan, steps=steps, warm_up_steps=plan.warm_up_steps // SHARE_OF_STEPS
            ),
        )

    def facts_of_new_row(self, recipe: TrainingRecipe) -> dict[str, Any]:
        """What a run must know to be resumed and exported; ``recipe`` is that of the new row."""
        row = {
            "generator": recipe.generator.name,
            "arguments": dict(recipe.generator.arguments),
            "steps": recipe.optimization.steps,
            "warm_up_steps": recipe.optimization.warm_up_steps,
            "network_sha256": self.card.sha256,
        }
        return {"init": self.card.style_id, "new_row": row}

    def with_new_row(self) -> ConditionalGenerator:
        """The generator with one row more, the mean of its styles, and only rows to be learnt.

        Raises:
            ZooError: its weights cannot be loaded.
        """
        path = self.manifest.weights_path(self.card)
        old = load_generator(path, self.card.generator, self.card.arguments)
        new = build_generator(self.card.generator, self.arguments)
        if not isinstance(old, ConditionalGenerator) or not isinstance(new, ConditionalGenerator):
            raise TrainerError(f"--add-style: generator {self.card.generator!r} has no rows")
        weights = old.state_dict()
        weights["rows"] = new.rows.data
        weights["rows"][: self.new_row] = old.rows
        weights["rows"][self.new_row] = old.rows[IDENTITY_ROW + 1 :].mean(0)
        new.load_state_dict(weights)
        new.requires_grad_(requires_grad=False)
        new.rows.requires_grad_()
        return new
