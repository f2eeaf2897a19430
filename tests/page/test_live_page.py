"""Live on the page: Chromium's fake camera, which shows a moving pattern, is painted."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from service.keys import hash_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager, ExitStack
    from pathlib import Path

    from playwright.sync_api import Page, WebSocketRoute

    from tests.conftest import ServerProcess
    from tests.page.visitor import Visitor

WATCHED_CAMERA = """() => {
  const lend = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  navigator.mediaDevices.getUserMedia = async (wanted) => {
    const stream = await lend(wanted);
    self.lent = stream.getTracks();
    return stream;
  };
}"""
MEAN_COLOURS = """() => {
  const small = new OffscreenCanvas(16, 16).getContext("2d", { willReadFrequently: true });
  small.drawImage(document.getElementById("live-canvas"), 0, 0, 16, 16);
  const { data } = small.getImageData(0, 0, 16, 16);
  const sums = [0, 0, 0];
  for (let at = 0; at < data.length; at += 4) {
    for (const channel of [0, 1, 2]) {
      sums[channel] += data[at + channel];
    }
  }
  return sums.map((sum) => sum / (data.length / 4));
}"""
LOOK = """() => {
  const canvas = document.getElementById("live-canvas");
  return canvas.toDataURL("image/png");
}"""


def begin(page: Page) -> None:
    page.get_by_role("button", name="Start the camera").click()
    expect(page.locator("#live-status")).to_have_text("Painting")
    page.wait_for_function(f"() => ({MEAN_COLOURS})().some((mean) => mean > 5)", timeout=30_000)


@pytest.fixture
def page(visitor: Visitor) -> Page:
    """That of a visitor whose camera is watched."""
    visitor.page.evaluate(WATCHED_CAMERA)
    return visitor.page


def test_the_camera_is_painted_and_frames_a_second_are_shown(page: Page) -> None:
    begin(page)
    first = page.evaluate(LOOK)
    page.wait_for_function(f"(first) => ({LOOK})() !== first", arg=first)
    page.wait_for_function(
        "() => Number.parseFloat(document.getElementById('live-rate').value) > 0"
    )
    expect(page.locator("#live-rate")).to_contain_text("frames a second")
    size = page.evaluate(
        "() => { const c = document.getElementById('live-canvas'); return [c.width, c.height]; }"
    )
    assert size == [640, 480]


def test_another_style_is_painted_without_starting_again(page: Page, visitor: Visitor) -> None:
    begin(page)
    before = page.evaluate(MEAN_COLOURS)
    visitor.choose_style("The Scream")
    page.wait_for_function(
        f"(before) => ({MEAN_COLOURS})().some((mean, at) => Math.abs(mean - before[at]) > 20)",
        arg=before,
    )
    assert page.evaluate("() => self.lent.every((track) => track.readyState === 'live')")


def test_steadiness_is_sent_while_live(page: Page) -> None:
    said: list[str] = []
    page.on(
        "websocket",
        lambda socket: socket.on(
            "framesent", lambda payload: said.append(payload) if isinstance(payload, str) else None
        ),
    )
    begin(page)
    knob = page.get_by_label("Steadiness")
    knob.focus()
    page.keyboard.press("End")
    page.wait_for_timeout(500)
    assert '"steadiness":0.5' in said[0]
    assert said[-1].startswith('{"type":"change"')
    assert '"steadiness":1' in said[-1]


def test_stop_gives_the_camera_back(page: Page) -> None:
    begin(page)
    page.get_by_role("button", name="Stop the camera").click()
    expect(page.locator("#live-status")).to_have_text("Stopped")
    expect(page.locator("#live-canvas")).to_be_hidden()
    assert page.evaluate("() => self.lent.map((track) => track.readyState)") == ["ended"]
    begin(page)


def test_a_camera_that_is_denied_is_said_in_plain_words(page: Page) -> None:
    page.evaluate(
        """() => {
          navigator.mediaDevices.getUserMedia = async () => {
            throw new DOMException("no", "NotAllowedError");
          };
        }"""
    )
    page.get_by_role("button", name="Start the camera").click()
    expect(page.locator("#live-status")).to_contain_text("does not let this page use the camera")
    expect(page.get_by_role("button", name="Start the camera")).to_be_enabled()


@pytest.mark.parametrize("size", [(1280, 860), (390, 844)])
def test_the_picture_stands_in_the_place_of_the_easel_with_the_styles_in_sight(
    page: Page, size: tuple[int, int]
) -> None:
    page.set_viewport_size({"width": size[0], "height": size[1]})
    begin(page)
    expect(page.locator("#live-canvas")).to_be_in_viewport(ratio=0.9)
    expect(page.locator(".style").first).to_be_in_viewport(ratio=0.5)
    page.get_by_role("button", name="Stop the camera").click()
    expect(page.locator("#easel")).to_be_visible()


def test_a_photograph_ends_the_camera(page: Page, visitor: Visitor, photo: Path) -> None:
    begin(page)
    page.locator("#file").set_input_files(photo)
    visitor.see_painted()
    expect(page.locator("#easel")).to_be_visible()
    assert page.evaluate("() => self.lent.map((track) => track.readyState)") == ["ended"]


def test_a_camera_that_is_taken_away_is_said(page: Page) -> None:
    begin(page)
    page.evaluate("() => self.lent[0].dispatchEvent(new Event('ended'))")
    expect(page.locator("#live-status")).to_have_text("The camera was taken away.")
    expect(page.get_by_role("button", name="Start the camera")).to_be_enabled()


def test_a_fault_of_some_frames_is_said_no_longer_once_frames_are_painted(page: Page) -> None:
    error = {"type": "error", "frame": 1, "problem": {"detail": "the queue is full"}}

    def serve(socket: WebSocketRoute) -> None:
        def answer(message: str | bytes) -> None:
            if isinstance(message, str):
                socket.send(json.dumps({"type": "ready", "painted_side": 64}))
                socket.send(json.dumps(error))
            else:
                later.append(message)

        socket.on_message(answer)
        sockets.append(socket)

    later: list[bytes] = []
    sockets: list[WebSocketRoute] = []
    page.route_web_socket("**/live", serve)
    page.get_by_role("button", name="Start the camera").click()
    expect(page.locator("#live-status")).to_have_text("The queue is full.")
    until = time.monotonic() + 10
    while not later and time.monotonic() < until:
        page.wait_for_timeout(50)  # what comes from the page is taken meanwhile
    sockets[0].send((2).to_bytes(4, "big") + later[0])
    expect(page.locator("#live-status")).to_have_text("Painting")


def test_a_service_that_goes_away_is_connected_to_again(page: Page) -> None:
    sockets: list[WebSocketRoute] = []

    def pass_on(socket: WebSocketRoute) -> None:
        sockets.append(socket)
        socket.connect_to_server()

    page.route_web_socket("**/live", pass_on)
    begin(page)

    sockets[0].close(code=1001, reason="the server goes away; connect again")

    status = page.locator("#live-status")
    expect(status).to_have_text("The connection was lost: connecting again")
    first = page.evaluate(LOOK)
    expect(status).to_have_text("Painting")
    page.wait_for_function(f"(first) => ({LOOK})() !== first", arg=first)
    assert page.evaluate("() => self.lent.length") == 1


@pytest.fixture(scope="module")
def crowded(
    open_service: Callable[..., AbstractContextManager[ServerProcess]],
) -> Iterator[ServerProcess]:
    """A service for one session, of those who have a key."""
    with open_service(
        ATELIER_LIVE_SESSIONS="1", ATELIER_API_KEYS=f"visitor={hash_key('atelier_of_a_visitor')}"
    ) as service:
        yield service


def test_the_key_of_the_page_opens_live_and_a_full_service_says_so(
    invite: Callable[..., Visitor], crowded: ServerProcess
) -> None:
    pages = []
    for _ in range(2):
        visitor = invite(f"{crowded.url}/")
        visitor.expected = "status of 401"
        visitor.page.add_init_script(
            "sessionStorage.setItem('atelier-key', 'atelier_of_a_visitor')"
        )
        visitor.page.goto(visitor.place)
        expect(visitor.styles.first).to_be_checked()
        pages.append(visitor.page)
    begin(pages[0])
    pages[1].get_by_role("button", name="Start the camera").click()
    expect(pages[1].locator("#live-status")).to_contain_text("1 live sessions are as many as")
    expect(pages[1].get_by_role("button", name="Start the camera")).to_be_visible()


def test_a_service_without_live_has_no_such_part(
    invite: Callable[..., Visitor],
    open_service: Callable[..., AbstractContextManager[ServerProcess]],
    stays: ExitStack,
) -> None:
    service = stays.enter_context(open_service(ATELIER_LIVE_SESSIONS="0"))
    page = invite(f"{service.url}/").arrive().page
    expect(page.get_by_role("heading", name="Live")).to_be_hidden()
