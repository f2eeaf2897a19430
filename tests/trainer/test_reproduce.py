"""The paper's experiment at a size of seconds: everything but its meaning."""

import json
from pathlib import Path

import pytest

from trainer import reproduce
from trainer.__main__ import main

TINY = reproduce.Scale(
    crop_px=64, style_px=96, batch_size=2, steps=2, learning_rate=1e-3, validate_every=1
)


@pytest.mark.slow
def test_reproduce_writes_every_run_and_does_not_repeat_what_is_done(
    recipe_file: Path,
    photo_folder: Path,
    loss_network_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(reproduce.SCALES, "small", TINY)
    monkeypatch.setattr("trainer.reproduction_report.SIZES_PX", (64, 96))
    monkeypatch.setattr("trainer.reproduction_report.CELL_PX", 64)
    command = [
        "reproduce",
        f"--photos={photo_folder}",
        f"--eval-photos={photo_folder}",
        f"--loss-network={loss_network_file}",
        f"--style-picture={recipe_file.parent / 'style.png'}",
        f"--out={tmp_path / 'runs'}",
        f"--report={tmp_path / 'docs'}",
        "--evaluations=2",
        "--threads=1",
    ]

    assert main(command) == 0

    rows = json.loads((tmp_path / "docs/reproduction.json").read_text())
    assert len(rows) == 12  # batch normalization is scored twice
    kinds = {(row["generator"], row["normalization"], row["statistics"]) for row in rows}
    assert ("johnson", "batch", "running") in kinds
    assert ("texture_net", "instance", "own") in kinds
    assert all(row["iterations"] == 2 and len(row["curve"]) == 2 for row in rows)
    report = (tmp_path / "docs/reproduction.md").read_text()
    assert report.count("| texture_net |") == report.count("| johnson |") == 6
    for name in ("curves.png", "generators.jpg", "contrast.jpg", "sizes.jpg"):
        assert (tmp_path / "docs/images/reproduction" / name).stat().st_size > 1000

    monkeypatch.setattr(reproduce, "Learner", None)  # would fail if it were needed again
    assert main(command) == 0
    assert json.loads((tmp_path / "docs/reproduction.json").read_text()) == rows
