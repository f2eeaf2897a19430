"""One photograph in every style."""

from __future__ import annotations

from typing import TYPE_CHECKING

from playwright.sync_api import expect

from tests.page.visitor import PAINTED_WITHIN_MS, Visitor

if TYPE_CHECKING:
    from pathlib import Path

STYLES = 19
THUMBS = (
    "images => images.filter((image) => image.src.startsWith('blob:'))"
    ".map((image) => [image.naturalWidth, image.naturalHeight])"
)


def thumbs(visitor: Visitor) -> list[list[int]]:
    found: list[list[int]] = visitor.page.locator(".thumb img").evaluate_all(THUMBS)
    return found


def test_a_photograph_is_tried_in_every_style_and_painted_large_in_one(
    visitor: Visitor, photo: Path
) -> None:
    expect(visitor.button("Try all on my photograph")).to_be_disabled()
    visitor.offer(photo)
    visitor.see_painted()

    visitor.button("Try all on my photograph").click()
    status = visitor.page.locator("#try-status")
    expect(status).to_contain_text("in every style", timeout=2 * PAINTED_WITHIN_MS)

    assert thumbs(visitor) == [[320, 214]] * STYLES
    visitor.choose_style("Udnie (Young American Girl, The Dance)")
    visitor.see_painted("Udnie (Young American Girl, The Dance)")
    assert len(thumbs(visitor)) == STYLES


def let_through(visitor: Visitor, count: int) -> None:
    """Paint ``count`` photographs from now on, and answer nobody else."""
    left = [*range(count)]
    visitor.page.route("**/stylize", lambda route: left and (left.pop(), route.continue_()))


def test_trying_all_styles_can_be_stopped(visitor: Visitor, photo: Path) -> None:
    visitor.offer(photo)
    visitor.see_painted()

    let_through(visitor, 3)
    visitor.button("Try all on my photograph").click()
    status = visitor.page.locator("#try-status")
    expect(status).to_contain_text("3 of 19")
    visitor.button("Stop").click()

    expect(status).to_have_text("Stopped after 3 of 19")
    assert len(thumbs(visitor)) == 3
    expect(visitor.button("Try all on my photograph")).to_be_focused()


def test_another_photograph_brings_the_previews_back(visitor: Visitor, photo: Path) -> None:
    visitor.offer(photo)
    visitor.see_painted()
    let_through(visitor, 2)
    visitor.button("Try all on my photograph").click()
    expect(visitor.page.locator("#try-status")).to_contain_text("2 of 19")
    assert len(thumbs(visitor)) == 2
    visitor.page.unroute("**/stylize")

    visitor.offer(photo, button="Another photograph")

    visitor.see_painted()
    assert thumbs(visitor) == []
