"""What README.md and the pages of docs say is so."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest
from PIL import Image

import service.__main__
import service.server
from model_zoo.cards import SHIPPED_ZOO, Manifest, StyleCard
from service.app import create_app
from service.settings import Settings, variable_name
from trainer.previews import PREVIEW_MAX_BYTES, PREVIEW_SIDE_PX
from trainer.style_sheets import (
    GALLERY_MAX_BYTES,
    SHEET_MAX_BYTES,
    comment_of,
    weights_comment,
)
from trainer.styles_page import styles_page

ROOT = Path(__file__).parents[1]
MANIFEST = Manifest.read(SHIPPED_ZOO)
README = (ROOT / "README.md").read_text(encoding="utf-8")
SETTING_ROW = re.compile(r"^\| `(ATELIER_\w+)` \| (.*?) \| (.*?) \|$", re.MULTILINE)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_stands_in_the_table_with_its_default(name: str) -> None:
    field = Settings.model_fields[name]
    rows = {row[1]: row for row in SETTING_ROW.finditer(README)}

    row = rows[variable_name(name)]

    assert row[3] == field.description
    if name == "zoo":
        assert row[2] == "the shipped zoo"
    elif field.default is None:
        assert row[2] == "by the device"
    elif field.default_factory:
        assert row[2] == "all available cores"
    else:
        assert row[2] == (f"`{field.default}`" if field.default != "" else "")


def test_the_table_has_no_setting_that_is_gone() -> None:
    named = [row[1] for row in SETTING_ROW.finditer(README)]

    assert named == [variable_name(name) for name in Settings.model_fields]


def test_the_page_of_running_names_every_exit_code() -> None:
    page = (ROOT / "docs/running.md").read_text(encoding="utf-8")
    table = page.partition("| exit code |")[2].partition("\n\n")[0]
    named = {int(code) for code in re.findall(r"\b\d+\b", table.replace("5 s", ""))}
    codes = {
        value
        for module in (service.__main__, service.server)
        for name, value in vars(module).items()
        if name.startswith("EXIT_")
    }

    assert named == codes | {0, 128 + signal.SIGINT, 128 + signal.SIGTERM}


def test_the_page_of_running_names_the_default_of_each_time_limit() -> None:
    page = (ROOT / "docs/running.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| .* \| (\d+) s[^|]*\| `(ATELIER_\w+)` \|$", page, re.MULTILINE)

    assert len(rows) == 5
    for seconds, name in rows:
        field = Settings.model_fields[name.removeprefix("ATELIER_").lower()]
        assert float(seconds) == field.default


def test_readme_has_a_curl_for_every_endpoint() -> None:
    spoken_of = re.findall(r"127\.0\.0\.1:8000(/[\w./-]*)", README)
    styles = {card.style_id for card in MANIFEST}
    spoken_of = [
        re.sub(r"(?<=/styles/)([\w-]+)", lambda m: "{style_id}" if m[1] in styles else m[1], path)
        for path in spoken_of
    ]
    # Whose key it is does not matter here; without any there is no /admin.
    paths = create_app(Settings(admin_keys="0" * 64)).openapi()["paths"]

    assert set(paths) - set(spoken_of) == set()
    assert set(spoken_of) - set(paths) <= {"/openapi.json", "/docs"}


def test_readme_names_only_styles_that_ship() -> None:
    styles = {card.style_id for card in MANIFEST}

    assert set(re.findall(r"(?:style=|--init )([\w-]+)", README)) <= styles


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))])
def test_links_to_files_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_every_test_that_the_page_on_security_points_to_is_there() -> None:
    page = (ROOT / "docs/security.md").read_text(encoding="utf-8")
    source = {
        path.name: path.read_text(encoding="utf-8") for path in ROOT.glob("tests/**/test_*.py")
    }
    pointers = re.findall(r"`(?:(test_\w+\.py)?(?:::))?(test_\w+)`", page)
    assert len(pointers) > 50
    file = ""
    for named, test in pointers:
        file = named or file
        # Without a file: that of the one before, or, in the table of pictures, of hostile ones.
        places = source[named] if named else source[file] + source["test_hostile.py"]
        assert f"def {test}(" in places, test


def test_layout_names_what_is_there() -> None:
    block = README.partition("## Layout")[2].partition("```text\n")[2].partition("```")[0]
    for line in block.splitlines():
        assert (ROOT / line.split()[0]).exists(), line


def test_the_page_of_styles_is_what_the_manifest_gives() -> None:
    page = (ROOT / "docs/styles.md").read_text(encoding="utf-8")

    assert page == styles_page(MANIFEST, ROOT / "docs"), "make zoo-docs"


def test_there_is_a_sheet_for_every_style_and_for_no_other() -> None:
    sheets = {path.stem for path in (ROOT / "docs/styles").iterdir()}

    assert sheets == {"photographs", *(card.style_id for card in MANIFEST)}


@pytest.mark.parametrize("card", MANIFEST.cards, ids=lambda card: card.style_id)
def test_sheet_and_preview_are_small_and_of_the_weights_that_ship(card: StyleCard) -> None:
    sheet = ROOT / f"docs/styles/{card.style_id}.jpg"
    preview = MANIFEST.preview_path(card)

    assert comment_of(sheet) == weights_comment([card]), "make zoo-docs"
    assert sheet.stat().st_size <= SHEET_MAX_BYTES
    assert preview.stat().st_size <= PREVIEW_MAX_BYTES
    with Image.open(preview) as image:
        assert image.size == (PREVIEW_SIDE_PX, PREVIEW_SIDE_PX)  # of one photograph


def test_the_gallery_shows_the_styles_that_ship() -> None:
    gallery = ROOT / "docs/images/gallery.jpg"

    assert comment_of(gallery) == weights_comment(MANIFEST.cards), "make zoo-docs"
    assert gallery.stat().st_size <= GALLERY_MAX_BYTES
