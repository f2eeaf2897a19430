"""The page for those who see it dark or small, not at all, or use no mouse; axe's findings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.page.visitor import STARRY_NIGHT, Visitor, read

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from playwright.sync_api import Route

    from tests.conftest import ServerProcess

PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
FINGERTIP_PX = 44
MOST_TABS = 40


def findings(visitor: Visitor) -> list[str]:
    """What axe calls serious or critical."""
    violations = Axe().run(visitor.page).response["violations"]
    return [
        f"{each['id']}: {node['html']}: {node['failureSummary']}"
        for each in violations
        if each["impact"] in {"serious", "critical"}
        for node in each["nodes"]
    ]


# --- axe


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", [{}, PHONE], ids=["desk", "phone"])
def test_axe_finds_nothing_serious_from_start_to_result(
    invite: Callable[..., Visitor],
    atelier: ServerProcess,
    photo: Path,
    scheme: str,
    device: dict[str, Any],
) -> None:
    visitor = invite(f"{atelier.url}/", color_scheme=scheme, **device).arrive()
    assert findings(visitor) == []

    visitor.offer(photo)
    visitor.see_painted()
    for summary in ("The same from a terminal", "Mix with other styles", "File"):
        visitor.page.get_by_text(summary, exact=True).click()
    assert findings(visitor) == []


def test_axe_finds_nothing_serious_in_trouble_and_in_dialogs(
    invite: Callable[..., Visitor], atelier: ServerProcess, photo: Path
) -> None:
    refusal = {"status": 401, "json": {"title": "Key needed", "detail": "a key is needed"}}
    for scheme in ("light", "dark"):
        visitor = invite(f"{atelier.url}/", color_scheme=scheme).arrive()
        visitor.expected = "status of 4"

        visitor.button("Take a photograph").click()
        expect(visitor.button("Shoot")).to_be_enabled()
        assert findings(visitor) == []
        visitor.button("Cancel").click()

        visitor.page.route("**/stylize", lambda route: route.fulfill(**refusal))
        visitor.offer(photo)
        expect(visitor.page.get_by_role("dialog")).to_be_visible()
        assert findings(visitor) == []
        visitor.button("Cancel").click()
        expect(visitor.problem).to_be_visible()
        assert findings(visitor) == []

        visitor.page.unroute("**/stylize")
        visitor.page.route("**/stylize", lambda _: None)
        visitor.button("Try again").click()
        expect(visitor.button("Stop")).to_be_visible()
        assert findings(visitor) == []


# --- the keyboard


def tab_to(visitor: Visitor, holds: str) -> None:
    """Press Tab until what has the focus is so; it has to be seen to have it."""
    for _ in range(MOST_TABS):
        visitor.page.keyboard.press("Tab")
        if visitor.page.evaluate(
            f"(() => {{ const e = document.activeElement; return {holds}; }})()"
        ):
            return
    pytest.fail(f"no {holds} within {MOST_TABS} tabs")


def test_the_keyboard_is_enough_from_start_to_result(visitor: Visitor, photo: Path) -> None:
    press = visitor.page.keyboard.press
    visitor.page.evaluate(
        "document.body.addEventListener('mousedown', () => { window.mouse = 1; })"
    )

    tab_to(visitor, "e.matches('.skip')")
    press("Enter")
    tab_to(visitor, "e.name === 'style'")
    press("ArrowRight")
    press("ArrowRight")
    expect(visitor.page.get_by_role("radio", name="The Scream").first).to_be_checked()

    visitor.page.keyboard.press("Shift+Tab")
    tab_back_to_choose(visitor)
    with visitor.page.expect_file_chooser() as chooser:
        press("Enter")
    chooser.value.set_files(photo)
    visitor.see_painted("The Scream")

    visitor.page.evaluate("document.activeElement.blur()")
    tab_to(visitor, "e.closest('#comparison') && e.type === 'range'")
    press("ArrowLeft")
    press("ArrowLeft")
    expect(visitor.slider).to_have_value("98")
    expect(visitor.slider).to_have_attribute("aria-valuetext", "98 % painting")
    press("Home")
    expect(visitor.slider).to_have_value("0")

    tab_to(visitor, "e.id === 'download'")
    with visitor.page.expect_download() as saving:
        press("Enter")
    assert read(saving.value)[0] == "coffee-the-scream.jpg"
    assert visitor.page.evaluate("window.mouse") is None


def tab_back_to_choose(visitor: Visitor) -> None:
    for _ in range(MOST_TABS):
        if visitor.page.evaluate("'choose' in document.activeElement.dataset"):
            return
        visitor.page.keyboard.press("Shift+Tab")
    pytest.fail("the button for choosing is not reached")


def test_whatever_has_the_focus_shows_it(visitor: Visitor, photo: Path) -> None:
    visitor.offer(photo)
    visitor.see_painted()
    bare = []
    ringed = """(() => {
      const lit = (e) => parseFloat(getComputedStyle(e).outlineWidth) > 1
        && getComputedStyle(e).outlineStyle !== 'none';
      const e = document.activeElement;
      const ring = e.matches('[name=style]') ? e.parentElement.querySelector('.thumb')
        : e.closest('#comparison') ?? e;
      return e === document.body || lit(ring) ? '' : e.outerHTML.slice(0, 80);
    })()"""
    for _ in range(MOST_TABS):
        visitor.page.keyboard.press("Tab")
        bare.append(visitor.page.evaluate(ringed))

    assert [*filter(None, bare)] == []


def test_the_focus_is_never_lost_where_a_button_goes_away(visitor: Visitor, photo: Path) -> None:
    visitor.button("Choose a photograph").focus()
    with visitor.page.expect_file_chooser() as chooser:
        visitor.page.keyboard.press("Enter")
    chooser.value.set_files(photo)
    visitor.see_painted()

    assert visitor.page.evaluate("document.activeElement.closest('#easel') !== null")


# --- those who hear it


def test_what_happens_is_said_aloud_in_order(visitor: Visitor, photo: Path) -> None:
    status = visitor.page.get_by_role("status")
    said: list[str] = []
    visitor.page.expose_function("hear", lambda words: said.append(words))
    visitor.page.evaluate(
        "new MutationObserver(() => hear(document.getElementById('status').textContent))"
        ".observe(document.getElementById('status'), { childList: true })"
    )

    visitor.offer(photo)
    visitor.see_painted()

    assert status.count() >= 1
    assert said[0] == "Sending the photograph"
    assert said[-1] == f"Painted in {STARRY_NIGHT}"
    assert len(said) == len({*said})  # nothing twice


# --- how it looks


def test_the_dark_is_dark_and_the_light_is_light(visitor: Visitor) -> None:
    def brightness() -> float:
        colour = visitor.page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(","))) / 3

    assert brightness() > 200
    visitor.page.emulate_media(color_scheme="dark")
    assert brightness() < 60


def test_nothing_moves_for_those_who_want_no_motion(visitor: Visitor) -> None:
    moving = (
        "[...document.querySelectorAll('*')].filter((e) => { const s = getComputedStyle(e);"
        " return parseFloat(s.transitionDuration) || parseFloat(s.animationDuration)"
        " || s.scrollBehavior === 'smooth'; }).length"
    )
    assert visitor.page.evaluate(moving) > 0

    visitor.page.emulate_media(reduced_motion="reduce")

    assert visitor.page.evaluate(moving) == 0


def test_on_a_phone_all_is_in_one_column_and_large_enough_to_touch(
    invite: Callable[..., Visitor], atelier: ServerProcess, photo: Path
) -> None:
    visitor = invite(f"{atelier.url}/", **PHONE).arrive()
    visitor.offer(photo)
    visitor.see_painted()

    wide = "document.scrollingElement.scrollWidth - document.scrollingElement.clientWidth"
    assert visitor.page.evaluate(wide) == 0
    boxes = visitor.page.locator(
        "button, .button, select, summary, input[type=range]"
    ).evaluate_all(
        "all => all.filter((e) => e.checkVisibility())"
        ".map((e) => [e.outerHTML.slice(0, 60), e.getBoundingClientRect().height])"
    )
    assert len(boxes) > 6
    assert [box for box in boxes if box[1] < FINGERTIP_PX] == []
    picture, gallery = (
        visitor.page.locator(name).bounding_box() for name in ("#comparison", "#gallery")
    )
    assert picture is not None
    assert gallery is not None
    assert gallery["y"] > picture["y"] + picture["height"]
    assert picture["width"] > 300


def test_a_long_word_in_a_title_stays_in_its_column(
    invite: Callable[..., Visitor], atelier: ServerProcess
) -> None:
    visitor = invite(f"{atelier.url}/")

    def lengthen(route: Route) -> None:
        answer = route.fetch()
        listing = answer.json()
        listing["styles"][1]["title"] = 3 * "Donaudampfschifffahrt"
        route.fulfill(response=answer, json=listing)

    visitor.page.route("**/styles", lengthen)
    visitor.arrive()

    widths = visitor.page.locator(".thumb").evaluate_all(
        "(all) => all.map((thumb) => thumb.offsetWidth)"
    )
    assert len(set(widths)) == 1


def test_without_scripts_there_is_a_plain_sentence_and_nothing_to_press(
    invite: Callable[..., Visitor], atelier: ServerProcess
) -> None:
    page = invite(f"{atelier.url}/", java_script_enabled=False).page
    page.goto(f"{atelier.url}/")

    notice = page.locator(".notice")
    expect(notice).to_be_visible()
    expect(page.get_by_role("button")).to_have_count(0)
    heading = page.get_by_role("heading", name="Atelier").bounding_box()
    first_word = notice.evaluate("""(it) => {
      const range = document.createRange();
      range.selectNodeContents(it);
      return range.getClientRects()[0].left;
    }""")
    assert heading is not None
    assert first_word == pytest.approx(heading["x"], abs=1)
