"""Zoos made for benchmarks: any architecture with seeded weights, or shipped styles; no benchmark.

Speed and memory do not depend on what the weights are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from model_zoo.cards import SHIPPED_ZOO, Manifest, file_sha256
from model_zoo.checkpoints import save_generator
from model_zoo.generators import GENERATORS

if TYPE_CHECKING:
    from pathlib import Path

    from model_zoo.layers import Generator


def style_of(generator: str) -> str:
    """A style id for an architecture."""
    return generator.replace("_", "-")


def _with_scales(generator: Generator) -> Generator:
    """Let normalizations scale and shift: at 1 and 0, where they begin, runtimes leave them out."""
    with torch.no_grad():
        for parameter in generator.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return generator


def write_shared_zoo(folder: Path, styles: int) -> Manifest:
    """Write a zoo of ``styles`` rows of one conditional network, ``s1``, ``s2`` and so on."""
    network = write_zoo(folder, {"network": "conditional"}).cards[0]
    generator = GENERATORS["conditional"](rows=styles + 1)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.01)
    save_generator(generator, folder / network.weights)
    shared = replace(
        network, arguments={"rows": styles + 1}, sha256=file_sha256(folder / network.weights)
    )
    rows = (replace(shared, style_id=f"s{row}", style_row=row) for row in range(1, styles + 1))
    return Manifest(folder, tuple(rows))


def write_zoo(folder: Path, styles: dict[str, str]) -> Manifest:
    """Write a zoo into ``folder``: ``styles`` names an architecture for each style id."""
    shipped = Manifest.read(SHIPPED_ZOO)
    preview = shipped.preview_path(shipped.cards[0]).read_bytes()
    entries = []
    for seed, (style_id, generator) in enumerate(styles.items()):
        torch.manual_seed(seed)
        weights, shown = folder / f"{style_id}.safetensors", folder / f"{style_id}.jpg"
        save_generator(_with_scales(GENERATORS[generator]()), weights)
        shown.write_bytes(preview)
        entries.append(
            f'[[style]]\nstyle_id = "{style_id}"\ntitle = "{style_id}"\nartist = "nobody"\n'
            f'year = "2026"\ngenerator = "{generator}"\nweights = "{weights.name}"\n'
            f'sha256 = "{file_sha256(weights)}"\npreview = "{shown.name}"\n'
            'picture_license = "CC0-1.0"\nweights_license = "CC0-1.0"\n'
        )
    (folder / "manifest.toml").write_text("\n".join(entries), encoding="utf-8")
    return Manifest.read(folder)
