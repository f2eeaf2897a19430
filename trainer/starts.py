"""Where a training starts: from nothing, or from the weights of a style."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model_zoo.cards import Manifest, StyleCard, ZooError
from model_zoo.checkpoints import build_generator, load_generator
from model_zoo.generators.conditional import ConditionalGenerator
from trainer.errors import TrainerError

if TYPE_CHECKING:
    from pathlib import Path

    from model_zoo.layers import Generator
    from trainer.recipe import GeneratorChoice


def start_generator(choice: GeneratorChoice, init: str | None, zoo: Path) -> Generator:
    """A new generator, or where ``init`` names a style of ``zoo``, one that paints like it.

    A conditional generator also starts from a style of ``fast``, in every row.

    Raises:
        TrainerError: the style's weights do not fit.
    """
    if init is None:
        return build_generator(choice.name, choice.arguments)
    manifest = Manifest.read(zoo)
    card = manifest.card(init)
    try:
        generator = _warm(choice, card, manifest)
    except ZooError as error:
        raise TrainerError(f"--init {init} does not fit the recipe: {error}") from error
    return generator.requires_grad_()


def _warm(choice: GeneratorChoice, card: StyleCard, manifest: Manifest) -> Generator:
    path = manifest.weights_path(card)
    if card.generator == "fast":
        generator = build_generator(choice.name, choice.arguments)
        if isinstance(generator, ConditionalGenerator):
            generator.start_from(load_generator(path, "fast", card.arguments).state_dict())
            return generator
    return load_generator(path, choice.name, choice.arguments)
