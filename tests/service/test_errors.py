from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import service.errors
from service.errors import ServiceError

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
