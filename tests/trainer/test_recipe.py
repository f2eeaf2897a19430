import math
from pathlib import Path

import pytest

from tests.trainer.conftest import RECIPE
from trainer.errors import TrainerError
from trainer.recipe import parse_recipe, read_recipe

SHIPPED = sorted((Path(__file__).parents[2] / "trainer/recipes").rglob("*.toml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_recipe_is_valid(path: Path) -> None:
    assert read_recipe(path).name == path.stem


def test_recipe_holds_what_the_file_says() -> None:
    recipe = parse_recipe(RECIPE, name="bricks", where="bricks.toml")

    assert recipe.loss.style_scales == (1.0, 0.5)
    assert recipe.optimization.steps == 6
    assert recipe.generator.arguments == {}
    assert recipe.source == RECIPE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("steps = 6", "stesp = 6"), r"\[optimization\]: unknown key 'stesp'; known: steps"),
        (("steps = 6\n", ""), r"\[optimization\]: steps missing"),
        (("steps = 6", "steps = 6.5"), "steps = 6.5 must be a whole number"),
        (("steps = 6", "steps = 0"), "optimization.steps = 0 must be greater than 0"),
        (("steps = 6", "steps = true"), "must be a whole number"),
        (("= 1e-3", '= "fast"'), "learning_rate = 'fast' must be a number"),
        (("= 1e-3", "= nan"), "must be a number"),
        (('"cosine"', '"sine"'), "must be one of cosine, step, constant"),
        (("[data]", "[date]"), "unknown key 'date'"),
        (("style_weight = 5.0", "style_weight = -5.0"), "must not be negative"),
        (("[1.0, 0.5]", "[]"), "at least one entry"),
        (("[1.0, 0.5]", "[2.0]"), "must not exceed 1"),
        (("crop_px = 64", "crop_px = 8"), "at least 64"),
        (('"johnson_half"', '"resnet"'), "no generator 'resnet'; there are: conditional, fast"),
        (('"johnson_half"', '"johnson_half"\narguments = {depth = 3}'), "depth"),
        (("[style]", "[style"), "not valid TOML"),
    ],
)
def test_when_the_recipe_is_wrong_then_one_line_says_where(
    change: tuple[str, str], message: str
) -> None:
    with pytest.raises(TrainerError, match=message) as caught:
        parse_recipe(RECIPE.replace(*change), name="bricks", where="bricks.toml")

    assert str(caught.value).startswith("bricks.toml")


def test_when_the_file_is_absent_then_names_it(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match=r"gone\.toml cannot be read"):
        read_recipe(tmp_path / "gone.toml")


def test_cosine_schedule_warms_up_and_falls_to_zero() -> None:
    text = RECIPE.replace("seed = 5", "warm_up_steps = 2").replace("steps = 6", "steps = 12")
    plan = parse_recipe(text, name="r", where="r").optimization

    rates = [plan.learning_rate_at(step) for step in range(12)]

    assert rates[0] == pytest.approx(0.5e-3)
    assert rates[2] == pytest.approx(1e-3)
    assert rates[7] == pytest.approx(1e-3 * (1 + math.cos(math.pi / 2)) / 2)
    assert rates[2:] == sorted(rates[2:], reverse=True)


def test_step_schedule_multiplies_every_so_many_steps() -> None:
    text = RECIPE.replace('"cosine"', '"step"\ndecay_factor = 0.8\ndecay_every = 2')
    plan = parse_recipe(text, name="r", where="r").optimization

    rates = [plan.learning_rate_at(step) for step in range(5)]

    assert rates == pytest.approx([1e-3, 1e-3, 0.8e-3, 0.8e-3, 0.64e-3])
