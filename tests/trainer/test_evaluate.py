import json
import math
from pathlib import Path

import pytest
import torch
from PIL import Image
from skimage import data as skimage_data

from model_zoo.checkpoints import build_generator
from tests.trainer.test_optimize import WEIGHTS
from trainer.__main__ import main
from trainer.evaluate import evaluate
from trainer.loss_network import load_loss_network
from trainer.losses import PerceptualLoss
from trainer.pictures import as_seen, to_tensor
from trainer.references import ReferenceCache
from trainer.runs import TrainingRun


@pytest.fixture
def photo() -> Image.Image:
    return Image.fromarray(skimage_data.astronaut()).resize((72, 64))


def test_gap_is_the_logarithm_of_the_ratio_to_l_bfgs_after_rounding(
    photo: Image.Image, loss_network_file: Path, tmp_path: Path
) -> None:
    torch.manual_seed(4)
    generator = build_generator("johnson_half", {}).eval().requires_grad_(requires_grad=False)
    loss = PerceptualLoss(load_loss_network(loss_network_file), torch.rand(1, 3, 80, 80), WEIGHTS)
    references = ReferenceCache(tmp_path, evaluations=10)

    evaluation = evaluate(generator, loss, [("astronaut", photo)], references)

    (score,) = evaluation.scores
    content = to_tensor(photo)
    painted = as_seen(generator(content))
    terms = loss(painted, loss.content_targets(content))
    assert score.objective == pytest.approx(terms.objective.item(), rel=1e-4)
    assert score.gap == pytest.approx(
        math.log(score.objective / references.reference(content, loss, "astronaut").objective),
        rel=1e-4,
    )
    assert score.style.keys() == {"relu1_2", "relu2_2"}
    assert score.contrast_change <= 2
    summary = evaluation.summary()
    assert summary["mean_gap"] == summary["worst_gap"] == round(score.gap, 3)
    assert "astronaut" in evaluation.as_table()


def test_evaluate_a_run_then_export_puts_its_figures_into_the_card(
    recipe_file: Path,
    photo_folder: Path,
    loss_network_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, zoo = tmp_path / "run", tmp_path / "zoo"
    network = f"--loss-network={loss_network_file}"
    arguments = [f"--photos={photo_folder}", network, f"--out={run}", "--threads=1"]
    assert main(["train", str(recipe_file), *arguments]) == 0
    command = [
        "evaluate",
        str(run),
        f"--photos={photo_folder}",
        network,
        f"--style-picture={tmp_path / 'style.png'}",
        f"--references={tmp_path / 'references'}",
        "--size-px=64",
        "--evaluations=3",
        "--threads=1",
    ]

    assert main(command) == 0

    assert "mean" in capsys.readouterr().out
    document = json.loads(TrainingRun(run).evaluation_path.read_text())
    assert len(document["photographs"]) == 4
    assert (run / "evaluation.jpg").exists()
    assert main(["export", str(run), "--style-id=bricks", f"--zoo={zoo}"]) == 0
    assert f"mean_gap = {document['summary']['mean_gap']}" in (zoo / "manifest.toml").read_text()


@pytest.mark.parametrize(
    ("what", "message"), [("gone", "no style"), ("starry-night", "no picture|cannot be read")]
)
def test_evaluate_when_something_is_missing_then_exit_code_2(
    what: str,
    message: str,
    loss_network_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import re

    options = [f"--photos={tmp_path}", f"--paintings={tmp_path}", "--threads=1"]
    assert main(["evaluate", what, f"--loss-network={loss_network_file}", *options]) == 2
    errors = capsys.readouterr().err
    assert re.search(message, errors)
    assert errors.count("\n") == 1


def test_optimize_writes_picture_and_curve(
    recipe_file: Path, photo_folder: Path, loss_network_file: Path, tmp_path: Path
) -> None:
    out, curve = tmp_path / "preview.png", tmp_path / "curve.json"
    photo = photo_folder / "coffee.jpg"
    for start in ("content", "noise", str(photo_folder / "rocket.jpg")):
        assert (
            main(
                [
                    "optimize",
                    str(recipe_file),
                    str(photo),
                    f"--loss-network={loss_network_file}",
                    f"--out={out}",
                    f"--curve={curve}",
                    f"--start={start}",
                    "--size-px=64",
                    "--evaluations=4",
                    "--threads=1",
                ]
            )
            == 0
        )
        with Image.open(out) as preview:
            assert max(preview.size) == 64
        objectives = json.loads(curve.read_text())
        assert objectives[-1] < objectives[0]
