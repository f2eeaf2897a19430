"""Links that lead out of docs/ lead to copies in the site, so that one form serves both places.

The code host shows ``../deploy/nginx/nginx.conf`` where it lies. The site has no such place: there
the file is copied below ``source/``, as text that a browser shows, and of a folder a page lists the
files.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

FOLDER = "source"
_LINK = re.compile(r'(\]\(|(?:src|href)=")(\.\./[^)"#\s]+)')
# What browsers show under its own name.
_SHOWN = {".gif", ".html", ".jpg", ".json", ".png", ".svg", ".txt", ".webp"}
_LEFT_OUT = {"__pycache__"}


def on_files(files: Any, config: Any) -> Any:
    """Add to the site what its pages point to, and let them point there."""
    for page in list(files.documentation_pages()):
        text = _LINK.sub(lambda match, page=page: _point(match, page, files, config), _text(page))
        if text != _text(page):
            page.content_string = text
    return files


def _text(page: Any) -> str:
    text: str = page.content_string
    return text


def _point(match: re.Match[str], page: Any, files: Any, config: Any) -> str:
    """The same link, to the copy where it leads out of docs/."""
    root = Path(config.config_file_path).parent
    here = posixpath.dirname(page.src_uri)
    target = posixpath.normpath(posixpath.join(Path(config.docs_dir).name, here, match[2]))
    if target.startswith(f"{Path(config.docs_dir).name}/") or not (root / target).exists():
        return match[0]  # of the site itself, or for it to complain of
    if (root / target).is_dir():
        copy = _add_folder(root, target, type(page), files, config)
    else:
        copy = _add_file(root, target, type(page), files, config)
    return match[1] + posixpath.relpath(copy, here or ".")


def _add_file(root: Path, target: str, kind: Any, files: Any, config: Any) -> str:
    suffix = "" if Path(target).suffix in _SHOWN else ".txt"
    copy = f"{FOLDER}/{target}{suffix}"
    if files.get_file_from_path(copy) is None:
        files.append(kind.generated(config, copy, abs_src_path=str(root / target)))
    return copy


def _add_folder(root: Path, target: str, kind: Any, files: Any, config: Any) -> str:
    copy = f"{FOLDER}/{target}.md"
    if files.get_file_from_path(copy) is None:
        lines = [f"# {target}", ""]
        for path in sorted((root / target).rglob("*")):
            if path.is_file() and _LEFT_OUT.isdisjoint(path.parts):
                added = _add_file(root, path.relative_to(root).as_posix(), kind, files, config)
                link = posixpath.relpath(added, posixpath.dirname(copy))
                lines.append(f"- [`{path.relative_to(root / target).as_posix()}`]({link})")
        files.append(kind.generated(config, copy, content="\n".join(lines) + "\n"))
    return copy
