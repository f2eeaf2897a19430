"""The report of ``reproduce``: a table, a plot and figures in the layout of the paper's."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from typing import TYPE_CHECKING

import matplotlib as mpl
import torch
from PIL import Image, ImageDraw

from trainer.optimize import optimize
from trainer.pictures import as_seen, open_picture, resized_to, stylized_by, to_image, to_tensor
from trainer.reproduce import LOSS, SCALES, trained_generators

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from model_zoo.layers import Generator
    from trainer.losses import PerceptualLoss
    from trainer.reproduce import RunResult

mpl.use("Agg")  # no display

CELL_PX = 256
GAP_PX = 6
CAPTION_PX = 18
BY_HAND = "\n<!-- What follows is written by hand, and kept. -->\n"
SIZES_PX = (512, 1080)
"""Those of the paper's figure 6."""


def write_report(
    results: Sequence[RunResult],
    *,
    scale_name: str,
    runs: Path,
    folder: Path,
    photos: Sequence[Path],
    validation_loss: PerceptualLoss,
    style_picture_name: str,
    command: str,
) -> None:
    """Write reproduction.json, reproduction.md and images/reproduction/ below ``folder``."""
    images = folder / "images/reproduction"
    images.mkdir(parents=True, exist_ok=True)
    rows = [asdict(result) for result in results]
    text = json.dumps(rows, indent=1) + "\n"
    (folder / "reproduction.json").write_text(text, encoding="utf-8")
    _plot(results, images / "curves.png")
    columns = [
        (f"{experiment.generator}, {experiment.normalization}", generator)
        for experiment, generator in trained_generators(runs)
    ]
    opened = [open_picture(path) for path in photos[:4]]
    _figure_5(columns, opened, validation_loss, images / "generators.jpg")
    _figure_2(columns, opened[0], images / "contrast.jpg")
    _figure_6(columns[-1], opened[0], images / "sizes.jpg")
    page = folder / "reproduction.md"
    by_hand = page.read_text(encoding="utf-8").partition(BY_HAND)[2] if page.exists() else "\n"
    text = _document(results, scale_name, style_picture_name, command) + BY_HAND + by_hand
    page.write_text(text, encoding="utf-8")


def _plot(results: Sequence[RunResult], path: Path) -> None:
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True)
    for axis, generator in zip(axes, ("texture_net", "johnson"), strict=True):
        for result in results:
            if result.generator == generator:
                steps, values = zip(*result.curve, strict=True)
                axis.semilogy(
                    steps,
                    values,
                    label=_label(result),
                    color="tab:blue" if result.normalization == "instance" else "tab:red",
                    linestyle="-" if result.statistics == "own" else ":",
                    alpha=1.0 if result.photographs > 16 else 0.45,
                )
        axis.set(title=generator, xlabel="iterations")
        axis.legend(fontsize=7)
    axes[0].set_ylabel("validation objective")
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)


def _label(result: RunResult) -> str:
    statistics = "" if result.normalization == "instance" else f", {result.statistics} statistics"
    return f"{result.normalization}{statistics}, {result.photographs} photographs"


def _figure_5(
    columns: Sequence[tuple[str, Generator]],
    photos: Sequence[Image.Image],
    loss: PerceptualLoss,
    path: Path,
) -> None:
    """Photographs down; content, each generator, and L-BFGS across."""
    rows = []
    for photo in photos:
        content = to_tensor(resized_to(photo, CELL_PX))
        row = [("photograph", to_image(content))]
        row += [(name, _painted(generator, content)) for name, generator in columns]
        device = next(loss.network.parameters()).device
        best = optimize(content.to(device), loss, evaluations=100)
        row.append(("L-BFGS, 100 evaluations", to_image(best.picture)))
        rows.append(row)
    _table(rows).save(path, quality=88)


def _figure_2(columns: Sequence[tuple[str, Generator]], photo: Image.Image, path: Path) -> None:
    """The same photograph at full and at a third of its contrast: who notices?"""
    content = to_tensor(resized_to(photo, CELL_PX))
    rows = []
    for name, picture in (("photograph", content), ("a third of it", content / 3 + 0.3)):
        row = [(name, to_image(picture))]
        row += [(label, _painted(generator, picture)) for label, generator in columns]
        rows.append(row)
    _table(rows).save(path, quality=88)


def _figure_6(column: tuple[str, Generator], photo: Image.Image, path: Path) -> None:
    """The same photograph at two sizes: the strokes keep theirs."""
    pictures = [
        (f"{size} px", resized_to(_painted(column[1], to_tensor(resized_to(photo, size))), 512))
        for size in SIZES_PX
    ]
    _table([pictures]).save(path, quality=88)


def _painted(generator: Generator, photo: torch.Tensor) -> Image.Image:
    return to_image(as_seen(stylized_by(generator, photo)))


def _table(rows: Sequence[Sequence[tuple[str, Image.Image]]]) -> Image.Image:
    """Pictures in rows with captions, on white."""
    width = max(image.width for row in rows for _, image in row)
    height = max(image.height for row in rows for _, image in row)
    columns = max(map(len, rows))
    cell = (width + GAP_PX, height + CAPTION_PX + GAP_PX)
    table = Image.new("RGB", (columns * cell[0], len(rows) * cell[1]), "white")
    draw = ImageDraw.Draw(table)
    for y, row in enumerate(rows):
        for x, (caption, image) in enumerate(row):
            draw.text((x * cell[0] + 2, y * cell[1] + 3), caption, fill="black")
            table.paste(image, (x * cell[0], y * cell[1] + CAPTION_PX))
    return table


def _document(
    results: Sequence[RunResult], scale_name: str, style_picture_name: str, command: str
) -> str:
    scale = SCALES[scale_name]
    machine = f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}"
    rows = "\n".join(
        f"| {r.generator} | {r.normalization} | {r.statistics} | {r.photographs} | {r.iterations} "
        f"| {r.validation_objective:.3f} | {r.gap:.2f} | {r.seconds / 60:.0f} |"
        for r in results
    )
    return f"""# The paper's experiment, repeated

Ulyanov, Vedaldi and Lempitsky (2016) replace batch by instance normalization in two generators and
show pictures. This is their comparison with numbers. Written by

```sh
{command}
```

on {machine}. Every run has the same recipe: {scale.steps} iterations of {scale.batch_size} crops of
{scale.crop_px} px, Adam at {scale.learning_rate:g} with cosine decay, the style
`{style_picture_name}` at {scale.style_px} px, content {", ".join(LOSS.content_layers)}, style
{", ".join(LOSS.style_layers)} at scales {LOSS.style_scales}, style weight {LOSS.style_weight:g}.

The **validation objective** is the mean over crops of photographs that no run was trained with,
painted, clamped and rounded. The **gap** is the mean of ln(objective) less that of L-BFGS on the
pixels: 0 is as good as Gatys et al., 0.7 twice their objective. Batch normalization is scored in
both of its modes: with the statistics of the batch at hand, as in training (`own`), and with the
running averages (`running`).

| generator | normalization | statistics | photographs | iterations | objective | gap | minutes |
|---|---|---|---|---|---|---|---|
{rows}

![Validation objective against iterations](images/reproduction/curves.png)

The generators trained with all photographs, in the layout of the paper's figure 5:

![Photographs, four generators and L-BFGS](images/reproduction/generators.jpg)

The same photograph at full contrast and at a third of it (figure 2 of the paper):

![Two contrasts](images/reproduction/contrast.jpg)

The last generator at {SIZES_PX[0]} and {SIZES_PX[1]} px (figure 6), shown at one size:

![Two sizes](images/reproduction/sizes.jpg)
"""
