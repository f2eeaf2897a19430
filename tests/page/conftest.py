"""A browser, visitors to the page of a real service, and photographs."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image
from playwright.sync_api import sync_playwright
from skimage import data as skimage_data

from model_zoo.cards import SHIPPED_ZOO
from tests.page.visitor import Visitor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from playwright.sync_api import Browser

    from tests.conftest import ServerProcess

SWITCHES = (
    "--no-sandbox",  # which needs rights that a container does not give, nor root
    "--disable-dev-shm-usage",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--complete", action="store_true", help="fail without a browser, instead of skipping"
    )


@pytest.fixture(scope="session")
def browser(request: pytest.FixtureRequest) -> Iterator[Browser]:
    """The machine's own Chromium: none is downloaded."""
    names = (os.environ.get("CHROMIUM", "chromium"), "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        missing = "no Chromium: apt-get install chromium, or name one in CHROMIUM"
        (pytest.fail if request.config.getoption("--complete") else pytest.skip)(missing)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=SWITCHES)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def open_service(
    start_service: Callable[..., AbstractContextManager[ServerProcess]],
) -> Callable[..., AbstractContextManager[ServerProcess]]:
    """Start a service with the shipped zoo, unless ``ATELIER_ZOO`` names another."""

    @contextmanager
    def open_service(**variables: str) -> Iterator[ServerProcess]:
        shipped = {"ATELIER_ZOO": str(SHIPPED_ZOO), "ATELIER_LOG_LEVEL": "warning"}
        with start_service(**shipped | variables) as service:
            assert service.greeting, service.stop()[1]
            yield service

    return open_service


@pytest.fixture(scope="session")
def atelier(open_service: Callable[..., AbstractContextManager[ServerProcess]]) -> Iterator[Any]:
    """One service that the tests share, and leave as it was."""
    with open_service() as service:
        yield service


@pytest.fixture
def stays() -> Iterator[ExitStack]:
    """What a test opens for itself, and what ends only after its visitors have left.

    A page may still load pictures when a test has seen all that it wants: a service that ended
    before would be complained of.
    """
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def invite(browser: Browser, stays: ExitStack) -> Iterator[Callable[..., Visitor]]:  # noqa: ARG001
    """Invite a visitor to a place; at the end nothing unexpected may stand in their console."""
    visitors: list[Visitor] = []

    def invite(place: str, **options: Any) -> Visitor:
        desk: dict[str, Any] = {"viewport": {"width": 1280, "height": 860}}
        page = browser.new_context(**desk | options).new_page()
        visitors.append(Visitor(page, place))
        return visitors[-1]

    yield invite
    for visitor in visitors:
        visitor.page.context.close()
    assert [visitor.unexpected for visitor in visitors] == [[] for _ in visitors]


@pytest.fixture
def visitor(invite: Callable[..., Visitor], atelier: ServerProcess) -> Visitor:
    """Somebody before a desk, who has just arrived."""
    return invite(f"{atelier.url}/").arrive()


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write a real photograph into a file of its own folder, scaled to a width."""

    def write(name: str = "astronaut", width: int = 400, file_name: str = "") -> Path:
        folder = tmp_path_factory.mktemp("photos")
        path: Path = folder / (file_name or f"{name}.jpg")
        picture = Image.fromarray(getattr(skimage_data, name)())
        height = round(width * picture.height / picture.width)
        picture.resize((width, height), Image.Resampling.LANCZOS).save(path, quality=95)
        return path

    return write


@pytest.fixture(scope="session")
def photo(photos: Callable[..., Path]) -> Path:
    """400x267 px."""
    return photos("coffee")
