"""What a visitor is told when something goes wrong, and what then helps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.page.visitor import PAINTED_WITHIN_MS, Visitor

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager, ExitStack
    from pathlib import Path

    from playwright.sync_api import Route

    from tests.conftest import ServerProcess

HEIC = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(200)


@pytest.mark.parametrize(
    ("file_name", "content", "title", "words"),
    [
        ("notes.jpg", b"no picture", "Unsupported media type", "not a picture of an accepted"),
        ("phone.heic", HEIC, "Unsupported media type", "JPEG, PNG, WEBP, AVIF, GIF"),
        ("half.jpg", None, "Corrupt image", "cannot be decoded"),
    ],
)
def test_what_the_service_refuses_is_told_in_its_own_words(
    visitor: Visitor,
    photo: Path,
    tmp_path: Path,
    file_name: str,
    content: bytes | None,
    title: str,
    words: str,
) -> None:
    visitor.expected = "status of 4(15|22)"
    whole = photo.read_bytes()
    (tmp_path / file_name).write_bytes(content or whole[: len(whole) // 2])

    visitor.offer(tmp_path / file_name)

    expect(visitor.problem).to_contain_text(title)
    expect(visitor.problem).to_contain_text(words)
    expect(visitor.button("Try again")).to_have_count(0)  # it would be refused again
    visitor.offer(photo, button="Another photograph")
    visitor.see_painted()
    expect(visitor.problem).to_have_count(0)


def test_a_photograph_of_too_many_bytes_is_refused_before_it_is_sent(
    visitor: Visitor, tmp_path: Path
) -> None:
    with (tmp_path / "large.jpg").open("wb") as file:
        file.truncate(25 * 2**20)
    sent: list[str] = []
    visitor.page.on("request", lambda request: sent.append(request.url))

    visitor.offer(tmp_path / "large.jpg")

    expect(visitor.problem).to_contain_text("25.0 MiB")
    expect(visitor.problem).to_contain_text("20.0 MiB")
    assert not [url for url in sent if url.endswith("/stylize")]


def test_a_visitor_without_network_is_told_so_and_goes_on_with_it(
    visitor: Visitor, photo: Path
) -> None:
    visitor.expected = "ERR_INTERNET_DISCONNECTED"
    visitor.page.context.set_offline(True)
    visitor.offer(photo)
    expect(visitor.problem).to_contain_text("The service cannot be reached")

    visitor.page.context.set_offline(False)
    visitor.button("Try again").click()

    visitor.see_painted()


def test_a_page_whose_styles_do_not_come_offers_to_ask_again(
    invite: Callable[..., Visitor], atelier: ServerProcess
) -> None:
    visitor = invite(f"{atelier.url}/")
    visitor.expected = "ERR_FAILED"
    visitor.page.route("**/styles", lambda route: route.abort())
    visitor.page.goto(visitor.place)
    expect(visitor.problem).to_contain_text("The service cannot be reached")
    visitor.page.unroute("**/styles")

    visitor.button("Try again").click()

    expect(visitor.styles.first).to_be_checked()
    expect(visitor.problem).to_have_count(0)


def test_a_proxy_that_answers_in_its_own_language_is_no_riddle(
    visitor: Visitor, photo: Path
) -> None:
    visitor.expected = "status of 502"
    answer = {"status": 502, "content_type": "text/html", "body": "<h1>Bad Gateway</h1>"}
    visitor.page.route("**/stylize", lambda route: route.fulfill(**answer))

    visitor.offer(photo)

    expect(visitor.problem).to_contain_text("The answer was 502")


def test_a_service_that_asks_to_come_again_is_asked_again_when_it_says(
    invite: Callable[..., Visitor],
    open_service: Callable[..., AbstractContextManager[ServerProcess]],
    stays: ExitStack,
    tiny_zoo: Path,
    photo: Path,
) -> None:
    variables = {"ATELIER_ZOO": str(tiny_zoo), "ATELIER_RATE_LIMIT": "1 per 4 second"}
    service = stays.enter_context(open_service(**variables))
    visitor = invite(f"{service.url}/").arrive()
    visitor.expected = "status of 429"
    visitor.offer(photo)
    visitor.see_painted("Ink")

    visitor.choose_style("Wash")

    words = visitor.page.locator("#work-words")
    expect(words).to_contain_text("Too many requests of one caller: trying again in")
    visitor.see_painted("Wash")

    visitor.button("Try all on my photograph").click()
    status = visitor.page.locator("#try-status")
    expect(status).to_contain_text("trying again in")
    expect(status).to_contain_text("in every style", timeout=PAINTED_WITHIN_MS)


def test_a_replica_that_does_not_know_the_request_is_no_trouble(
    visitor: Visitor, photos: Callable[..., Path]
) -> None:
    """Behind a load balancer, another may have it."""
    visitor.expected = "status of 404"
    asked: list[Route] = []

    def know_nothing(route: Route) -> None:
        asked.append(route)
        route.fulfill(status=404)

    visitor.page.route("**/requests/*", know_nothing)
    visitor.choose_style("The Starry Night, fine")
    visitor.page.get_by_label("Longer side").select_option("1536 px")

    visitor.offer(photos("astronaut", width=1300))

    visitor.see_painted("The Starry Night, fine")
    assert asked
    expect(visitor.problem).to_have_count(0)


def test_a_file_that_has_gone_is_not_taken_for_a_fault_of_the_network(
    visitor: Visitor, photos: Callable[..., Path]
) -> None:
    photo = photos("coffee", file_name="gone.jpg")
    visitor.offer(photo)
    visitor.see_painted()
    photo.unlink()

    visitor.choose_style("Tableau")

    expect(visitor.problem).to_contain_text("The photograph cannot be read")
