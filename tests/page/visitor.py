"""Visitor: somebody who uses the page, by what can be seen, heard and pressed on it."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from playwright.sync_api import expect

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from playwright.sync_api import ConsoleMessage, Download, Locator, Page

STARRY_NIGHT = "The Starry Night"
PAINTED_WITHIN_MS = 30_000


@dataclass
class Visitor:
    """A browser's page and what it complained of; ``expected`` are complaints that belong to it."""

    page: Page
    place: str
    complaints: list[str] = field(default_factory=list)
    expected: str = "(?!)"

    def __post_init__(self) -> None:
        self.page.on("console", self._listen)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        # Who begins to listen as a key is pressed may be too late: the browser is told aside.
        self.page.on("filechooser", lambda _: None)

    def _listen(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(message.text)

    @property
    def unexpected(self) -> list[str]:
        return [text for text in self.complaints if not re.search(self.expected, text)]

    # --- what is there

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True).locator("visible=true")

    @property
    def styles(self) -> Locator:
        return self.page.get_by_role("group", name="Style to paint in").get_by_role("radio")

    @property
    def slider(self) -> Locator:
        return self.page.get_by_label("How much of the picture is painted")

    @property
    def problem(self) -> Locator:
        return self.page.get_by_role("alert").locator("visible=true")

    @property
    def command(self) -> str:
        return self.page.locator("#command-text").inner_text()

    # --- what a visitor does

    def arrive(self) -> Visitor:
        self.page.goto(self.place)
        expect(self.styles.first).to_be_checked()
        return self

    def offer(self, photo: Path, button: str = "Choose a photograph") -> None:
        with self.page.expect_file_chooser() as chooser:
            self.button(button).click()
        chooser.value.set_files(photo)

    def choose_style(self, title: str) -> None:
        self.page.get_by_role("radio", name=re.compile(f"^{re.escape(title)}(?!,)")).check(
            force=True
        )

    def see_painted(self, title: str = STARRY_NIGHT) -> None:
        status = self.page.locator("#status")
        expect(status).to_have_text(f"Painted in {title}", timeout=PAINTED_WITHIN_MS)

    def download(self) -> tuple[str, bytes]:
        """Name and bytes of what the browser saves."""
        with self.page.expect_download() as saving:
            self.page.get_by_role("link", name="Download").click()
        return read(saving.value)


def read(download: Download) -> tuple[str, bytes]:
    return download.suggested_filename, download.path().read_bytes()


def pixels(picture: bytes | Path, size: tuple[int, int] | None = None) -> NDArray[np.float64]:
    """RGB in [0, 255]."""
    source = io.BytesIO(picture) if isinstance(picture, bytes) else picture
    with Image.open(source) as opened:
        image = opened.convert("RGB")
        return np.asarray(image.resize(size) if size else image, dtype=np.float64)
