"""The pages of the documentation, read as CommonMark: their blocks of code, links and headings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from markdown_it import MarkdownIt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]

_OF_TAGS = re.compile(r'(?:src|href)="([^"]*)"')


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block; ``output`` is the block right below it, which shows what it prints."""

    page: Path
    line: int
    language: str
    code: str
    output: Block | None = None

    def __str__(self) -> str:
        return f"{name_of(self.page)}:{self.line}"


@cache
def parse(page: Path) -> list[Token]:
    """Read a page as the code host does."""
    return MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))


def name_of(page: Path) -> str:
    """Its path in the repository."""
    return page.relative_to(ROOT).as_posix()


@cache
def blocks_of(page: Path) -> tuple[Block, ...]:
    """Every fenced block of a page, in order."""
    found: list[Block] = []
    below: Token | None = None
    output: Block | None = None
    for token in reversed(parse(page)):
        if token.type == "fence":
            assert token.map is not None
            is_above = below is not None and below.type == "fence"
            output = Block(
                page,
                line=token.map[0] + 1,
                language=token.info,
                code=token.content,
                output=output if is_above and token.info == "sh" else None,
            )
            found.append(output)
        below = token
    return tuple(reversed(found))


def code_of(page: Path) -> str:
    """All that stands in fenced blocks."""
    return "\n".join(block.code for block in blocks_of(page))


def links_of(page: Path) -> Iterator[str]:
    """Where its links and pictures point, those of HTML as well."""
    for token in parse(page):
        for part in (token, *(token.children or ())):
            if part.type in {"link_open", "image"}:
                yield str(part.attrs["href" if part.type == "link_open" else "src"])
            elif part.type in {"html_block", "html_inline"}:
                yield from _OF_TAGS.findall(part.content)


@cache
def anchors_of(page: Path) -> frozenset[str]:
    """The ids that the code host gives its headings."""
    found: set[str] = set()
    tokens = parse(page)
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open":
            words = "".join(part.content for part in inline.children or ())
            slug = plain = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
            number = 0
            while slug in found:
                number += 1
                slug = f"{plain}-{number}"
            found.add(slug)
    return frozenset(found)
