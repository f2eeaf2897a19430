"""One network, many styles: rows, their mixtures, and how a row comes from a style."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from model_zoo.cards import Manifest, ZooError, file_sha256
from model_zoo.checkpoints import load_style, save_generator
from model_zoo.generators.conditional import (
    IDENTITY_ROW,
    ConditionalGenerator,
    conditional,
    mixed,
    row_mix,
)
from model_zoo.generators.fast import fast
from model_zoo.tiling import as_part_of, measure_whole

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def generator() -> ConditionalGenerator:
    """Of four rows, each unlike the others."""
    torch.manual_seed(2)
    generator = conditional(rows=4)
    assert isinstance(generator, ConditionalGenerator)
    with torch.no_grad():
        generator.rows.add_(torch.randn_like(generator.rows) * 0.2)
    return generator.eval().requires_grad_(requires_grad=False)


@pytest.fixture
def photos() -> torch.Tensor:
    torch.manual_seed(3)
    return torch.rand(3, 3, 40, 56)


def test_batch_of_different_styles_equals_each_alone(
    generator: ConditionalGenerator, photos: torch.Tensor
) -> None:
    mixes = torch.tensor([[0, 1.0, 0, 0], [0, 0, 0.3, 0.7], [0.5, 0, 0, 0.5]])
    with mixed(generator, mixes):
        together = generator(photos)
    for number in range(len(photos)):
        with mixed(generator, mixes[number, None]):
            alone = generator(photos[number, None])[0]
        assert (together[number] - alone).abs().max() < 0.5 / 255
    assert (together[0] - together[1]).abs().max() > 0.1


def test_without_mixes_it_paints_in_its_own_style_row(
    generator: ConditionalGenerator, photos: torch.Tensor
) -> None:
    generator.style_row = 2
    own = generator(photos)
    with mixed(generator, row_mix(generator, 2)):
        assert torch.equal(generator(photos), own)
    generator.style_row = 3
    assert (generator(photos) - own).abs().max() > 0.1


def test_mixes_are_forgotten_afterwards_even_after_a_fault(
    generator: ConditionalGenerator, photos: torch.Tensor
) -> None:
    before = generator(photos)
    with pytest.raises(RuntimeError), mixed(generator, torch.ones(1, 9)):
        generator(photos)
    assert torch.equal(generator(photos), before)


def test_a_row_of_half_and_half_lies_between(generator: ConditionalGenerator) -> None:
    """Rows are mixed, not pictures: the layers' gains are those between the two."""
    with mixed(generator, torch.tensor([[0, 0.5, 0.5, 0]])):
        generator(torch.rand(1, 3, 32, 32))
    between = (generator.rows[1] + generator.rows[2]) / 2
    assert torch.allclose(
        torch.cat([generator.palette.gain, generator.palette.shift], 1)[0], between[-6:]
    )  # type: ignore[list-item]


def test_started_from_fast_it_paints_the_same_in_every_row(photos: torch.Tensor) -> None:
    torch.manual_seed(1)
    source = fast().eval()
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    generator = conditional(rows=3).eval()
    assert isinstance(generator, ConditionalGenerator)

    generator.start_from(source.state_dict())

    for row in range(3):
        generator.style_row = row
        assert (generator(photos) - source(photos)).abs().max() < 1e-4


@pytest.mark.parametrize("row", range(4))
def test_a_row_baked_into_fast_paints_the_same(
    generator: ConditionalGenerator, photos: torch.Tensor, row: int
) -> None:
    with mixed(generator, row_mix(generator, row)):
        painted = generator(photos)

    baked = generator.baked(row)

    assert baked.state_dict().keys() == fast().state_dict().keys()
    assert (baked(photos) - painted).abs().max() < 1e-3


def test_tiles_are_painted_as_the_whole_is(generator: ConditionalGenerator) -> None:
    photo = torch.rand(1, 3, 64, 400)
    mixes = torch.tensor([[0, 0.4, 0.6, 0]])
    with mixed(generator, mixes):
        whole = generator(photo)
        statistics = measure_whole(generator, photo, photo.std().view(1))
        at = torch.tensor(0)
        with as_part_of(generator, statistics, at, at):
            tile = generator.paint(photo[..., :272], None)
    assert (tile[..., :160] - whole[..., :160]).abs().max() < 1e-3


def test_a_network_needs_a_row_besides_the_identity() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        conditional(rows=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"style_row": IDENTITY_ROW}, "style_row = 0 must be one of the rows 1 to 3"),
        ({"style_row": 4}, "style_row = 4 must be one of the rows 1 to 3"),
        ({"generator": "fast", "arguments": {}, "weights": "f.safetensors"}, "has no rows"),
    ],
)
def test_a_card_without_its_row_is_refused(
    generator: ConditionalGenerator, tiny_zoo: Path, tmp_path: Path, changes: Any, message: str
) -> None:
    save_generator(generator, tmp_path / "c.safetensors")
    save_generator(fast(), tmp_path / "f.safetensors")
    card = replace(
        Manifest.read(tiny_zoo).cards[0],
        generator="conditional",
        arguments={"rows": 4},
        weights="c.safetensors",
        sha256=file_sha256(tmp_path / "c.safetensors"),
        style_row=2,
    )
    manifest = Manifest(tmp_path, (card,))
    loaded = load_style(manifest, card)
    assert isinstance(loaded, ConditionalGenerator)
    assert loaded.style_row == 2

    with pytest.raises(ZooError, match=message):
        changed = replace(card, **changes)
        sha256 = file_sha256(tmp_path / changed.weights)
        load_style(manifest, replace(changed, sha256=sha256))
