"""`zoo-docs`: the page of all styles and its pictures, small and of the weights that they name."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image, ImageFont

from model_zoo.cards import Manifest
from model_zoo.checkpoints import load_style
from trainer.__main__ import main
from trainer.manifest_writer import write_manifest
from trainer.previews import find_preview_photo
from trainer.sample_photos import astronaut, sample_photos
from trainer.style_sheets import (
    SHEET_MAX_BYTES,
    comment_of,
    gallery_columns,
    opening,
    shortened,
    weights_comment,
)
from trainer.styles_page import styles_page

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def zoo(tiny_zoo: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_zoo, tmp_path / "zoo")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sooner painted."""
    monkeypatch.setattr("trainer.style_sheets.CELL_PX", 48)
    photo = astronaut().resize((64, 64))
    monkeypatch.setattr("trainer.style_sheets.astronaut", lambda: photo)
    monkeypatch.setattr("trainer.commands.zoo_docs.astronaut", lambda: photo)


def test_the_sample_photographs_are_squares_unlike_each_other() -> None:
    photos = dict(sample_photos(64))

    assert len(photos) == 12
    assert {photo.size for photo in photos.values()} == {(64, 64)}
    pixels = {name: np.asarray(photo).astype(float) for name, photo in photos.items()}
    for name, one in pixels.items():
        for other in pixels.keys() - {name}:
            assert np.abs(one - pixels[other]).mean() > 20, (name, other)
    assert (pixels["white background"][0] == 255).all()
    assert (pixels["black background"][0] == 0).all()


@pytest.mark.parametrize(
    ("panels", "columns"),
    [(1, 1), (2, 2), (3, 3), (4, 4), (8, 4), (10, 5), (13, 5), (14, 5), (15, 5), (16, 4)],
)
def test_the_gallery_leaves_few_places_empty(panels: int, columns: int) -> None:
    assert gallery_columns(panels) == columns


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "words", ["Udnie", "Udnie (Young American Girl, The Dance), to be mixed", ""]
)
@pytest.mark.parametrize("width_px", [20, 120, 1000])
def test_a_caption_is_no_wider_than_its_picture(words: str, width_px: int) -> None:
    font = ImageFont.load_default(13)
    caption = shortened(words, font, width_px)
    assert font.getlength(caption) <= width_px
    assert caption == words or words.startswith(caption.removesuffix("…"))
    assert (caption == words) == (font.getlength(words) <= width_px)


def test_page_sheets_and_gallery_are_written_and_name_their_weights(
    zoo: Path, tmp_path: Path
) -> None:
    docs = tmp_path / "docs"

    assert main(["zoo-docs", f"--zoo={zoo}", f"--docs={docs}", "--threads=1"]) == 0

    manifest = Manifest.read(zoo)
    assert {path.name for path in (docs / "styles").iterdir()} == {
        "photographs.jpg",
        "ink.jpg",
        "wash.jpg",
    }
    for card in manifest:
        sheet = docs / f"styles/{card.style_id}.jpg"
        assert comment_of(sheet) == weights_comment([card])
        assert sheet.stat().st_size <= SHEET_MAX_BYTES
    for picture in ("gallery", "opening"):
        assert comment_of(docs / f"images/{picture}.jpg") == weights_comment(manifest.cards)
    assert weights_comment([manifest.card("ink")]) != weights_comment([manifest.card("wash")])
    assert (docs / "styles.md").read_text() == styles_page(manifest, docs)
    # Each sheet shows its own style.
    ink, wash = (np.asarray(Image.open(docs / f"styles/{i}.jpg")) for i in ("ink", "wash"))
    assert np.abs(ink.astype(float) - wash).mean() > 5


@pytest.mark.usefixtures("small")
def test_previews_are_painted_again_from_the_common_photograph(zoo: Path, tmp_path: Path) -> None:
    before = Manifest.read(zoo)

    arguments = [f"--zoo={zoo}", f"--docs={tmp_path / 'docs'}", "--threads=1", "--previews"]
    assert main(["zoo-docs", *arguments]) == 0

    manifest = Manifest.read(zoo)
    manifest.verify()
    for card in manifest:
        with Image.open(manifest.preview_path(card)) as preview:
            assert preview.size == (64, 64)
        assert not before.preview_path(before.card(card.style_id)).exists()
    assert f"zoo/{manifest.card('ink').preview}" in (tmp_path / "docs/styles.md").read_text()
    assert [card.sha256 for card in manifest] == [card.sha256 for card in before]


@pytest.mark.usefixtures("small")
def test_the_opening_shows_the_first_styles_in_one_row(
    zoo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.style_sheets.OPENING_STYLES", 1)
    manifest = Manifest.read(zoo)
    generators = [load_style(manifest, card) for card in manifest]

    with Image.open(io.BytesIO(opening(manifest, generators))) as picture:
        assert picture.info["comment"].decode() == weights_comment(manifest.cards[:1])
        assert picture.width > 1.8 * picture.height  # two panels beside each other


def test_sheets_of_other_photographs_go_where_they_are_asked_for(
    zoo: Path, photo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["zoo-docs", f"--zoo={zoo}", f"--photos={photo_folder}", "--size-px=64"]

    assert main([*arguments, f"--out={out}", f"--docs={tmp_path / 'docs'}"]) == 0

    assert {path.name for path in out.iterdir()} == {"ink.jpg", "wash.jpg"}
    assert not (tmp_path / "docs").exists()
    assert main(arguments) == 2
    assert "--photos and --out belong together" in capsys.readouterr().err


def test_the_page_has_every_fact_of_a_card_and_does_without_those_that_are_not_there(
    zoo: Path, tmp_path: Path
) -> None:
    manifest = Manifest.read(zoo)
    ink = replace(
        manifest.card("ink"),
        title="Ink | water",
        description="Black on white.",
        recipe="starry-night.toml",
        training={"steps": 3000, "init": "wash", "minutes": 7, "machine": "CPU", "torch": "2.9"},
        quality={"mean_gap": 0.25, "worst_gap": 0.5, "size_px": 256},
    )
    wash = replace(manifest.card("wash"), training={"imported_from": "elsewhere", "file": "w.pth"})
    write_manifest(Manifest(zoo, (ink, wash)))

    page = styles_page(Manifest.read(zoo), tmp_path / "docs")

    head, of_ink, of_wash = page.split("\n## ")
    assert "| [ink](#ink) | Ink \\| water | Nobody | 2016 | `johnson_half` | 0.25 |" in head
    assert "| [wash](#wash) | Wash | Nobody | 2016 | `johnson_half` |  |" in head
    for fact in (
        "Black on white.",
        "picture CC0-1.0, weights Apache-2.0",
        "trainer/recipes/starry-night.toml), 3,000 steps, started from wash.",
        "Machine: CPU, torch 2.9, 7 minutes.",
        "| gap, mean | gap, worst |",
        "| 0.25 | 0.5 |",
        "](styles/ink.jpg)",
    ):
        assert fact in of_ink, fact
    assert "Imported from elsewhere, `w.pth`." in of_wash
    assert "| gap" not in of_wash


def test_previews_are_of_the_astronaut_unless_another_is_given(tmp_path: Path) -> None:
    other = tmp_path / "other.png"
    Image.new("RGB", (40, 20), "red").save(other)

    assert find_preview_photo(None).tobytes() == astronaut().tobytes()
    assert find_preview_photo(other).size == (512, 256)


def test_where_scikit_image_is_missing_a_drawn_photograph_stands_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "skimage", None)

    assert find_preview_photo(None).size == (512, 384)
