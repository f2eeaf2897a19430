"""From a photograph to its painting."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.page.visitor import STARRY_NIGHT, Visitor, pixels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import ServerProcess

CROWD = 10
SMALL = (50, 33)
COUNT_CLICKS = """() => {
  window.clicks = 0;
  addEventListener("pointerdown", () => { window.clicks += 1; }, true);
}"""


def test_a_photograph_and_a_style_make_a_painting_within_three_clicks(
    visitor: Visitor, photo: Path
) -> None:
    visitor.page.evaluate(COUNT_CLICKS)

    visitor.page.get_by_text("The Scream", exact=True).first.click()
    visitor.offer(photo)
    visitor.see_painted("The Scream")

    assert 0 < visitor.page.evaluate("window.clicks") <= 3
    name, painting = visitor.download()
    assert name == "coffee-the-scream.jpg"
    assert Image.open(io.BytesIO(painting)).size == (400, 267)
    assert np.abs(pixels(painting) - pixels(photo)).mean() > 10
    expect(visitor.page.locator("#caption")).to_have_text(re.compile("^The Scream, 400 . 267 px$"))


def test_another_style_paints_the_same_photograph_anew(visitor: Visitor, photo: Path) -> None:
    visitor.offer(photo)
    visitor.see_painted(STARRY_NIGHT)
    _, first = visitor.download()

    visitor.choose_style("Tableau")
    visitor.see_painted("Tableau")

    _, second = visitor.download()
    assert np.abs(pixels(first) - pixels(second)).mean() > 10


def test_the_last_of_many_quick_choices_is_what_is_painted(visitor: Visitor, photo: Path) -> None:
    visitor.offer(photo)
    for title in ("The Scream", "Tableau", "Composition VII"):
        visitor.choose_style(title)
    visitor.see_painted("Composition VII")

    assert visitor.download()[0] == "coffee-composition-vii.jpg"
    assert "style=composition-vii" in visitor.page.locator("#command-text").text_content()


def test_a_painting_that_is_ready_too_late_is_not_shown_for_the_next_photograph(
    visitor: Visitor, photo: Path, photos: Callable[..., Path]
) -> None:
    # The first painting is opened by the browser only once another photograph is there.
    visitor.page.evaluate(
        """() => {
          const decode = HTMLImageElement.prototype.decode;
          HTMLImageElement.prototype.decode = async function () {
            HTMLImageElement.prototype.decode = decode;
            await new Promise((resolve) => { self.goOn = resolve; });
          };
        }"""
    )
    visitor.offer(photo)
    visitor.page.wait_for_function("() => self.goOn")
    visitor.page.route("**/stylize", lambda _: None)  # never answered

    visitor.offer(photos("astronaut"), button="Another photograph")
    visitor.page.evaluate("() => self.goOn()")
    visitor.page.wait_for_timeout(200)

    expect(visitor.page.locator("#caption")).to_have_text("")
    expect(visitor.page.get_by_role("link", name="Download")).to_have_count(0)
    expect(visitor.button("Stop")).to_have_count(1)


def test_the_slider_uncovers_the_photograph_from_the_right(visitor: Visitor, photo: Path) -> None:
    visitor.offer(photo)
    visitor.see_painted()
    box = visitor.slider.bounding_box()
    assert box is not None

    middle = box["y"] + box["height"] / 2
    visitor.page.mouse.move(box["x"] + box["width"] - 1, middle)
    visitor.page.mouse.down()
    visitor.page.mouse.move(box["x"] + box["width"] * 0.4, middle, steps=5)
    visitor.page.mouse.up()

    assert int(visitor.slider.input_value()) == pytest.approx(40, abs=4)
    # Small, since the browser may draw it a fraction of a pixel aside.
    seen = pixels(visitor.page.locator("#comparison").screenshot(), size=SMALL)
    change = np.abs(seen - pixels(photo, size=SMALL)).mean(axis=(0, 2))
    assert change[:18].mean() > 10
    assert change[25:].mean() < 4


def test_the_painting_is_what_is_seen_when_it_is_ready(visitor: Visitor, photo: Path) -> None:
    visitor.offer(photo)
    visitor.see_painted()
    visitor.page.mouse.move(0, 0)

    seen = pixels(visitor.page.locator("#comparison").screenshot(), size=SMALL)

    _, painting = visitor.download()
    assert np.abs(seen - pixels(painting, size=SMALL))[:, :45].mean() < 4
    expect(visitor.page.locator(".after")).to_have_attribute(
        "alt", f"Your photograph, painted in {STARRY_NIGHT}"
    )


@pytest.mark.parametrize("file_name", ["coffee.jpg", 'it\'s a, "fine"; photo (1) $HOME.jpg'])
def test_the_command_gives_the_same_bytes_from_a_shell(
    visitor: Visitor, photos: Callable[..., Path], tmp_path: Path, file_name: str
) -> None:
    bash, curl = shutil.which("bash"), shutil.which("curl")
    if bash is None or curl is None:
        pytest.skip("bash or curl is not installed")
    photo = photos("coffee", file_name=file_name)
    visitor.page.get_by_label("Keep the colours").check()
    visitor.offer(photo)
    visitor.see_painted()
    visitor.page.get_by_text("The same from a terminal").click()
    shutil.copy(photo, tmp_path)

    subprocess.run([bash, "-c", visitor.command], cwd=tmp_path, check=True, capture_output=True)

    name, painting = visitor.download()
    assert "keep_colors=true" in visitor.command
    (made,) = set(tmp_path.iterdir()) - {tmp_path / file_name}
    assert made.read_bytes() == painting
    # A browser replaces what file systems of other kinds refuse.
    assert made.name.startswith(name[:4])


def test_the_command_can_be_copied(visitor: Visitor, photo: Path) -> None:
    visitor.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    visitor.offer(photo)
    visitor.see_painted()
    visitor.page.get_by_text("The same from a terminal").click()

    visitor.button("Copy").click()

    expect(visitor.page.locator("#copied")).to_have_text("Copied")
    assert visitor.page.evaluate("navigator.clipboard.readText()") == visitor.command


def test_a_painting_that_is_stopped_can_be_begun_again(visitor: Visitor, photo: Path) -> None:
    visitor.page.route("**/stylize", lambda _: None)  # never answered
    visitor.offer(photo)
    visitor.button("Stop").click()
    expect(visitor.problem).to_contain_text("Stopped")
    visitor.page.unroute("**/stylize")

    visitor.button("Try again").click()

    visitor.see_painted()
    expect(visitor.problem).to_have_count(0)


@contextmanager
def a_crowd_before(service: ServerProcess, photo: Path) -> Iterator[None]:
    """Others whose pictures are painted one after the other."""
    form = {"style": "starry-night-hq", "max_side": "700"}

    def paint(name: str) -> int:
        files, headers = {"image": photo.read_bytes()}, {"X-Request-ID": name}
        return http.post("/stylize", files=files, data=form, headers=headers).status_code

    def waits(name: str) -> bool:
        return http.get(f"/requests/{name}").json().get("stage") == "waiting"

    names = [f"crowd-{number}" for number in range(CROWD)]
    with httpx.Client(base_url=service.url, timeout=60) as http, ThreadPoolExecutor(CROWD) as pool:
        painting = [pool.submit(paint, name) for name in names]
        while sum(map(waits, names)) < CROWD / 2 and not all(each.done() for each in painting):
            time.sleep(0.02)
        yield
        assert [each.result() for each in painting] == [200] * CROWD


def test_a_visitor_who_waits_is_told_how_many_come_first(
    invite: Callable[..., Visitor], atelier: ServerProcess, photo: Path, photos: Callable[..., Path]
) -> None:
    visitor = invite(f"{atelier.url}/").arrive()
    words: list[str] = []
    visitor.page.expose_function("hear", lambda line: words.append(line))
    visitor.page.evaluate(
        "new MutationObserver(() => hear(document.getElementById('status').textContent))"
        ".observe(document.getElementById('status'), { childList: true })"
    )

    with a_crowd_before(atelier, photos("astronaut", width=700)):
        visitor.offer(photo)
        visitor.see_painted()

    before = [line for line in words if line.startswith("Waiting: ")]
    assert before
    assert int(before[0].split()[1]) >= 1
    assert words[-1] == f"Painted in {STARRY_NIGHT}"
