import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.trainer.conftest import RECIPE
from trainer.errors import TrainerError, TrainingFailedError
from trainer.export import ExportOptions, export
from trainer.learner import Learner, StepResult
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
        style_pictures=(recipe_file.parent / "style.png",),
        out=tmp_path / "run",
        device="cpu",
        sheet_every=1000,
        checkpoint_every=3,
        log_every=1,
    )


def state(run: Path) -> dict[str, Any]:
    checkpoint = TrainingRun(run).load_checkpoint()
    assert checkpoint is not None
    return checkpoint


def weights(run: Path) -> dict[str, torch.Tensor]:
    generator: dict[str, torch.Tensor] = state(run)["generator"]
    return generator


def loss_lines(run: Path) -> list[dict[str, Any]]:
    lines = TrainingRun(run).losses_path.read_text().splitlines()
    return [line for line in map(json.loads, lines) if "objective" in line]


def test_train_leaves_checkpoint_losses_sheets_and_facts(
    recipe_file: Path, options: TrainingOptions
) -> None:
    train(read_recipe(recipe_file), replace(options, sheet_every=3))

    run = TrainingRun(options.out)
    lines = [json.loads(line) for line in run.losses_path.read_text().splitlines()]
    losses = loss_lines(options.out)
    assert [line["step"] for line in losses] == [1, 2, 3, 4, 5, 6]
    assert {"content/relu2_2", "style", "total_variation", "learning_rate"} <= losses[0].keys()
    assert losses[-1]["seconds_left"] == 0
    validations = {line["step"]: line["validation"] for line in lines if "validation" in line}
    best = run.load_best()
    assert validations.keys() == {3, 6}
    assert best is not None
    assert best["step"] == min(validations, key=lambda step: validations[step])
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

    objective = [line["objective"] for line in loss_lines(options.out)]
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
    assert [line["step"] for line in loss_lines(broken.out)] == [1, 2, 3, 4, 5, 6]


def test_resume_after_kill_9_ends_with_the_same_weights_bit_for_bit(
    recipe_file: Path, options: TrainingOptions, tmp_path: Path
) -> None:
    recipe_file.write_text(RECIPE.replace("steps = 6", "steps = 40\naverage_decay = 0.9"))
    killed = replace(options, out=tmp_path / "killed", checkpoint_every=4)
    arguments = [
        "train",
        str(recipe_file),
        f"--photos={options.photos}",
        f"--loss-network={options.loss_network}",
        f"--out={killed.out}",
        "--device=cpu",
        "--threads=1",
        "--checkpoint-every=4",
    ]
    with subprocess.Popen([sys.executable, "-m", "trainer", *arguments]) as process:
        run, waited_until = TrainingRun(killed.out), time.monotonic() + 60
        while not run.facts_path.exists() or run.facts()["steps_done"] < 8:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < waited_until
            time.sleep(0.01)
        process.kill()
    assert run.facts()["steps_done"] < 40

    recipe = read_recipe(recipe_file)
    train(recipe, replace(killed, resume=True))
    train(recipe, options)

    for key in ("generator", "average"):
        whole, resumed = state(options.out)[key], state(killed.out)[key]
        assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_run_whose_start_was_cut_off_holds_no_half_of_a_file(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_half(path: Path, text: str, **options: Any) -> None:
        with path.open("w", **options) as file:
            file.write(text[: len(text) // 2])
        raise OSError("no space left")

    run = TrainingRun(tmp_path / "run")
    monkeypatch.setattr(type(tmp_path), "write_text", write_half)
    with pytest.raises(TrainerError, match="cannot be written"):
        run.start(read_recipe(recipe_file), {"recipe": "tiny"})
    assert not run.recipe_path.exists()
    assert not run.facts_path.exists()


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

    with pytest.raises(TrainingFailedError, match=r"step 1: .* for the second time"):
        train(read_recipe(recipe_file), replace(options, loss_network=broken))

    checkpoint = TrainingRun(options.out).load_checkpoint()
    assert checkpoint is not None
    assert checkpoint["step"] == 0


def test_when_a_gradient_is_not_finite_once_then_goes_back_and_on_more_slowly(
    recipe_file: Path,
    options: TrainingOptions,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    numbers = []
    whole_step = Learner.step

    def step(self: Learner, pixels: torch.Tensor, number: int) -> StepResult | None:
        numbers.append(number)
        return None if len(numbers) == 5 else whole_step(self, pixels, number)

    monkeypatch.setattr(Learner, "step", step)
    train(read_recipe(recipe_file), options)

    assert numbers == [0, 1, 2, 3, 4, 3, 4, 5]  # the checkpoint is that of step 3
    assert "going back to step 3" in caplog.text
    assert [line["step"] for line in loss_lines(options.out)] == [1, 2, 3, 4, 5, 6]
    checkpoint = TrainingRun(options.out).load_checkpoint()
    assert checkpoint is not None
    assert (checkpoint["step"], checkpoint["rollbacks"]) == (6, 1)
    assert checkpoint["learning_rate_factor"] == 0.5


def test_two_processes_learn_what_one_does_of_the_same_batch(
    recipe_file: Path, options: TrainingOptions, tmp_path: Path
) -> None:
    """Gradients are averaged over processes, each with its share of every batch."""
    arguments = [
        "train",
        str(recipe_file),
        f"--photos={options.photos}",
        f"--loss-network={options.loss_network}",
        f"--out={tmp_path / 'pair'}",
        "--device=cpu",
        "--precision=fp32",
        "--threads=1",
    ]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    finished = subprocess.run(
        [*torchrun, "-m", "trainer", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert finished.returncode == 0, finished.stderr

    train(read_recipe(recipe_file), replace(options, precision="fp32"))

    # Weights without influence, such as an offset that a normalization removes, follow the sign
    # of rounding errors under Adam: compare what they are for.
    one, both = loss_lines(options.out)[-1], loss_lines(tmp_path / "pair")[-1]
    assert both["step"] == one["step"] == 6
    assert both["objective"] == pytest.approx(one["objective"], rel=2e-3)
    assert both["gradient_norm"] == pytest.approx(one["gradient_norm"], rel=2e-2)
    assert TrainingRun(tmp_path / "pair").facts()["processes"] == 2


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
    with pytest.raises(TrainerError, match="0 CUDA devices are visible"):
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
