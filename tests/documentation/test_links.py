"""Links of the documentation lead somewhere, on the code host as on the built site."""

from __future__ import annotations

import ipaddress
from urllib.parse import unquote, urlsplit

import pytest

from tests.documentation.pages import PAGES, ROOT, anchors_of, links_of, name_of

LINKS = [(page, link) for page in PAGES for link in dict.fromkeys(links_of(page))]
INSIDE = [(page, link) for page, link in LINKS if not urlsplit(link).scheme]
OUTSIDE = [(page, link) for page, link in LINKS if urlsplit(link).scheme]


def ids(links: list[tuple]) -> list[str]:
    return [f"{name_of(page)} {link}" for page, link in links]


@pytest.mark.parametrize(("page", "link"), INSIDE, ids=ids(INSIDE))
def test_a_link_inside_leads_to_a_file_and_to_a_heading_of_it(page, link) -> None:
    path, anchor = (unquote(part) for part in (urlsplit(link).path, urlsplit(link).fragment))
    assert not path.startswith("/"), "a path of the machine, not of the repository"
    target = (page.parent / path).resolve() if path else page

    assert target.exists()
    assert target.is_relative_to(ROOT)
    if anchor:
        assert target.suffix == ".md"
        assert anchor in anchors_of(target)


@pytest.mark.parametrize(("page", "link"), OUTSIDE, ids=ids(OUTSIDE))
def test_a_link_to_the_outside_is_a_complete_address_of_a_public_host(page, link) -> None:  # noqa: ARG001
    parts = urlsplit(link)

    assert parts.scheme == "https"
    assert parts.hostname is not None
    assert "." in parts.hostname
    with pytest.raises(ValueError, match="does not appear to be"):
        ipaddress.ip_address(parts.hostname)
    assert not set(link) & set(" <>\"'`{}|\\^")


@pytest.mark.parametrize("folder", ["docs", "docs/decisions"])
def test_the_start_of_a_folder_leads_to_every_page_of_it(folder: str) -> None:
    start = ROOT / folder / "index.md"
    led_to = {(start.parent / urlsplit(link).path).resolve() for link in links_of(start)}

    assert {page for page in PAGES if page.parent == start.parent} - {start} <= led_to
