"""What README.md and the pages of docs say is so."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest
from PIL import Image

import service.__main__
import service.server
from model_zoo.cards import SHIPPED_ZOO, Manifest, StyleCard
from service.app import create_app
from service.formats import FORMATS
from service.schemas import StylizeParameters
from service.settings import Settings, variable_name
from tests.documentation.pages import PAGES, blocks_of, name_of
from trainer.previews import PREVIEW_MAX_BYTES, PREVIEW_SIDE_PX
from trainer.style_sheets import (
    GALLERY_MAX_BYTES,
    OPENING_MAX_BYTES,
    OPENING_STYLES,
    SHEET_MAX_BYTES,
    comment_of,
    weights_comment,
)
from trainer.styles_page import styles_page

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]
MANIFEST = Manifest.read(SHIPPED_ZOO)
INVENTED_STYLES = {"starry-nite"}
"""Wrong on purpose, for an example of an error."""
SETTINGS_PAGE = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
API_PAGE = (ROOT / "docs/api.md").read_text(encoding="utf-8")
SETTING_ROW = re.compile(r"^\| `(ATELIER_\w+)` \| (.*?) \| (.*?) \|$", re.MULTILINE)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_stands_in_the_table_with_its_default(name: str) -> None:
    field = Settings.model_fields[name]
    rows = {row[1]: row for row in SETTING_ROW.finditer(SETTINGS_PAGE)}

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
    named = [row[1] for row in SETTING_ROW.finditer(SETTINGS_PAGE)]

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


@pytest.fixture(scope="module")
def endpoints(make_settings: Callable[..., Settings]) -> dict[str, dict[str, Any]]:
    """Of the OpenAPI document; whose key it is does not matter, without any there is no /admin."""
    app = create_app(make_settings(admin_keys="0" * 64, runtime="torch"))
    paths: dict[str, dict[str, Any]] = app.openapi()["paths"]
    return paths


def test_the_page_of_the_api_has_a_curl_for_every_endpoint(endpoints: dict[str, Any]) -> None:
    spoken_of = re.findall(r"127\.0\.0\.1:8000(/[\w./-]*)", API_PAGE)
    styles = {card.style_id for card in MANIFEST}
    spoken_of = [
        re.sub(r"(?<=/styles/)([\w-]+)", lambda m: "{style_id}" if m[1] in styles else m[1], path)
        for path in spoken_of
    ]
    spoken_of = [re.sub(r"(?<=/requests/)[\w-]+", "{request_id}", path) for path in spoken_of]

    assert set(endpoints) - set(spoken_of) == set()
    assert set(spoken_of) - set(endpoints) <= {"/openapi.json", "/docs"}


def test_the_page_of_the_api_lists_every_endpoint_with_its_method(
    endpoints: dict[str, Any],
) -> None:
    rows = re.findall(r"^\| \[`([A-Z]+) (/[^`]*)`\]", API_PAGE, re.MULTILINE)

    assert {(method.lower(), path) for method, path in rows} == {
        (method, path) for path, methods in endpoints.items() for method in methods
    }


def test_the_page_of_the_api_lists_every_parameter_of_stylize() -> None:
    table = API_PAGE.partition("| parameter | meaning |\n")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)

    assert rows == ["image", *StylizeParameters.model_fields]


def test_the_page_of_the_api_names_every_format_that_is_read() -> None:
    (row,) = re.findall(r"^\| `image` \| (.*) \|$", API_PAGE, re.MULTILINE)
    named = set(re.findall(r"\w+", row.lower()))

    assert set(FORMATS) <= named
    assert {"bmp", "tiff", "heic", "svg"} & named == set()


def test_readme_names_every_option_of_stylize() -> None:
    table = PAGES[0].read_text(encoding="utf-8").partition("| option |")[2].partition("\n\n")[0]

    assert re.findall(r"`(\w+)`", table) == [*StylizeParameters.model_fields]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_pages_name_only_styles_that_ship(page: Path) -> None:
    shell = "\n".join(block.code for block in blocks_of(page) if block.language == "sh")
    mixtures = re.findall(r"(?:style[= ]|--init )(\w[\w:.,-]*)", shell)
    named = {part.partition(":")[0] for mixture in mixtures for part in mixture.split(",")}

    assert named - INVENTED_STYLES <= {card.style_id for card in MANIFEST}


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
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    layout = page.partition("## Around the packages")[2]
    block = layout.partition("```text\n")[2].partition("```")[0]
    assert len(block.splitlines()) > 10
    for line in block.splitlines():
        for name in line.split("  ")[0].split():
            assert (ROOT / name).exists(), line


def test_the_picture_of_the_house_names_only_rooms_that_are_there() -> None:
    house = ElementTree.parse(ROOT / "docs/images/house.svg")  # noqa: S314  # our own
    rooms = {
        part.removesuffix("_runtime").lower()
        for package in ("service", "model_zoo", "trainer")
        for path in (ROOT / package).rglob("*")
        for part in (path.name, path.stem)
    }
    named = {
        name.lower()
        for text in house.iter("{http://www.w3.org/2000/svg}text")
        if text.get("class") == "name"
        for name in (text.text or "").split(", ")
    }

    assert len(named) > 20
    assert named <= rooms


def test_the_picture_of_the_house_can_be_read_on_dark_and_on_light() -> None:
    house = ElementTree.parse(ROOT / "docs/images/house.svg").getroot()  # noqa: S314
    (_, _, width, height) = map(float, house.attrib["viewBox"].split())
    paper = house.find("{http://www.w3.org/2000/svg}rect")

    assert paper is not None
    assert paper.get("class") == "paper"
    assert float(paper.attrib["width"]) > 0.99 * width
    assert float(paper.attrib["height"]) > 0.99 * height


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


def test_the_picture_that_readme_opens_with_is_of_styles_that_ship() -> None:
    opening = ROOT / "docs/images/opening.jpg"

    assert comment_of(opening) == weights_comment(MANIFEST.cards[:OPENING_STYLES]), "make zoo-docs"
    assert opening.stat().st_size <= OPENING_MAX_BYTES
