"""The page for people, as files over HTTP; tests/page has it in a browser."""

from __future__ import annotations

import json
import re
from html import unescape
from typing import TYPE_CHECKING, Any

import pytest

from service.page import STATIC

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

FILES = sorted(path.name for path in STATIC.iterdir() if path.name != "index.html")
SOURCES = [path for path in STATIC.iterdir() if path.suffix in {".css", ".html", ".js", ".svg"}]
FIRST_LOAD_MAX_BYTES = 200 * 1024
NAMESPACE = "http://www.w3.org/2000/svg"


def directives(policy: str) -> dict[str, str]:
    return dict(part.strip().split(" ", 1) for part in policy.split(";"))


def loaded(text: str) -> set[str]:
    """What a file makes a browser load at once; `import(...)` waits until it is called."""
    at_once = r'(?:src|href)="static/([^"]+)"|^import .*?"\./([^"]+)";|^\} from "\./([^"]+)";'
    return {a or b or c for a, b, c in re.findall(at_once, text, re.MULTILINE)}


def comments_removed(path: Path) -> str:
    return re.sub(r"/\*.*?\*/|<!--.*?-->", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)


# --- what browsers are told


async def test_the_page_may_run_its_own_files_and_no_other(client: Any) -> None:
    page = await client.http.get("/")

    policy = directives(page.headers["content-security-policy"])
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in str(policy)
    assert "http" not in str(policy)
    assert policy["trusted-types"] == "'none'"


async def test_the_page_may_use_the_camera_and_no_other_page_may(client: Any) -> None:
    page = await client.http.get("/")

    allowed = dict(re.findall(r"(\w+)=(\S+?)(?:,|$)", page.headers["permissions-policy"]))
    assert allowed == {"camera": "(self)", "microphone": "()", "geolocation": "()"}
    assert page.headers["x-frame-options"] == "DENY"
    assert page.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("name", FILES)
async def test_each_file_is_what_its_name_says_and_nothing_else(client: Any, name: str) -> None:
    answer = await client.http.get(f"/static/{name}")

    kinds = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    assert answer.status_code == 200
    assert answer.headers["content-type"].split(";")[0] == kinds[name.rpartition(".")[2]]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert answer.content == (STATIC / name).read_bytes()


@pytest.mark.parametrize("path", ["/", *(f"/static/{name}" for name in FILES)])
async def test_a_browser_that_holds_a_file_is_not_sent_it_again(client: Any, path: str) -> None:
    first = await client.http.get(path)
    again = await client.http.get(path, headers={"If-None-Match": f'"x", {first.headers["etag"]}'})
    other = await client.http.get(path, headers={"If-None-Match": '"x"'})

    assert first.headers["cache-control"] == "no-cache"
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert (other.status_code, other.content) == (200, first.content)


# --- where it is, and where not


@pytest.mark.parametrize(
    "path", ["/static/", "/static/none.js", "/static/index.html", "/static/..%2Fpage.py"]
)
async def test_nothing_but_the_files_is_there(client: Any, path: str) -> None:
    assert (await client.http.get(path)).status_code == 404


async def test_names_that_nobody_serves_make_no_new_rows_of_metrics(client: Any) -> None:
    await client.http.get("/static/guess-1.js")

    assert "guess-1" not in (await client.http.get("/metrics")).text


async def test_the_page_can_be_switched_off(open_client: Any, stub_engine: Any) -> None:
    async with open_client(stub_engine, page=False) as client:
        for path in ("/", "/static/main.js"):
            answer = await client.http.get(path)
            assert answer.status_code == 404
            assert answer.json()["type"] == "urn:atelier:error:not-found"
        assert (await client.http.get("/styles")).status_code == 200


async def test_the_page_needs_no_key_since_it_asks_for_one(
    open_client: Any, stub_engine: Any
) -> None:
    async with open_client(stub_engine, api_keys=f"alice={'0' * 64}") as client:
        assert (await client.http.get("/")).status_code == 200
        assert (await client.http.get("/styles")).status_code == 401


async def test_the_page_is_no_part_of_the_document_for_programs(client: Any) -> None:
    paths = client.app.openapi()["paths"]

    assert [path for path in paths if path == "/" or path.startswith("/static")] == []


async def test_the_page_knows_the_limits_of_its_service(open_client: Any, stub_engine: Any) -> None:
    limits = {"default_max_side_px": 300, "max_side_px": 600, "max_body_bytes": 5000}
    async with open_client(stub_engine, **limits) as client:
        page = (await client.http.get("/")).text

    (written,) = re.findall(r'<meta name="atelier" content="([^"]*)">', page)
    facts = json.loads(unescape(written))
    assert {name: facts[name] for name in limits} == limits


# --- what is in the files


async def test_the_first_load_is_small(client: Any) -> None:
    """Without previews, and without what is loaded when somebody opens it."""
    page = (await client.http.get("/")).text
    found, waiting = set(), loaded(page)
    size = len(page.encode())
    while waiting:
        found |= waiting
        texts = [(await client.http.get(f"/static/{name}")).text for name in sorted(waiting)]
        size += sum(len(text.encode()) for text in texts)
        waiting = set().union(*map(loaded, texts)) - found

    assert {"main.js", "service.js", "layout.css", "icon.svg"} <= found
    assert not [name for name in found if re.match("live.*js$", name)]
    assert size < FIRST_LOAD_MAX_BYTES


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_file_names_another_site_or_a_place_at_the_root(path: Path) -> None:
    text = comments_removed(path).replace(NAMESPACE, "")

    assert re.findall(r"(?:https?:)?//[\w.-]+\.\w+", text) == []
    # Behind a prefix, only what is relative to the page leads back to the service.
    assert re.findall(r"""(?:src|href|action)\s*=\s*["']/|url\(\s*["']?/""", text) == []
    assert re.findall(r"""(?:fetch|open|URL|import|WebSocket)\(\s*["'`]/""", text) == []


def test_no_script_or_style_stands_in_the_page_itself() -> None:
    page = (STATIC / "index.html").read_text(encoding="utf-8")

    assert re.findall(r"<script[^>]*>\s*([^<\s][^<]*)</script>", page) == []
    assert "<style" not in page
    assert re.findall(r"\s(?:style|on\w+)=", page) == []
    assert "javascript:" not in page


@pytest.mark.parametrize(
    "path", [path for path in SOURCES if path.suffix == ".js"], ids=lambda path: path.name
)
def test_no_script_makes_markup_of_text(path: Path) -> None:
    """The policy would refuse it in the browsers that know trusted types."""
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function"

    assert re.findall(forbidden, path.read_text(encoding="utf-8")) == []


def test_every_file_is_packaged() -> None:
    assert {path.suffix for path in STATIC.iterdir()} <= {".css", ".html", ".js", ".svg"}
    assert not [path for path in STATIC.iterdir() if path.is_dir()]
