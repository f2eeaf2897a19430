"""The command line: exit code 2 and one clear line for whatever the user got wrong."""

import subprocess
import sys
from pathlib import Path

import pytest

from model_zoo.cards import Manifest
from tests.trainer.conftest import RECIPE
from trainer.__main__ import main


@pytest.fixture
def command(recipe_file: Path, photo_folder: Path, loss_network_file: Path) -> list[str]:
    return [
        "train",
        str(recipe_file),
        f"--photos={photo_folder}",
        f"--loss-network={loss_network_file}",
        f"--out={recipe_file.parent / 'run'}",
        "--device=cpu",
        "--threads=1",
        f"--eval-photos={photo_folder}",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("steps =", "step ="), "unknown key 'step'"),
        (('"relu3_2"', '"relu4_2"'), "does not reach layer 'relu4_2'"),
        (('"style.png"', '"gone.png"'), "gone.png cannot be read"),
        (('"style.png"', '"bricks.toml"'), "bricks.toml cannot be read"),
        (("size_px = 96", "size_px = 40"), "raise size_px or drop the scale"),
        (("size_px = 96", "size_px = 960000"), "style.size_px = 960000 must be at most 8192"),
        (("batch_size = 2", "batch_size = 100000"), "data.batch_size = 100000 must be at most"),
        (("seed = 5", f"seed = {2**70}"), "must be at most"),
        (("learning_rate = 1e-3", "learning_rate = inf"), "must be at most"),
        (('"style.png"', f'"{"x" * 5000}.png"'), "cannot be read"),
    ],
)
def test_a_bad_recipe_is_one_line_and_exit_code_2(
    command: list[str],
    recipe_file: Path,
    capsys: pytest.CaptureFixture[str],
    change: tuple[str, str],
    message: str,
) -> None:
    text = RECIPE.replace('"relu2_2"]\nstyle_weight', '"relu3_2"]\nstyle_weight')
    recipe_file.write_text(text.replace(*change))

    assert main(command) == 2

    errors = capsys.readouterr().err.strip()
    assert message in errors
    assert errors.startswith("error: ")
    assert "\n" not in errors
    assert not (recipe_file.parent / "run").exists()


@pytest.mark.parametrize("option", ["--photos", "--loss-network"])
def test_an_absent_folder_or_file_is_one_line_and_exit_code_2(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    assert main([*command, f"{option}={tmp_path / 'gone'}"]) == 2

    assert "gone" in capsys.readouterr().err


def test_train_then_export_then_the_zoo_holds_the_style(command: list[str], tmp_path: Path) -> None:
    assert main(command) == 0
    zoo = tmp_path / "zoo"
    assert main(["export", f"{tmp_path / 'run'}", "--style-id=bricks", f"--zoo={zoo}"]) == 0

    assert [card.style_id for card in Manifest.read(zoo)] == ["bricks"]


def test_loss_network_checks_a_file(
    loss_network_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["loss-network", str(loss_network_file)]) == 0
    assert "relu1_1 to relu3_2" in capsys.readouterr().out

    assert main(["loss-network", str(tmp_path / "gone.pth")]) == 2
    assert "is not a file" in capsys.readouterr().err


WITHOUT_EXTRAS = """
import sys
for name in ("tqdm", "tensorboard", "matplotlib", "onnx", "onnxruntime", "skimage"):
    sys.modules[name] = None
from trainer.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def without_extras(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRAS, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_commands_that_need_an_extra_say_what_to_install(
    command: list[str], loss_network_file: Path, photo_folder: Path
) -> None:
    network = f"--loss-network={loss_network_file}"
    folders = ["--photos", str(photo_folder), "--out", "unused"]
    for arguments in (
        command,
        ["evaluate", "starry-night", network],
        ["optimize", "default", "photo.jpg", network, "--out=a.png"],
        ["reproduce", network, *folders],
        ["zoo-check", network],
    ):
        finished = without_extras(arguments)
        assert finished.returncode == 2, finished.stderr
        assert "is not installed; pip install 'atelier[train]'" in finished.stderr
        assert finished.stderr.count("\n") == 1


def test_pages_of_a_zoo_need_the_sheets_extra(tmp_path: Path) -> None:
    finished = without_extras(["zoo-docs", f"--docs={tmp_path}"])

    assert finished.returncode == 2, finished.stderr
    assert "is not installed; pip install 'atelier[sheets]'" in finished.stderr


def test_commands_that_need_none_do_without(loss_network_file: Path) -> None:
    finished = without_extras(["loss-network", str(loss_network_file)])

    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize(
    "option", ["--workers=-1", "--workers=1000000", "--threads=-1", "--sheet-every=0"]
)
def test_a_number_out_of_range_is_exit_code_2(
    command: list[str], capsys: pytest.CaptureFixture[str], option: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*command, option])

    assert stopped.value.code == 2
    assert "must be" in capsys.readouterr().err


def test_words_for_the_card_that_are_not_utf_8_are_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["export", str(tmp_path), "--style-id=a", "--title=\udcff"])

    assert stopped.value.code == 2
    assert "is not UTF-8" in capsys.readouterr().err


def test_a_preset_needs_a_picture_and_trains_with_one(
    command: list[str], recipe_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command[1] = "default"
    assert main(command) == 2
    assert "default.toml names no picture; give one with --style-picture" in capsys.readouterr().err

    picture = f"--style-picture={recipe_file.parent / 'style.png'}"
    command[1] = "pytorch_examples"
    assert main([*command, picture]) == 2
    errors = capsys.readouterr().err
    assert "does not reach layer 'relu3_3'" in errors
    assert 'style_layers = ["relu1_2", "relu2_2", "relu3_2"]' in errors


def test_a_name_that_is_neither_file_nor_preset_is_told_which_there_are(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command[1] = "johnson2015"

    assert main(command) == 2

    assert "there are default, johnson2016, pytorch_examples, texture_nets" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    "name",
    [
        "train",
        "export",
        "evaluate",
        "optimize",
        "reproduce",
        "import",
        "loss-network",
        "zoo-check",
        "zoo-docs",
    ],
)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([name, "--help"])

    assert stopped.value.code == 0
    assert "usage: python -m trainer" in capsys.readouterr().out
