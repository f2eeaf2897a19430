from __future__ import annotations

import json
import pickle
import re
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import service.errors
from service.errors import ServiceError, error_kinds
from service.openapi import PROBLEM_DETAILS
from service.problems import problem_type

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.anyio


def tree(kind: type[ServiceError] = ServiceError) -> Iterator[type[ServiceError]]:
    for child in kind.__subclasses__():
        yield child
        yield from tree(child)


def test_every_error_is_drawn_with_its_status_and_has_a_type_of_its_own() -> None:
    kinds = list(tree())
    assert len({kind.slug for kind in kinds}) == len(kinds)
    drawing = service.errors.__doc__ or ""
    for kind in kinds:
        (line,) = [line for line in drawing.splitlines() if f" {kind.__name__}" in line]
        inherits = kind.status == kind.__mro__[1].status
        assert inherits or str(kind.status) in line


def test_every_kind_but_the_families_is_raised_and_the_root_stands_for_the_rest() -> None:
    families = {kind for kind in tree() if kind.__subclasses__()}
    assert set(error_kinds()) == {ServiceError, *tree()} - families


PAGE = (Path(__file__).parents[2] / "docs/errors.md").read_text(encoding="utf-8")
SECTION = re.compile(r"^## ([\w-]+)\n\n(.+?)\n\n\*\*Do:\*\* .+?\n\n```json\n(.+?)```", re.S | re.M)
OVERVIEW = re.compile(r"^\| \[`([\w-]+)`\]\(#([\w-]+)\) \| (\d+) \| (.+?) \|$", re.M)
OF_THE_FRAMEWORK = {"not-found": HTTPStatus.NOT_FOUND, "method-not-allowed": 405}


def test_page_of_errors_has_every_type_and_no_other_with_a_true_example() -> None:
    kinds = {kind.slug: kind for kind in error_kinds()}
    sections = {section[1]: json.loads(section[3]) for section in SECTION.finditer(PAGE)}
    assert PAGE.count("\n## ") == len(sections)
    assert set(sections) == set(kinds) | set(OF_THE_FRAMEWORK)
    for slug, body in sections.items():
        assert body["type"] == problem_type(slug)
        if kind := kinds.get(slug):
            assert (body["status"], body["title"]) == (kind.status, kind.title)
            assert body["detail"] == PROBLEM_DETAILS.get(slug, "the client hung up")


def test_page_of_errors_says_of_each_whether_a_retry_helps() -> None:
    kinds = {kind.slug: kind for kind in error_kinds()}
    rows = {row[1]: row for row in OVERVIEW.finditer(PAGE)}
    assert set(rows) == set(kinds) | set(OF_THE_FRAMEWORK)
    for slug, row in rows.items():
        assert row[2] == slug
        status = kinds[slug].status if slug in kinds else OF_THE_FRAMEWORK[slug]
        assert int(row[3]) == status
        assert ("Retry-After" in row[4]) == (status in {429, 503})


@pytest.mark.parametrize(
    ("method", "path", "slug"),
    [("GET", "/painting", "not-found"), ("DELETE", "/stylize", "method-not-allowed")],
)
async def test_page_of_errors_shows_what_the_framework_says_too(
    client: Any, method: str, path: str, slug: str
) -> None:
    (example,) = [section[3] for section in SECTION.finditer(PAGE) if section[1] == slug]
    answer = (await client.http.request(method, path)).json()
    assert json.loads(example) | {"request_id": answer["request_id"]} == answer


async def test_an_unknown_path_is_a_problem(client: Any) -> None:
    response = await client.http.get("/painting")
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["type"] == "urn:atelier:error:not-found"
    assert response.json()["request_id"] == response.headers["x-request-id"]


async def test_a_wrong_method_is_a_problem_and_says_which_is_allowed(client: Any) -> None:
    response = await client.http.delete("/stylize")
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"
    assert response.headers["content-type"] == "application/problem+json"


async def test_an_unforeseen_error_is_a_500_with_a_request_id_and_no_internals(
    open_client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_client() as client:
        client.app.state.zoos.current = None  # nothing foresees this
        response = await client.http.get("/styles")
        assert response.status_code == 500
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["request_id"] == response.headers["x-request-id"]
        assert "NoneType" not in response.text
    assert "NoneType" in caplog.text


@pytest.mark.parametrize("kind", error_kinds(), ids=lambda kind: kind.__name__)
def test_error_crosses_to_another_process_whole(kind: type[ServiceError]) -> None:
    error = kind.__new__(kind)
    ServiceError.__init__(error, "wait a little", headers={"Retry-After": "3"})
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301  # made here
    assert type(copy) is kind
    assert (copy.detail, str(copy), copy.headers) == (
        "wait a little",
        "wait a little",
        {"Retry-After": "3"},
    )
