"""`zoo-check`: gates, cards that say what is measured, references that need no measuring again."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from PIL import Image
from skimage import data as skimage_data

from model_zoo.cards import Manifest
from model_zoo.checkpoints import build_generator
from tests.trainer.conftest import RECIPE
from trainer.__main__ import main
from trainer.drafts import StyleDraft
from trainer.export import write_style
from trainer.manifest_writer import write_manifest
from trainer.references import read_references, write_references
from trainer.zoo_check import differences

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Check = Callable[..., int]

GENEROUS = {
    "MEAN_GAP": 99.0,
    "WORST_GAP": 99.0,
    "CHECKERBOARD_MARGIN": 99.0,
    "BORDER_FACTOR": 99.0,
    "FLAT_MARGIN": 1.0,
    "CLIPPED": 1.0,
    "CONTRAST_CHANGE": 255.0,
    "TIMES_NEARER": 0.0,
}

STYLES = {"bricks": "bricks.toml", "bricks-hq": "bricks.toml", "gravel": "gravel.toml"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zoo of untrained styles, two of one painting; recipes, paintings and two photographs."""
    folder = tmp_path_factory.mktemp("made")
    for name in ("paintings", "photos", "recipes"):
        (folder / name).mkdir()
    for name in ("brick", "gravel"):
        texture = Image.fromarray(getattr(skimage_data, name)()).convert("RGB")
        texture.resize((128, 112)).save(folder / f"paintings/{name}.png")
    for name in ("astronaut", "rocket"):
        photo = Image.fromarray(getattr(skimage_data, name)())
        photo.resize((80, 64)).save(folder / f"photos/{name}.png")
    for recipe, picture in (("bricks", "brick.png"), ("gravel", "gravel.png")):
        text = RECIPE.replace("style.png", picture)
        (folder / f"recipes/{recipe}.toml").write_text(text, encoding="utf-8")
    for seed, (style_id, recipe) in enumerate(STYLES.items()):
        torch.manual_seed(seed)
        draft = StyleDraft(
            style_id=style_id,
            title=style_id.title(),
            artist="A mason",
            year="1950",
            description="",
            generator="johnson_half",
            arguments={},
            picture_license="CC0-1.0",
            weights_license="Apache-2.0",
            recipe=recipe,
            training={"steps": 6},
        )
        generator = build_generator("johnson_half", {}).eval()
        photo = folder / "paintings/brick.png"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("trainer.previews.PREVIEW_SIDE_PX", 64)  # sooner painted
            write_style(folder / "zoo", draft, generator, preview_photo=photo)
    return folder


@pytest.fixture
def zoo(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made / "zoo", tmp_path / "zoo")


@pytest.fixture
def check(
    made: Path,
    zoo: Path,
    loss_network_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Check:
    """Run the command with quick settings; options given replace these."""
    monkeypatch.setattr("trainer.commands.arguments.RECIPES", made / "recipes")
    settings = {
        "--zoo": zoo,
        "--photos": made / "photos",
        "--loss-network": loss_network_file,
        "--paintings": made / "paintings",
        "--size-px": 80,
        "--evaluations": 2,
        "--references": tmp_path / "references",
        "--known-references": tmp_path / "known.json",
        "--threads": 1,
    }

    def run(*arguments: str, **changes: object) -> int:
        changed = settings | {f"--{k.replace('_', '-')}": v for k, v in changes.items()}
        return main(["zoo-check", *arguments, *(f"{k}={v}" for k, v in changed.items())])

    return run


@pytest.fixture
def generous(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gates that untrained styles hold, but for the one between paintings."""
    for name, value in GENEROUS.items():
        monkeypatch.setattr(f"trainer.gates.{name}", value)


def last_line(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return document


def change_quality(zoo: Path, **figures: float) -> None:
    manifest = Manifest.read(zoo)
    cards = tuple(replace(card, quality={**card.quality, **figures}) for card in manifest)
    write_manifest(Manifest(zoo, cards))


def keep_only(zoo: Path, *style_ids: str) -> None:
    manifest = Manifest.read(zoo)
    write_manifest(Manifest(zoo, tuple(manifest.card(style_id) for style_id in style_ids)))


@pytest.mark.usefixtures("generous")
def test_what_was_written_is_what_the_next_check_finds(
    check: Check, zoo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep_only(zoo, "bricks", "bricks-hq")
    assert check("--write") == 0

    assert check() == 0

    document = last_line(capsys)
    results = {result.pop("style_id"): result for result in document["results"]}
    for card in Manifest.read(zoo):
        assert dict(card.quality).items() <= results[card.style_id].items()
        assert card.quality["photographs"] == 2
    # They share a painting, so there is no other that they could be mistaken for.
    assert "other_style_distance" not in results["bricks"]
    names = [check["name"] for check in document["checks"]]
    assert "bricks.mean_gap" in names
    assert "bricks-hq.card" in names
    assert all(check["holds"] for check in document["checks"])


@pytest.mark.usefixtures("generous")
def test_a_card_without_figures_or_with_others_fails_and_names_them(
    check: Check, zoo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep_only(zoo, "bricks")
    assert check() == 1
    assert "bricks: card says nothing" in capsys.readouterr().out

    assert check("--write") == 0
    border = Manifest.read(zoo).card("bricks").quality["border"]
    change_quality(zoo, border=border + 0.019)
    assert check() == 0
    change_quality(zoo, border=border + 0.1)
    capsys.readouterr()
    assert check() == 1
    output = capsys.readouterr()
    assert f"bricks: card says border {border + 0.1}, measured {border}" in output.out
    assert output.err.splitlines()[-1] == "error: zoo-check: 1 of its demands are not met"


def test_a_style_that_misses_its_gates_fails_with_both_numbers(
    check: Check, zoo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check("gravel", "--write") == 1

    output = capsys.readouterr().out
    quality = Manifest.read(zoo).card("gravel").quality  # true, if not good
    assert f"gravel: mean_gap {quality['mean_gap']} > 0.5 (by " in output
    assert "FAILS: gap worst" in output
    gates = {check["name"]: check for check in json.loads(output.splitlines()[-1])["checks"]}
    assert gates["gravel.mean_gap"]["bound"] == {"most": 0.5}
    assert gates["gravel.mean_gap"]["value"] == quality["mean_gap"]
    assert not gates["gravel.mean_gap"]["holds"]
    assert gates["gravel.style_distance"]["bound"] == {"most": quality["other_style_distance"]}
    assert not Manifest.read(zoo).card("bricks").quality


def test_references_once_known_are_not_measured_again(
    check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = tmp_path / "known.json"
    check("--write")
    before = read_references(known)
    assert sorted(r.photograph for r in before.values()) == ["astronaut"] * 2 + ["rocket"] * 2
    stray = next(iter(before.values()))
    write_references(known, before | {"0" * 32: stray})
    shutil.rmtree(tmp_path / "references")

    def no_time(*_: object, **__: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr("trainer.references.optimize", no_time)
    # A check of one style keeps what the others need, and drops what none does.
    check("gravel", "--write")

    assert read_references(known) == before
    with pytest.raises(AssertionError, match="measured again"):
        check("--measure-anew")


@pytest.mark.usefixtures("check")
def test_beside_a_zoo_of_ones_own_the_shipped_references_stay_as_they_are(
    made: Path,
    zoo: Path,
    loss_network_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shipped = tmp_path / "shipped.json"
    monkeypatch.setattr("trainer.references.SHIPPED_REFERENCES", shipped)
    options = {"zoo": zoo, "photos": made / "photos", "paintings": made / "paintings"}
    options |= {"loss-network": loss_network_file, "references": tmp_path, "size-px": 80}
    arguments = [f"--{name}={value}" for name, value in options.items()]
    main(["zoo-check", "gravel", "--write", "--evaluations=2", "--threads=1", *arguments])

    assert Manifest.read(zoo).card("gravel").quality
    assert not shipped.exists()


@pytest.mark.parametrize(
    ("style", "changes", "message"),
    [
        ("gone", {}, "no style 'gone'"),
        ("gravel", {"photos": "gone"}, "photo folder gone does not exist"),
        ("gravel", {"loss_network": "gone"}, "gone"),
        ("gravel", {"paintings": "gone"}, "gravel.png cannot be read|brick.png cannot be read"),
        ("gravel", {"zoo": "gone"}, "cannot be read"),
    ],
)
def test_when_something_is_missing_then_one_line_and_exit_code_2(
    check: Check,
    capsys: pytest.CaptureFixture[str],
    style: str,
    changes: dict[str, str],
    message: str,
) -> None:
    assert check(style, **changes) == 2

    errors = capsys.readouterr().err
    assert re.search(message, errors)
    assert errors.count("\n") == 1


def test_a_style_whose_recipe_is_not_ours_is_exit_code_2(
    check: Check, zoo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = Manifest.read(zoo)
    card = replace(manifest.card("gravel"), recipe="")
    write_manifest(Manifest(zoo, (card,)))

    assert check() == 2

    assert "'gravel' names no recipe" in capsys.readouterr().err


def test_cards_may_differ_by_what_floating_point_gives_and_no_more() -> None:
    measured = {"mean_gap": 0.4, "times_nearer": 12.0, "contrast_change": 1.0, "photographs": 8}

    assert differences(measured, measured) == []
    close = {"mean_gap": 0.419, "times_nearer": 12.1, "contrast_change": 2.0, "photographs": 8}
    assert differences(close, measured) == []
    assert differences(close | {"mean_gap": 0.421}, measured) == [
        "mean_gap 0.421, measured 0.4",
    ]
    assert differences(close | {"photographs": 7}, measured) == ["photographs 7, measured 8"]
    assert differences(close | {"mean_gap": float("nan")}, measured) == [
        "mean_gap nan, measured 0.4"
    ]
    assert differences({**close, "shine": 1}, measured) == ["shine 1 is not measured"]
    assert len(differences({}, measured)) == 1
    del close["mean_gap"]
    assert differences(close, measured) == ["mean_gap is missing, measured 0.4"]
