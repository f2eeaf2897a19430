import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from skimage import data as skimage_data

from model_zoo.cards import Manifest, ZooError
from model_zoo.checkpoints import build_generator, load_generator
from tests.trainer.conftest import RECIPE
from trainer.averaging import WeightAverage
from trainer.errors import TrainerError
from trainer.export import ExportOptions, export
from trainer.manifest_writer import write_manifest
from trainer.previews import PREVIEW_MAX_BYTES
from trainer.recipe import read_recipe
from trainer.runs import TrainingRun


def make_run(folder: Path, recipe_file: Path, seed: int = 0) -> Path:
    """A run as training leaves it, without the training."""
    run = TrainingRun(folder)
    facts = {
        "recipe": "bricks",
        "init": None,
        "started": "2026-01-02T03:04:05+00:00",
        "photos": 4,
        "loss_network": "vgg.safetensors",
        "device": "CPU",
        "threads": 2,
        "precision": "fp32",
        "torch": "2",
        "steps_done": 6,
        "seconds": 120.0,
    }
    run.start(read_recipe(recipe_file), facts)
    torch.manual_seed(seed)
    generator = build_generator("johnson_half", {})
    run.save_checkpoint(
        {
            "step": 6,
            "generator": generator.state_dict(),
            "average": WeightAverage(generator, 0.9).state(),
            "optimizer": {},
            "learning_rate_factor": 1.0,
            "random_state": torch.get_rng_state(),
            "rollbacks": 0,
            "best": None,
        }
    )
    return folder


@pytest.fixture
def options(tmp_path: Path, recipe_file: Path) -> ExportOptions:
    run = make_run(tmp_path / "run", recipe_file)
    Image.fromarray(skimage_data.coffee()).save(run / "photo.png")
    return ExportOptions(run=run, style_id="bricks", zoo=tmp_path / "zoo")


def files(zoo: Path) -> dict[str, bytes]:
    return {str(p.relative_to(zoo)): p.read_bytes() for p in zoo.rglob("*") if p.is_file()}


def test_export_makes_a_zoo_that_verifies_and_loads(options: ExportOptions) -> None:
    (card,) = export(options)

    manifest = Manifest.read(options.zoo)
    manifest.verify()
    assert manifest.cards == (card,)
    assert (card.title, card.artist, card.year) == ("Bricks", "A mason", "1950")
    assert card.recipe == "bricks.toml"
    assert card.training["pictures"] == 12
    generator = load_generator(manifest.weights_path(card), card.generator, card.arguments)
    trained = TrainingRun(options.run).load_checkpoint()
    assert trained is not None
    for name, tensor in generator.state_dict().items():
        torch.testing.assert_close(tensor, trained["generator"][name], rtol=1e-3, atol=1e-4)
    preview = manifest.preview_path(card).read_bytes()
    assert len(preview) <= PREVIEW_MAX_BYTES
    with Image.open(io.BytesIO(preview)) as image:
        assert (image.format, max(image.size)) == ("JPEG", 512)


def test_export_again_replaces_the_style_in_its_place_and_leaves_no_old_files(
    options: ExportOptions, recipe_file: Path, tmp_path: Path
) -> None:
    export(replace(options, style_id="first"))
    export(options)
    export(replace(options, style_id="last"))
    run = make_run(tmp_path / "second run", recipe_file, seed=1)

    export(replace(options, run=run, title="Better bricks"))

    manifest = Manifest.read(options.zoo)
    manifest.verify()
    assert [c.style_id for c in manifest] == ["first", "bricks", "last"]
    assert manifest.card("bricks").title == "Better bricks"
    assert len(files(options.zoo)) == 1 + 2 * 3


def test_export_of_the_same_weights_twice_changes_nothing(options: ExportOptions) -> None:
    export(options)
    before = files(options.zoo)

    export(options)

    assert files(options.zoo) == before


def test_words_with_quotes_and_umlauts_survive_the_manifest(options: ExportOptions) -> None:
    title = 'Ein "schönes" Bild\\\nmit Zeilen, 富嶽 \x7f'

    export(replace(options, title=title))

    assert Manifest.read(options.zoo).card("bricks").title == title


@pytest.mark.parametrize("step", ["trainer.export.write_manifest", "trainer.export.write_file"])
def test_when_a_step_fails_then_the_zoo_is_as_before(
    options: ExportOptions,
    recipe_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    export(options)
    before = files(options.zoo)
    run = make_run(tmp_path / "second run", recipe_file, seed=1)

    def fail(*_: object) -> None:
        raise ZooError("disk full")

    monkeypatch.setattr(step, fail)
    with pytest.raises(ZooError, match="disk full"):
        export(replace(options, run=run))

    assert files(options.zoo) == before


@pytest.mark.parametrize("when", ["before", "after"])
def test_when_interrupted_at_the_replacement_then_the_zoo_is_whole(
    options: ExportOptions,
    recipe_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    when: str,
) -> None:
    (first,) = export(options)

    def interrupted(manifest: Manifest) -> None:
        if when == "after":
            write_manifest(manifest)
        raise KeyboardInterrupt

    monkeypatch.setattr("trainer.export.write_manifest", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export(replace(options, run=make_run(tmp_path / "second run", recipe_file, seed=1)))

    manifest = Manifest.read(options.zoo)
    manifest.verify()
    assert (manifest.card("bricks") == first) is (when == "before")
    assert len(files(options.zoo)) == 3


def test_export_keeps_files_that_another_card_names(options: ExportOptions) -> None:
    (card,) = export(options)
    write_manifest(Manifest(options.zoo, (card, replace(card, style_id="twin"))))

    export(replace(options, preview_photo=options.run / "photo.png"))

    Manifest.read(options.zoo).verify()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("checkpoint.pt", "not a checkpoint", "is damaged"),
        ("run.json", "{}", "'recipe' is missing"),
        ("run.json", "[]", "not a JSON object"),
        ("recipe.toml", RECIPE.replace("johnson_half", "johnson"), "does not fit"),
        ("recipe.toml", "\xff", "not valid TOML"),
    ],
)
def test_when_a_file_of_the_run_was_changed_then_says_which(
    options: ExportOptions, name: str, text: str, message: str
) -> None:
    (options.run / name).write_text(text, encoding="utf-8")

    with pytest.raises(TrainerError, match=message) as raised:
        export(options)

    assert name in str(raised.value)


def test_export_takes_the_best_generator_and_its_evaluation(options: ExportOptions) -> None:
    run = TrainingRun(options.run)
    best = build_generator("johnson_half", {})
    run.save_best({"step": 4, "validation": 0.1, "generator": best.state_dict()})
    summary = {"mean_gap": 0.25, "photographs": 8}
    run.evaluation_path.write_text(json.dumps({"step": 4, "summary": summary}))

    (card,) = export(options)

    served = load_generator(options.zoo / card.weights, "johnson_half", {})
    torch.testing.assert_close(served.to_rgb.weight, best.to_rgb.weight, atol=1e-3, rtol=1e-2)
    assert card.training["steps"] == 4
    assert Manifest.read(options.zoo).card("bricks").quality == summary


def test_export_leaves_out_an_evaluation_of_other_weights(options: ExportOptions) -> None:
    text = json.dumps({"step": 5, "summary": {"mean_gap": 0.25}})
    TrainingRun(options.run).evaluation_path.write_text(text)

    assert export(options)[0].quality == {}


def test_when_something_is_wrong_with_the_input_then_says_what(
    options: ExportOptions, tmp_path: Path
) -> None:
    with pytest.raises(TrainerError, match=r"holds no training run|cannot be read"):
        export(replace(options, run=tmp_path / "nothing"))
    with pytest.raises(ZooError, match="lower-case"):
        export(replace(options, style_id="../Not An Id"))
    with pytest.raises(TrainerError, match="preview-photo"):
        export(replace(options, preview_photo=options.run / "recipe.toml"))
    options.zoo.mkdir(exist_ok=True)
    options.zoo.joinpath("manifest.toml").write_text("broken = [")
    with pytest.raises(ZooError, match="not valid TOML"):
        export(options)
    (options.run / "checkpoint.pt").unlink()
    with pytest.raises(TrainerError, match="no checkpoint yet"):
        export(options)

    assert files(options.zoo) == {"manifest.toml": b"broken = ["}


def test_preview_is_painted_from_the_photograph_given(
    options: ExportOptions, tmp_path: Path
) -> None:
    photo = tmp_path / "cat.png"
    Image.fromarray(skimage_data.chelsea()).save(photo)

    (card,) = export(replace(options, preview_photo=photo))

    with Image.open(options.zoo / card.preview) as image:
        assert image.size == (512, 341)
