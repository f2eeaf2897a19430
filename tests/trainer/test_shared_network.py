"""One network for several styles: trained together, exported together, grown by a row."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from model_zoo.cards import Manifest
from model_zoo.checkpoints import load_generator, load_style
from model_zoo.generators.fast import fast
from tests.trainer.conftest import RECIPE
from trainer.__main__ import main
from trainer.drafts import StyleDraft
from trainer.errors import TrainerError
from trainer.export import ExportOptions, export, write_style
from trainer.identity import IdentityLoss
from trainer.loss_network import load_loss_network
from trainer.recipe import parse_recipe, read_recipe
from trainer.runs import TrainingRun
from trainer.train import TrainingOptions, train

if TYPE_CHECKING:
    from pathlib import Path

STYLE = """\
[[styles]]
style_id = "{0}-mix"
stands_for = "{0}"
title = "{0}"
artist = "A mason"
year = "1950"
picture = "style.png"
picture_license = "CC0-1.0"
size_px = {1}

"""
SHARED = (
    STYLE.format("bricks", 96)
    + STYLE.format("tiles", 80)
    + RECIPE[RECIPE.index("[generator]") :].replace(
        '"johnson_half"', '"conditional"\narguments = { rows = 3 }'
    )
)


def state(generator: Any) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = generator.state_dict()
    return weights


@pytest.fixture
def options(
    tmp_path: Path, recipe_file: Path, photo_folder: Path, loss_network_file: Path
) -> TrainingOptions:
    style = recipe_file.parent / "style.png"
    return TrainingOptions(
        photos=photo_folder,
        loss_network=loss_network_file,
        style_pictures=(style, style),
        out=tmp_path / "run",
        zoo=tmp_path / "zoo",
        device="cpu",
        sheet_every=1000,
        log_every=1,
    )


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """Holds ``bricks``, a style of ``fast``."""
    torch.manual_seed(1)
    draft = StyleDraft(
        style_id="bricks",
        title="Bricks",
        artist="A mason",
        year="1950",
        description="",
        generator="fast",
        arguments={},
        picture_license="CC0-1.0",
        weights_license="Apache-2.0",
        recipe="",
        training={},
    )
    write_style(tmp_path / "zoo", draft, fast())
    return tmp_path / "zoo"


@pytest.fixture
def shared_zoo(zoo: Path, options: TrainingOptions) -> Path:
    """The same, and two styles of one network."""
    train(parse_recipe(SHARED, name="shared", where="shared.toml"), options)
    export(ExportOptions(run=options.out, style_id=None, zoo=zoo))
    return zoo


def test_styles_of_one_run_share_its_weights_and_stand_for_others(shared_zoo: Path) -> None:
    manifest = Manifest.read(shared_zoo)
    manifest.verify()

    bricks, tiles = manifest.card("bricks-mix"), manifest.card("tiles-mix")
    assert [card.style_id for card in manifest] == ["bricks", "bricks-mix", "tiles-mix"]
    assert bricks.weights == tiles.weights
    assert bricks.weights.startswith("weights/shared-")
    assert (bricks.style_row, tiles.style_row) == (1, 2)
    assert bricks.preview != tiles.preview
    assert manifest.card("bricks").mixes_as == "bricks-mix"
    assert len(list((shared_zoo / "weights").iterdir())) == 2
    photo = torch.rand(1, 3, 48, 48)
    painted = [load_style(manifest, card)(photo) for card in (bricks, tiles)]
    assert not torch.equal(*painted)


def test_every_row_learns_in_turn_and_the_identity_is_no_validation(
    options: TrainingOptions,
) -> None:
    recipe = parse_recipe(SHARED, name="shared", where="shared.toml")
    train(recipe, options)

    lines = TrainingRun(options.out).losses_path.read_text().splitlines()
    assert ["content/pixels" in line for line in lines][:6] == [True, False, False] * 2
    assert "validation" in lines[-1]
    generator, _ = TrainingRun(options.out).trained_generator()
    rows = state(generator)["rows"]
    assert len({tuple(row.tolist()) for row in rows}) == 3


def test_new_row_leaves_the_network_and_its_styles_as_they_were(
    shared_zoo: Path, options: TrainingOptions, recipe_file: Path, tmp_path: Path
) -> None:
    before = Manifest.read(shared_zoo)
    photo = torch.rand(1, 3, 48, 48)
    painted = load_style(before, before.card("tiles-mix"))(photo)
    grow = replace(
        options,
        out=tmp_path / "row",
        style_pictures=options.style_pictures[:1],
        add_to="tiles-mix",
    )
    recipe = read_recipe(recipe_file)
    recipe = replace(recipe, optimization=replace(recipe.optimization, steps=20))

    train(recipe, grow)
    run = TrainingRun(grow.out)
    assert run.recipe().optimization.steps == 2
    (card,) = export(ExportOptions(run=grow.out, style_id="walls-mix", zoo=shared_zoo))

    after = Manifest.read(shared_zoo)
    after.verify()
    assert card.style_row == 3
    assert {c.weights for c in after if c.style_row} == {card.weights}
    assert card.weights != before.card("tiles-mix").weights
    assert not before.weights_path(before.card("tiles-mix")).exists()
    assert after.card("bricks").mixes_as == "bricks-mix"
    assert torch.equal(load_style(after, after.card("tiles-mix"))(photo), painted)
    rows = state(load_style(after, card))["rows"]
    assert not torch.equal(rows[3], rows[1:3].mean(0))


def test_new_row_resumes_where_it_stopped(
    shared_zoo: Path, options: TrainingOptions, recipe_file: Path, tmp_path: Path
) -> None:
    recipe = read_recipe(recipe_file)
    recipe = replace(recipe, optimization=replace(recipe.optimization, steps=40))
    grow = replace(
        options, out=tmp_path / "a", style_pictures=options.style_pictures[:1], zoo=shared_zoo,
        add_to="bricks-mix", checkpoint_every=2,
    )  # fmt: skip
    train(recipe, grow)
    whole = state(TrainingRun(grow.out).trained_generator()[0])
    train(recipe, replace(grow, resume=True))
    assert all(
        torch.equal(tensor, whole[name])
        for name, tensor in state(TrainingRun(grow.out).trained_generator()[0]).items()
    )


def test_row_of_a_network_that_has_changed_is_not_exported(
    shared_zoo: Path, options: TrainingOptions, recipe_file: Path, tmp_path: Path
) -> None:
    grow = replace(
        options, out=tmp_path / "row", style_pictures=options.style_pictures[:1], add_to="tiles-mix"
    )
    train(read_recipe(recipe_file), grow)
    export(ExportOptions(run=grow.out, style_id="walls-mix", zoo=shared_zoo))

    with pytest.raises(TrainerError, match="no longer in the zoo; train the row again"):
        export(ExportOptions(run=grow.out, style_id="again-mix", zoo=shared_zoo))


def test_row_cannot_be_added_to_a_style_with_a_network_of_its_own(
    zoo: Path, options: TrainingOptions, recipe_file: Path
) -> None:
    with pytest.raises(TrainerError, match=r"it has a network of its own.*none of this zoo"):
        train(read_recipe(recipe_file), replace(options, add_to="bricks", zoo=zoo))


def test_started_from_a_style_of_fast_it_paints_like_it(
    zoo: Path, options: TrainingOptions
) -> None:
    recipe = parse_recipe(SHARED, name="shared", where="shared.toml")
    slow = replace(recipe, optimization=replace(recipe.optimization, steps=1, learning_rate=1e-9))
    train(slow, replace(options, init="bricks"))

    photo = torch.rand(1, 3, 48, 48)
    generator, _ = TrainingRun(options.out).trained_generator()
    card = Manifest.read(zoo).card("bricks")
    source = load_generator(zoo / card.weights, "fast", {})
    assert (generator(photo) - source(photo)).abs().max() < 1e-3


def test_several_styles_have_ids_of_their_own(zoo: Path, options: TrainingOptions) -> None:
    train(parse_recipe(SHARED, name="shared", where="shared.toml"), options)

    with pytest.raises(TrainerError, match="ids of their own; leave --style-id out"):
        export(ExportOptions(run=options.out, style_id="both", zoo=zoo))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("rows = 3", "rows = 4"), r"rows = 4 must be 3"),
        (('"tiles-mix"', '"bricks-mix"'), "a style_id of its own"),
        (('"conditional"\narguments = { rows = 3 }', '"fast"'), "need generator.name"),
        (("[[styles]]", "[style]\nsize_px = 8\n[[styles]]"), r"write \[style\], or \[\[styles"),
        (("size_px = 80", "size_px = 0"), "style.size_px of tiles-mix = 0 must be greater"),
    ],
)
def test_shared_recipe_that_is_wrong_says_where(change: tuple[str, str], message: str) -> None:
    with pytest.raises(TrainerError, match=message):
        parse_recipe(SHARED.replace(*change, 1), name="shared", where="shared.toml")


def test_recipe_of_one_of_its_styles_has_that_alone() -> None:
    recipe = parse_recipe(SHARED, name="shared", where="shared.toml")

    assert recipe.of_style("tiles-mix").style.size_px == 80
    with pytest.raises(TrainerError, match="no style 'walls'"):
        recipe.of_style("walls")


def test_identity_is_met_by_the_photograph_and_by_nothing_else(loss_network_file: Path) -> None:
    loss = IdentityLoss(load_loss_network(loss_network_file), ("relu2_2",))
    photos = torch.rand(2, 3, 64, 64)
    targets = loss.content_targets(photos)

    met, missed = (loss(x, targets).objective for x in (photos, photos * 0.5))

    assert met.tolist() == [0, 0]
    assert missed.min() > 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--add-style=bricks-mix", "--init=bricks"], "no --init beside it"),
        (["--style-picture=style.png"], "has 2 styles; --style-picture is for one"),
        (["--add-style=bricks-mix"], "takes a recipe of one style"),
    ],
)
def test_options_for_one_style_and_for_several_do_not_mix(
    recipe_file: Path,
    photo_folder: Path,
    loss_network_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    shared = recipe_file.with_name("shared.toml")
    shared.write_text(SHARED, encoding="utf-8")
    inputs = [f"--photos={photo_folder}", f"--loss-network={loss_network_file}"]

    assert main(["train", str(shared), *inputs, f"--out={tmp_path / 'run'}", *arguments]) == 2

    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
