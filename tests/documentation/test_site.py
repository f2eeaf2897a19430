"""`make docs`: the site is built without a warning, is whole, and asks nobody else for anything."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pytest
from markdown_it import MarkdownIt

from tests.documentation.pages import ROOT, links_of, name_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
STRUCTURE = {"h1", "h2", "h3", "ol", "ul", "li", "table", "tr", "pre", "img", "em", "strong"}
LOADING = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src"}


class Reader(HTMLParser):
    """What a page consists of: its tags by name, where they point, and its ids."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.ids: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags[tag] += 1
        if found := values.get("id"):
            self.ids.add(found)
        if tag == "a" and (link := values.get("href")):
            self.links.append(link)
        if tag in LOADING and (load := values.get(LOADING[tag])):
            self.loads.append(load)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The site, and what was said while it was built."""
    pytest.importorskip("properdocs", reason="the extra `docs` is not installed")
    site = tmp_path_factory.mktemp("site")
    finished = subprocess.run(
        [sys.executable, "-m", "properdocs", "build", "--strict", "-f", "mkdocs.yml", f"-d{site}"],
        cwd=ROOT,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return site, finished.stdout + finished.stderr


@pytest.fixture(scope="module")
def pages(built: tuple[Path, str]) -> dict[Path, Reader]:
    """Every page of the site."""
    site, _ = built
    return {path: Reader(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}


def test_the_site_is_built_without_a_warning(built: tuple[Path, str]) -> None:
    assert re.findall(r"^(?:WARNING|ERROR).*", built[1], re.MULTILINE) == []


def test_every_page_is_in_the_navigation_and_every_decision_in_their_list() -> None:
    config = pytest.importorskip("properdocs.config", reason="the extra `docs` is not installed")
    nav = config.load_config(str(ROOT / "mkdocs.yml")).nav
    decisions = {f"decisions/{link}" for link in links_of(DOCS / "decisions/index.md")}

    listed = [*_pages_of(nav)]

    assert len(listed) == len(set(listed))
    assert not decisions & set(listed)
    assert {*listed, *decisions} == {page.relative_to(DOCS).as_posix() for page in PAGES}


def _pages_of(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    else:
        for entry in nav if isinstance(nav, list) else nav.values():
            yield from _pages_of(entry)


def test_links_of_the_site_lead_to_its_own_files_and_their_headings(
    built: tuple[Path, str], pages: dict[Path, Reader]
) -> None:
    site, _ = built
    lost = []
    for path, page in pages.items():
        if path.name == "404.html":
            continue  # its links begin at the root of a host
        for link in (*page.links, *page.loads):
            parts = urlsplit(link)
            if parts.scheme or link == "#":
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchors = pages[target].ids if target in pages else set()
            is_there = target.is_relative_to(site) and target.is_file()
            if not is_there or (parts.fragment and unquote(parts.fragment) not in anchors):
                lost.append((path.name, link))

    assert lost == []


def test_the_site_loads_nothing_from_elsewhere(
    built: tuple[Path, str], pages: dict[Path, Reader]
) -> None:
    site, _ = built
    loads = {load for page in pages.values() for load in page.loads}
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    loads |= set(re.findall(r"(?:@import\s+|url\()[\"']?([^\"')\s]+)", styles))

    assert len(loads) > 10
    assert {load for load in loads if re.match(r"(?:https?:)?//", load)} == set()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_is_on_the_site_what_it_is_on_the_code_host(
    page: Path, built: tuple[Path, str]
) -> None:
    """Two readings of Markdown differ in lists; a page must not depend on which one is at work."""
    site, _ = built
    html = (site / page.relative_to(DOCS)).with_suffix(".html").read_text(encoding="utf-8")
    main = html[html.index('role="main"') : html.index("<footer")]
    host = MarkdownIt("commonmark").enable("table").render(page.read_text(encoding="utf-8"))

    here, there = (Reader(text).tags for text in (main, host))

    assert {tag: here[tag] for tag in STRUCTURE} == {tag: there[tag] for tag in STRUCTURE}
