"""The ways in which a photograph comes to the page."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.page.visitor import Visitor, pixels, read

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import ServerProcess

GIVE = """([kind, data]) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], "given.jpg", { type: "image/jpeg" }));
  const event = kind === "paste"
    ? new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true })
    : new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true });
  return document.body.dispatchEvent(event);
}"""


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_a_photograph_that_is_pasted_or_dropped_is_painted(
    visitor: Visitor, photo: Path, kind: str
) -> None:
    data = base64.b64encode(photo.read_bytes()).decode()

    unhandled = visitor.page.evaluate(GIVE, [kind, data])

    visitor.see_painted()
    name, painting = visitor.download()
    assert name == "given-starry-night.jpg"
    assert Image.open(io.BytesIO(painting)).size == (400, 267)
    assert unhandled == (kind == "paste")  # else the browser would leave the page for the file


def test_another_photograph_takes_the_place_of_the_first(
    visitor: Visitor, photo: Path, photos: Callable[..., Path]
) -> None:
    visitor.offer(photo)
    visitor.see_painted()

    visitor.offer(photos("astronaut", width=300), button="Another photograph")

    expect(visitor.page.locator("#caption")).to_contain_text("300")
    assert visitor.download()[0] == "astronaut-starry-night.jpg"


def test_a_photograph_can_be_taken_with_the_camera(visitor: Visitor) -> None:
    visitor.button("Take a photograph").click()
    size = (
        visitor.page.get_by_role("dialog")
        .locator("video")
        .evaluate_handle(
            "video => new Promise(tell => { const look = () => video.videoWidth"
            " ? tell([video.videoWidth, video.videoHeight]) : setTimeout(look, 20); look(); })"
        )
    )

    visitor.button("Shoot").click()
    visitor.see_painted()

    expect(visitor.page.get_by_role("dialog")).to_have_count(0)
    name, painting = visitor.download()
    assert name == "photograph-starry-night.jpg"
    assert [*Image.open(io.BytesIO(painting)).size] == fitted(size.json_value(), 1024)
    # Not black: Chromium's own camera shows a green field with a pie that turns.
    assert pixels(painting).std() > 10

    with visitor.page.expect_download() as saving:
        visitor.page.get_by_role("link", name="Keep the photograph").click()
    name, photograph = read(saving.value)
    assert name == "photograph.jpg"
    assert [*Image.open(io.BytesIO(photograph)).size] == size.json_value()


def fitted(size: list[int], most: int) -> list[int]:
    scale = min(1, most / max(size))
    return [round(side * scale) for side in size]


def test_the_camera_is_let_go_after_use(visitor: Visitor) -> None:
    visitor.page.evaluate(
        "() => { const devices = navigator.mediaDevices, ask = devices.getUserMedia.bind(devices);"
        " devices.getUserMedia = async (wanted) => (window.stream = await ask(wanted)); }"
    )
    visitor.button("Take a photograph").click()
    expect(visitor.button("Shoot")).to_be_enabled()

    visitor.page.keyboard.press("Escape")

    tracks = "window.stream.getTracks()"
    visitor.page.wait_for_function(f"{tracks}.every((track) => track.readyState === 'ended')")
    assert visitor.page.evaluate(f"{tracks}.length") == 1


def test_without_a_camera_the_visitor_is_told_what_else_there_is(visitor: Visitor) -> None:
    visitor.page.evaluate(
        "() => { navigator.mediaDevices.getUserMedia = async () => {"
        " throw new DOMException('none', 'NotFoundError'); }; }"
    )

    visitor.button("Take a photograph").click()

    expect(visitor.problem).to_have_text("There is no camera here. Choose a photograph instead.")
    expect(visitor.button("Shoot")).to_be_disabled()


def test_a_phone_opens_its_own_camera(
    invite: Callable[..., Visitor], atelier: ServerProcess, photo: Path
) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    visitor = invite(f"{atelier.url}/", **phone).arrive()

    with visitor.page.expect_file_chooser() as chooser:
        visitor.button("Take a photograph").click()
    assert chooser.value.element.get_attribute("capture") == "environment"
    chooser.value.set_files(photo)

    visitor.see_painted()


def test_a_photograph_that_lies_on_its_side_is_shown_as_it_is_painted(
    visitor: Visitor, photo: Path, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.open(photo).save(tmp_path / "turned.jpg", exif=exif, quality=95)

    visitor.offer(tmp_path / "turned.jpg")
    visitor.see_painted()

    box = visitor.page.locator(".before").bounding_box()
    assert box is not None
    width, height = Image.open(io.BytesIO(visitor.download()[1])).size
    assert (width, height) == (267, 400)
    assert box["width"] / box["height"] == pytest.approx(width / height, abs=0.01)
    assert np.isfinite(box["x"])
