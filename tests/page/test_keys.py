"""A service with keys: the page asks for one, uses it, and gives it to nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from service.keys import hash_key
from tests.page.visitor import STARRY_NIGHT, Visitor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.conftest import ServerProcess

KEY = "atelier_of_a_visitor"
REFUSED = "status of 401"


@pytest.fixture(scope="module")
def locked(
    open_service: Callable[..., AbstractContextManager[ServerProcess]],
) -> Iterator[ServerProcess]:
    with open_service(ATELIER_API_KEYS=f"visitor={hash_key(KEY)}") as service:
        yield service


@pytest.fixture
def stranger(invite: Callable[..., Visitor], locked: ServerProcess) -> Visitor:
    visitor = invite(f"{locked.url}/")
    visitor.expected = REFUSED
    visitor.page.goto(visitor.place)
    return visitor


def enter(visitor: Visitor, key: str) -> None:
    dialog = visitor.page.get_by_role("dialog", name="A key is needed")
    expect(dialog.get_by_label("Key", exact=True)).to_be_focused()
    dialog.get_by_label("Key", exact=True).fill(key)
    visitor.page.keyboard.press("Enter")


def test_a_visitor_with_a_key_sees_the_styles_and_paints(stranger: Visitor, photo: Path) -> None:
    enter(stranger, KEY)
    expect(stranger.styles.first).to_be_checked()
    stranger.page.wait_for_function(
        "() => document.querySelector('.thumb img').naturalWidth === 512"
    )
    stranger.page.wait_for_function("() => document.getElementById('example').naturalWidth === 512")

    stranger.offer(photo)
    stranger.see_painted(STARRY_NIGHT)

    assert "$ATELIER_KEY" in stranger.page.locator("#command-text").text_content()
    assert KEY not in stranger.page.content()


def test_a_wrong_key_is_asked_for_again_and_the_right_one_kept_in_this_tab_alone(
    stranger: Visitor,
) -> None:
    enter(stranger, "atelier_guess")
    expect(stranger.problem).to_contain_text("That key is not known here")
    enter(stranger, KEY)
    expect(stranger.styles.first).to_be_checked()

    stranger.arrive()

    kept = "[JSON.stringify(localStorage), document.cookie]"
    assert stranger.page.evaluate(kept) == ["{}", ""]
    other = Visitor(stranger.page.context.new_page(), stranger.place)
    other.page.goto(other.place)
    expect(other.page.get_by_role("dialog")).to_be_visible()


def test_a_visitor_who_has_no_key_can_go_on_later(stranger: Visitor) -> None:
    stranger.button("Cancel").click()
    expect(stranger.problem).to_contain_text("Key needed")

    stranger.button("Try again").click()

    enter(stranger, KEY)
    expect(stranger.styles.first).to_be_checked()


def test_a_key_that_is_withdrawn_while_the_page_is_open_is_asked_for_anew(
    stranger: Visitor, photo: Path
) -> None:
    enter(stranger, KEY)
    expect(stranger.styles.first).to_be_checked()
    refusal = {"status": 401, "json": {"title": "Key needed", "detail": "the key is not known"}}
    stranger.page.route("**/stylize", lambda route: route.fulfill(**refusal), times=1)

    stranger.offer(photo)
    enter(stranger, KEY)

    stranger.see_painted(STARRY_NIGHT)
