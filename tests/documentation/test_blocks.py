"""Every block of code in README.md and docs is run, or read, as it stands there.

What no test can run is on the list of ``stand_ins``, with its reason and what is checked instead.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from PIL import Image

from service.formats import FORMATS
from tests.documentation.pages import PAGES, Block, blocks_of
from tests.documentation.stand_ins import read_calls

if TYPE_CHECKING:
    from tests.conftest import ServerProcess
    from tests.documentation.conftest import Workplace

PLACE = "http://127.0.0.1:8000"
BLOCKS = [block for page in PAGES for block in blocks_of(page)]
OUTPUTS = {block.output for block in BLOCKS if block.output}

RUN = ("sh", "python", "js", "html")
READ = {"json": json.loads, "yaml": yaml.safe_load, "toml": tomllib.loads}
SHOWN = {"text": "drawings, lists of files, and what commands print"}

OF_CURL = 22
"""Its exit code where an answer is an error."""

FORMAT_OF = {f".{row.suffix}": name for name, row in FORMATS.items()}
FORMAT_OF[".jpeg"] = "jpeg"


def blocks(*languages: str) -> Any:
    chosen = [block for block in BLOCKS if block.language in languages]
    return pytest.mark.parametrize("block", chosen, ids=map(str, chosen))


def test_every_block_is_in_a_language_that_is_run_or_read_here() -> None:
    strange = {f"{block}: {block.language!r}" for block in BLOCKS}
    strange -= {
        f"{block}: {block.language!r}"
        for block in BLOCKS
        if block.language in {*RUN, *READ, *SHOWN}
    }

    assert strange == set()


@blocks("sh")
def test_commands_do_what_the_page_says(
    block: Block,
    workplace: Workplace,
    documented_service: ServerProcess,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "curl " in block.code:
        find("curl")
    shell = [find("bash"), "-euo", "pipefail", "-c"]
    expected = block.output.code if block.output else None

    finished = run([*shell, code_of(block, documented_service)], workplace)

    if expected is None:
        assert finished.returncode == 0, finished.stdout
    elif block.output.language == "json":
        document = json.loads(expected)
        assert_same(json.loads(finished.stdout[finished.stdout.index("{") :]), document)
        assert finished.returncode == (OF_CURL if document.get("status", 200) >= 400 else 0)
    else:
        pattern = ".*".join(map(re.escape, expected.strip().split("…")))
        assert re.fullmatch(pattern, finished.stdout.strip(), re.DOTALL), finished.stdout
    assert_pictures_are_sound(workplace)
    for path in re.findall(r" -o (\w[\w./-]*)", block.code):
        assert (workplace.folder / path).exists(), path
    for entry, call in read_calls(workplace.records):
        entry.check(call, monkeypatch)


@blocks("python")
def test_python_does_what_the_page_says(
    block: Block, workplace: Workplace, documented_service: ServerProcess
) -> None:
    python = [sys.executable, "-W", "error", "-c"]

    finished = run([*python, code_of(block, documented_service)], workplace)

    assert finished.returncode == 0, finished.stdout
    assert (assert_pictures_are_sound(workplace) > 0) == (PLACE in block.code)


@blocks("js")
def test_javascript_does_what_the_page_says(
    block: Block, workplace: Workplace, documented_service: ServerProcess
) -> None:
    module = workplace.folder / "example.mjs"
    module.write_text(code_of(block, documented_service))

    finished = run([find("node"), str(module)], workplace)

    assert (finished.returncode, finished.stdout) == (0, "")
    assert assert_pictures_are_sound(workplace) > 0


@blocks("html")
def test_a_page_does_in_a_browser_what_is_said_of_it(
    block: Block, workplace: Workplace, documented_service: ServerProcess
) -> None:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    document = workplace.folder / "example.html"
    document.write_text(code_of(block, documented_service))

    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page()
        page.goto(document.as_uri())
        page.set_input_files("input[type=file]", workplace.folder / "photo.jpg")
        page.wait_for_function("document.querySelector('img').naturalWidth === 320")
        assert page.inner_text("[role=alert]") == ""
        page.set_input_files("input[type=file]", document)
        page.wait_for_function("document.querySelector('[role=alert]').textContent !== ''")
        assert "picture" in page.inner_text("[role=alert]")
        browser.close()


@blocks(*READ)
def test_data_is_well_formed(block: Block) -> None:
    assert READ[block.language](block.code)


def find(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed")
    return path


def code_of(block: Block, service: ServerProcess) -> str:
    return block.code.replace(PLACE, service.url)


def run(command: list[str], workplace: Workplace) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=workplace.folder,
        env=workplace.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )


def assert_pictures_are_sound(workplace: Workplace) -> int:
    """Each is of the format that its name says; gives how many an example made."""
    made = 0
    for path in workplace.folder.rglob("*"):
        if path.suffix in FORMAT_OF and path not in workplace.given:
            with Image.open(path) as picture:
                picture.load()
                assert picture.format.lower() == FORMAT_OF[path.suffix], path.name
            made += 1
    return made


def assert_same(found: Any, expected: Any) -> None:
    """``…`` stands for any text."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert_same(found[name], value)
    elif expected != "…":
        assert found == expected
