import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.trainer.conftest import RECIPE
from trainer.errors import TrainerError, TrainingFailedError
from trainer.export import ExportOptions, export
from trainer.recipe import read_recipe
from trainer.runs import TrainingRun
from trainer.train import TrainingOptions, train


@pytest.fixture
def options(
    tmp_path: Path, recipe_file: Path, photo_folder: Path, loss_network_file: Path
) -> TrainingOptions:
    return TrainingOptions(
        photos=photo_folder,
        loss_network=loss_network_file,
        style_picture=recipe_file.parent / "style.png",
        out=tmp_path / "run",
        device="cpu",
        sheet_every=1000,
        checkpoint_every=3,
        log_every=1,
    )


def weights(run: Path) -> dict[str, torch.Tensor]:
    checkpoint = TrainingRun(run).load_checkpoint()
    assert checkpoint is not None
    generator: dict[str, torch.Tensor] = checkpoint["generator"]
    return generator


def test_train_leaves_checkpoint_losses_sheets_and_facts(
    recipe_file: Path, options: TrainingOptions
) -> None:
    train(read_recipe(recipe_file), replace(options, sheet_every=3))

    run = TrainingRun(options.out)
    lines = [json.loads(line) for line in run.losses_path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert {"objective", "content", "style", "total_variation", "learning_rate"} <= lines[0].keys()
    assert run.facts()["steps_done"] == 6
    assert run.recipe().source == RECIPE
    assert list(run.tensorboard_path.iterdir())
    for step in (3, 6):
        with Image.open(run.sheet_path(step)) as sheet:
            assert min(sheet.size) > 384
    assert not list(options.out.glob("*.partial"))


@pytest.mark.slow
def test_training_lowers_the_objective(recipe_file: Path, options: TrainingOptions) -> None:
    recipe_file.write_text(RECIPE.replace("steps = 6", "steps = 60"))

    train(read_recipe(recipe_file), replace(options, sheet_every=1000))

    lines = TrainingRun(options.out).losses_path.read_text().splitlines()
    objective = [json.loads(line)["objective"] for line in lines]
    assert sum(objective[-10:]) < 0.7 * sum(objective[:10])


def test_resume_after_a_stop_ends_with_the_same_weights_bit_for_bit(
    recipe_file: Path, options: TrainingOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = read_recipe(recipe_file)
    train(recipe, options)
    broken = replace(options, out=tmp_path / "broken", checkpoint_every=2)
    append = TrainingRun.append_losses

    def stop_at_step_4(self: TrainingRun, line: dict[str, float]) -> None:
        append(self, line)
        if line["step"] == 5:
            raise RuntimeError("power cut")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="power cut"):
        patch.setattr(TrainingRun, "append_losses", stop_at_step_4)
        train(recipe, broken)
    train(recipe, replace(broken, resume=True))

    whole, resumed = weights(options.out), weights(broken.out)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    lines = TrainingRun(broken.out).losses_path.read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 5, 6]


def test_when_out_holds_a_run_then_asks_for_resume_and_loses_nothing(
    recipe_file: Path, options: TrainingOptions
) -> None:
    recipe = read_recipe(recipe_file)
    train(recipe, options)
    before = options.out.joinpath("checkpoint.pt").read_bytes()

    with pytest.raises(TrainerError, match="add --resume"):
        train(recipe, options)
    other = replace(recipe, optimization=replace(recipe.optimization, steps=9))
    with pytest.raises(TrainerError, match="another recipe"):
        train(other, replace(options, resume=True))
    train(recipe, replace(options, resume=True, init="gone"))  # finished: nothing left to do

    assert torch.load(options.out / "checkpoint.pt")["step"] == 6
    assert len(before) == options.out.joinpath("checkpoint.pt").stat().st_size


def test_when_the_checkpoint_is_damaged_then_says_so(
    recipe_file: Path, options: TrainingOptions
) -> None:
    train(read_recipe(recipe_file), options)
    path = options.out / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:1000])

    with pytest.raises(TrainerError, match=r"checkpoint\.pt is damaged"):
        train(read_recipe(recipe_file), replace(options, resume=True))


def test_when_the_loss_is_not_finite_then_stops_and_keeps_the_checkpoint_before(
    recipe_file: Path, options: TrainingOptions, tmp_path: Path
) -> None:
    tensors = load_file(options.loss_network)
    tensors["conv1_1.weight"].fill_(3e38)
    broken = tmp_path / "broken.safetensors"
    save_file(tensors, broken)

    with pytest.raises(TrainingFailedError, match="step 1: the gradient is not finite"):
        train(read_recipe(recipe_file), replace(options, loss_network=broken))


def test_init_starts_from_a_style_of_the_zoo(
    recipe_file: Path, options: TrainingOptions, tmp_path: Path
) -> None:
    recipe = read_recipe(recipe_file)
    train(recipe, options)
    zoo = tmp_path / "zoo"
    export(ExportOptions(run=options.out, style_id="bricks", zoo=zoo))
    still = replace(recipe, optimization=replace(recipe.optimization, steps=1, learning_rate=1e-9))

    train(still, replace(options, out=tmp_path / "warm", init="bricks", zoo=zoo))

    cold, warm = weights(options.out), weights(tmp_path / "warm")
    assert all(torch.allclose(cold[n], warm[n], atol=1e-3, rtol=1e-3) for n in cold)
    other = replace(recipe, generator=replace(recipe.generator, name="johnson"))
    with pytest.raises(TrainerError, match="--init bricks does not fit"):
        train(other, replace(options, out=tmp_path / "other", init="bricks", zoo=zoo))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_when_cuda_is_asked_for_and_absent_then_says_so(
    recipe_file: Path, options: TrainingOptions
) -> None:
    with pytest.raises(TrainerError, match="no CUDA device"):
        train(read_recipe(recipe_file), replace(options, device="cuda"))


@pytest.mark.slow
@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_and_resume_goes_on(
    recipe_file: Path, options: TrainingOptions, signal_number: signal.Signals
) -> None:
    recipe_file.write_text(RECIPE.replace("steps = 6", "steps = 100000"))
    command = [sys.executable, "-m", "trainer", "train", str(recipe_file)]
    command += ["--photos", str(options.photos), "--loss-network", str(options.loss_network)]
    command += ["--out", str(options.out), "--checkpoint-every", "100000", "--device", "cpu"]
    command += ["--threads", "1"]
    run = TrainingRun(options.out)
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=os.environ, text=True) as process:
        deadline = time.monotonic() + 120
        while not run.losses_path.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal_number)
        _, errors = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "--resume" in errors
    assert "Traceback" not in errors
    checkpoint = run.load_checkpoint()
    assert checkpoint is not None
    assert checkpoint["step"] >= 10
    assert run.facts()["steps_done"] == checkpoint["step"]
