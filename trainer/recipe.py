"""TrainingRecipe: everything that decides how a style is trained, read from one TOML file."""

from __future__ import annotations

import math
import os
import re
import tomllib
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from model_zoo.cards import ZooError
from model_zoo.checkpoints import build_generator
from trainer.errors import TrainerError
from trainer.losses import LossWeights

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

RECIPES = Path(__file__).parent / "recipes"
"""One file a shipped style."""
PRESETS = RECIPES / "presets"
"""Recipes without a picture of their own."""

Schedule = Literal["cosine", "step", "constant"]
Section = TypeVar("Section")


@dataclass(frozen=True, slots=True, kw_only=True)
class StylePicture:
    """The painting: its file, the size at which it is shown to the loss network, its credits.

    A preset names no picture; the command line does then. ``style_id`` is that of a zoo, for styles
    of one network, and ``stands_for`` that of the style which it is painted for in mixtures.
    """

    size_px: int
    picture: str = ""
    title: str = ""
    artist: str = ""
    year: str = ""
    picture_license: str = ""
    description: str = ""
    style_id: str = ""
    stands_for: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorChoice:
    """A key of GENERATORS and the arguments of its builder."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """Square crops of ``crop_px``, ``batch_size`` of them a step."""

    crop_px: int
    batch_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimization:
    """Adam's steps and learning rate.

    ``cosine`` falls to zero at the last step; ``step`` multiplies by ``decay_factor`` after every
    ``decay_every`` steps; either rises linearly over the first ``warm_up_steps``. What is exported
    is the exponential moving average of the weights with ``average_decay`` a step; 0 for none.
    ``droplet_weight`` weighs what keeps even patches and lenses away, ``grid_weight`` and
    ``range_weight`` grids and clipped colours; see trainer.droplets and trainer.faults.
    """

    steps: int
    learning_rate: float
    schedule: Schedule
    seed: int = 0
    warm_up_steps: int = 0
    decay_factor: float = 1.0
    decay_every: int = 1
    gradient_clip: float = math.inf
    average_decay: float = 0.0
    droplet_weight: float = 0.0
    grid_weight: float = 0.0
    range_weight: float = 0.0

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of the step of this number, counted from 0."""
        if step < self.warm_up_steps:
            return self.learning_rate * (step + 1) / self.warm_up_steps
        if self.schedule == "cosine":
            progress = (step - self.warm_up_steps) / max(1, self.steps - self.warm_up_steps)
            return self.learning_rate * (1 + math.cos(math.pi * progress)) / 2
        if self.schedule == "step":
            return float(self.learning_rate * self.decay_factor ** (step // self.decay_every))
        return self.learning_rate


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRecipe:
    """One recipe; ``source`` is its text, kept so that a run can be trained again.

    It has one style, or for a conditional generator as many as that has rows, less the identity's.
    """

    name: str
    source: str = field(repr=False)
    styles: tuple[StylePicture, ...]
    generator: GeneratorChoice
    loss: LossWeights
    data: TrainingData
    optimization: Optimization

    @property
    def style(self) -> StylePicture:
        """The one style, or the first."""
        return self.styles[0]

    def of_style(self, style_id: str) -> TrainingRecipe:
        """This recipe for one of its styles alone; of those with one style, itself.

        Raises:
            TrainerError: it has several, and none of that id.
        """
        if len(self.styles) == 1:
            return self
        for style in self.styles:
            if style.style_id == style_id:
                return replace(self, styles=(style,))
        raise TrainerError(f"recipe {self.name} has no style {style_id!r}")


_SECTIONS: dict[str, type[Any]] = {
    "generator": GeneratorChoice,
    "loss": LossWeights,
    "data": TrainingData,
    "optimization": Optimization,
}


def recipe_path(name: str) -> Path:
    """The file that ``name`` means: itself, or the preset of that name."""
    preset = PRESETS / f"{name}.toml"
    return preset if re.fullmatch(r"[a-z0-9_]+", name) and preset.is_file() else Path(name)


def find_recipe(name: str) -> TrainingRecipe:
    """Read the recipe that ``name`` means, a file or a preset.

    Raises:
        TrainerError: as :func:`read_recipe`.
    """
    path = recipe_path(name)
    if not path.suffix and not os.path.exists(path):  # noqa: PTH110  # takes any name
        presets = ", ".join(sorted(p.stem for p in PRESETS.glob("*.toml")))
        raise TrainerError(f"{name!r} is neither a recipe's file nor a preset; there are {presets}")
    return read_recipe(path)


def read_recipe(path: Path) -> TrainingRecipe:
    """Read and check a recipe.

    Raises:
        TrainerError: the file cannot be read, a key is unknown, missing or of the wrong type, or
            a value is out of range; the message names the file and the key.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin a file with a mark
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TrainerError(f"recipe {path} cannot be read: {reason}") from error
    return parse_recipe(text, name=path.stem, where=str(path))


def parse_recipe(text: str, *, name: str, where: str) -> TrainingRecipe:
    """Check the text of a recipe; ``where`` begins every error message.

    Raises:
        TrainerError: as :func:`read_recipe`.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TrainerError(f"{where}: is not valid TOML: {error}") from error
    styles = _styles(document, where)
    for key in document:
        if key not in _SECTIONS:
            known = ", ".join(("style", *_SECTIONS))
            raise TrainerError(f"{where}: unknown key {key!r}; sections are {known}")
    sections = {
        key: _section(kind, document.get(key), f"{where}: [{key}]")
        for key, kind in _SECTIONS.items()
    }
    recipe = TrainingRecipe(name=name, source=text, styles=styles, **sections)
    try:
        _check_ranges(recipe)
    except (ValueError, ZooError) as error:
        raise TrainerError(f"{where}: {error}") from error
    return recipe


def _styles(document: dict[str, Any], where: str) -> tuple[StylePicture, ...]:
    """Take ``[style]`` or ``[[styles]]`` out of a recipe."""
    one, several = document.pop("style", None), document.pop("styles", None)
    if several is None:
        return (_section(StylePicture, one, f"{where}: [style]"),)
    if one is not None or not isinstance(several, list) or not several:
        raise TrainerError(f"{where}: write [style], or [[styles]] once for each of several")
    return tuple(
        _section(StylePicture, table, f"{where}: [[styles]] number {number}")
        for number, table in enumerate(several, 1)
    )


def _section(kind: type[Section], table: Any, where: str) -> Section:
    if not isinstance(table, dict):
        raise TrainerError(f"{where} is missing")
    annotations = {f.name: str(f.type) for f in fields(kind)}  # type: ignore[arg-type]
    values = {}
    for key, value in table.items():
        if key not in annotations:
            raise TrainerError(f"{where}: unknown key {key!r}; known: {', '.join(annotations)}")
        try:
            values[key] = _COERCIONS[annotations[key]](value)
        except (TypeError, ValueError) as error:
            raise TrainerError(f"{where}: {key} = {value!r} {error}") from error
    try:
        return kind(**values)
    except TypeError as error:
        missing = re.findall(r"'(\w+)'", str(error))
        raise TrainerError(f"{where}: {', '.join(missing)} missing") from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("must be a string")
    return value


def _integer(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError("must be a whole number")
    return value


def _number(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or math.isnan(value):
        raise TypeError("must be a number")
    return float(value)


def _table(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("must be a table")
    return value


def _one_of(*choices: str) -> Callable[[Any], str]:
    def coerce(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return str(value)

    return coerce


def _list_of(item: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, ...]]:
    def coerce(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list) or not value:
            raise TypeError("must be a list with at least one entry")
        return tuple(item(entry) for entry in value)

    return coerce


_COERCIONS: dict[str, Callable[[Any], Any]] = {
    "str": _text,
    "int": _integer,
    "float": _number,
    "Schedule": _one_of("cosine", "step", "constant"),
    "LossKind": _one_of("relative", "absolute"),
    "Mapping[str, Any]": _table,
    "tuple[str, ...]": _list_of(_text),
    "tuple[float, ...]": _list_of(_number),
}


def _check_ranges(recipe: TrainingRecipe) -> None:
    """Raise ValueError or ZooError where a value makes no sense."""
    _check_rows(recipe)
    sizes = {
        f"style.size_px{' of ' * bool(s.style_id)}{s.style_id}": s.size_px for s in recipe.styles
    }
    positive = {
        **sizes,
        "data.batch_size": recipe.data.batch_size,
        "optimization.steps": recipe.optimization.steps,
        "optimization.learning_rate": recipe.optimization.learning_rate,
        "optimization.decay_factor": recipe.optimization.decay_factor,
        "optimization.decay_every": recipe.optimization.decay_every,
        "optimization.gradient_clip": recipe.optimization.gradient_clip,
        **{f"loss.style_scales[{i}]": s for i, s in enumerate(recipe.loss.style_scales)},
    }
    not_negative = {
        "optimization.seed": recipe.optimization.seed,
        "optimization.warm_up_steps": recipe.optimization.warm_up_steps,
        "optimization.droplet_weight": recipe.optimization.droplet_weight,
        "optimization.grid_weight": recipe.optimization.grid_weight,
        "optimization.range_weight": recipe.optimization.range_weight,
        "loss.content_weight": recipe.loss.content_weight,
        "loss.style_weight": recipe.loss.style_weight,
        "loss.total_variation_weight": recipe.loss.total_variation_weight,
    }
    for key, value in positive.items():
        if value <= 0:
            raise ValueError(f"{key} = {value} must be greater than 0")
    for key, value in not_negative.items():
        if value < 0:
            raise ValueError(f"{key} = {value} must not be negative")
    for key, (value, most) in {
        **{key: (size_px, 8192) for key, size_px in sizes.items()},
        "data.crop_px": (recipe.data.crop_px, 4096),
        "data.batch_size": (recipe.data.batch_size, 1024),
        "optimization.steps": (recipe.optimization.steps, 10**9),
        "optimization.learning_rate": (recipe.optimization.learning_rate, 10),
        "optimization.seed": (recipe.optimization.seed, 2**63 - 1),
    }.items():
        if value > most:
            raise ValueError(f"{key} = {value} must be at most {most}")
    if not 0 <= recipe.optimization.average_decay < 1:
        decay = recipe.optimization.average_decay
        raise ValueError(f"optimization.average_decay = {decay} must be at least 0 and below 1")
    if recipe.data.crop_px < 64:
        raise ValueError(f"data.crop_px = {recipe.data.crop_px} must be at least 64")
    if max(recipe.loss.style_scales) > 1:
        raise ValueError("loss.style_scales must not exceed 1")
    build_generator(recipe.generator.name, recipe.generator.arguments)


def _check_rows(recipe: TrainingRecipe) -> None:
    """Raise ValueError where styles and rows do not go together."""
    ids = [style.style_id for style in recipe.styles]
    if recipe.generator.name != "conditional":
        if len(ids) > 1:
            raise ValueError(
                f"[[styles]] need generator.name = 'conditional', not {recipe.generator.name!r}"
            )
        return
    rows = recipe.generator.arguments.get("rows")
    if rows != len(ids) + 1:
        raise ValueError(
            f"generator.arguments.rows = {rows} must be {len(ids) + 1}: "
            "one for each of [[styles]] and one for the identity"
        )
    if "" in ids or len(set(ids)) < len(ids):
        raise ValueError("each of [[styles]] needs a style_id of its own")
