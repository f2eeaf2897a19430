"""How a page is read: blocks with their lines and outputs, anchors as the code host makes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.documentation.pages import anchors_of, blocks_of, links_of

if TYPE_CHECKING:
    from pathlib import Path

PAGE = """\
# A page, of `code` & more

```sh
echo one
```

```text
one
```

1. In a list:

   ```python
   print("two")
   ```

## Twice
## Twice

A [link](other.md#there), ![a picture](picture.png) and <img src="tag.png" alt="">.

<a href="block.html">block</a>

```json
{}
```
"""


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "page.md"
    path.write_text(PAGE)
    return path


def test_blocks_are_found_with_their_lines_also_in_lists(page: Path) -> None:
    found = [(block.line, block.language, block.code) for block in blocks_of(page)]

    assert found == [
        (3, "sh", "echo one\n"),
        (7, "text", "one\n"),
        (13, "python", 'print("two")\n'),
        (24, "json", "{}\n"),
    ]


def test_only_a_block_right_below_a_shell_block_is_its_output(page: Path) -> None:
    outputs = [block.output and block.output.code for block in blocks_of(page)]

    assert outputs == ["one\n", None, None, None]


def test_anchors_are_numbered_where_a_heading_comes_twice(page: Path) -> None:
    assert anchors_of(page) == {"a-page-of-code--more", "twice", "twice-1"}


def test_links_of_tags_count_as_well(page: Path) -> None:
    assert list(links_of(page)) == ["other.md#there", "picture.png", "tag.png", "block.html"]
