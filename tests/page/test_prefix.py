"""The page under a path of a proxy's, whether the service knows of it or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest
from playwright.sync_api import expect

from tests.page.proxies import behind_prefix

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager, ExitStack
    from pathlib import Path

    from tests.conftest import ServerProcess
    from tests.page.visitor import Visitor

PREFIX = "/studio/of/mine"


@pytest.mark.parametrize("root_path", ["", PREFIX])
def test_everything_is_asked_for_under_the_prefix(
    invite: Callable[..., Visitor],
    open_service: Callable[..., AbstractContextManager[ServerProcess]],
    stays: ExitStack,
    tiny_zoo: Path,
    photo: Path,
    root_path: str,
) -> None:
    variables = {"ATELIER_ZOO": str(tiny_zoo), "ATELIER_ROOT_PATH": root_path}
    service = stays.enter_context(open_service(**variables))
    place = stays.enter_context(behind_prefix(PREFIX, service.url))
    visitor = invite(f"{place}/")
    asked: list[str] = []
    visitor.page.on("request", lambda request: asked.append(request.url))
    visitor.arrive()

    visitor.offer(photo)
    visitor.see_painted("Ink")

    expect(visitor.page.locator(".thumb img").first).to_have_js_property("naturalWidth", 32)
    assert f" {place}/stylize" in visitor.page.locator("#command-text").text_content()
    links = visitor.page.locator("footer a").evaluate_all("all => all.map((a) => a.href)")
    assert links == [f"{place}/docs", f"{place}/openapi.json"]
    assert [httpx.get(link).status_code for link in links] == [200, 200]
    here = [url for url in asked if not url.startswith("blob:")]
    assert [url for url in here if not url.startswith(f"{place}/")] == []
