"""The OpenAPI document: true of every answer, and good enough to make a client from."""

from __future__ import annotations

import asyncio
import importlib
import io
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from service.errors import PROBLEM_MEDIA_TYPE, ServiceError, error_kinds, problem_type
from service.formats import ENCODABLE, FORMATS
from service.openapi import PROBLEM_DETAILS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    import httpx

pytestmark = pytest.mark.anyio

OF_THE_TRANSPORT = {"content-length", "content-type"}
UNANSWERED = "client-closed-request"  # nobody is left to read it

Operation = tuple[str, str, int]


@pytest.fixture(scope="module")
async def document(client: Any) -> dict[str, Any]:
    document: dict[str, Any] = (await client.http.get("/openapi.json")).json()
    return document


def resolve(document: dict[str, Any], node: Any) -> Any:
    if isinstance(node, dict) and "$ref" in node:
        for key in node["$ref"].removeprefix("#/").split("/"):
            document = document[key]
        return document
    return node


def documented(document: dict[str, Any]) -> dict[Operation, dict[str, Any]]:
    return {
        (method, path, int(status)): response
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        for status, response in operation["responses"].items()
    }


async def answers_of_a_good_service(client: Any, photo: bytes) -> dict[Operation, httpx.Response]:
    http = client.http
    answers: dict[Operation, httpx.Response] = {
        ("post", "/stylize", 200): await client.stylize(photo),
        ("post", "/stylize", 400): await http.post(
            "/stylize",
            content=b"--a\r\n",
            headers={"Content-Type": "multipart/form-data; boundary=a"},
        ),
        ("post", "/stylize", 404): await client.stylize(photo, "cubism"),
        ("post", "/stylize", 406): await client.stylize(photo, headers={"Accept": "text/html"}),
        ("post", "/stylize", 413): await client.stylize(bytes(21 * 2**20)),
        ("post", "/stylize", 415): await client.stylize(b"no picture"),
        ("post", "/stylize", 422): await client.stylize(photo, strength="2"),
        ("get", "/livez", 200): await http.get("/livez"),
        ("get", "/readyz", 200): await http.get("/readyz"),
        ("get", "/metrics", 200): await http.get("/metrics"),
    }
    for path in ("/styles", "/styles/{style_id}", "/styles/{style_id}/preview"):
        found = await http.get(path.replace("{style_id}", "ink"))
        answers["get", path, 200] = found
        answers["get", path, 304] = await http.get(
            found.request.url, headers={"If-None-Match": found.headers["etag"]}
        )
        if "{style_id}" in path:
            answers["get", path, 404] = await http.get(path.replace("{style_id}", "none"))
    return answers


async def answers_of_a_troubled_service(
    client: Any,
    engine: Any,
    photo: bytes,
    wait_until: Callable[[Callable[[], bool]], Awaitable[None]],
) -> dict[Operation, httpx.Response]:
    answers: dict[Operation, httpx.Response] = {}
    engine.gate.clear()
    first = asyncio.create_task(client.stylize(photo, headers={"X-Request-Timeout-Seconds": "0.5"}))
    await wait_until(lambda: client.app.state.pipeline.gate.in_flight == 1)
    answers["post", "/stylize", 429] = await client.stylize(photo)
    answers["post", "/stylize", 504] = await first
    engine.gate.set()
    engine.fault = RuntimeError("the device is gone")
    answers["post", "/stylize", 500] = await client.stylize(photo)
    lifecycle = client.app.state.lifecycle
    lifecycle.fault = "warm-up failed"
    answers["post", "/stylize", 503] = await client.stylize(photo)
    answers["get", "/readyz", 503] = await client.http.get("/readyz")
    client.app.state.pipeline.manifest = None  # nothing foresees this
    for path in ("/styles", "/styles/{style_id}", "/styles/{style_id}/preview"):
        answers["get", path, 500] = await client.http.get(path.replace("{style_id}", "ink"))
    return answers


async def test_every_documented_status_is_answered_as_documented_and_no_other(
    document: dict[str, Any],
    client: Any,
    open_client: Any,
    stub_engine: Any,
    wait_until: Any,
    photo_jpeg: bytes,
) -> None:
    answers = await answers_of_a_good_service(client, photo_jpeg)
    async with open_client(stub_engine, max_in_flight=1) as troubled:
        answers |= await answers_of_a_troubled_service(
            troubled, stub_engine, photo_jpeg, wait_until
        )
    responses = documented(document)
    assert set(answers) == set(responses)
    for operation, answer in answers.items():
        response = responses[operation]
        assert answer.status_code == operation[2], operation
        assert set(answer.headers) - OF_THE_TRANSPORT == set(map(str.lower, response["headers"]))
        media_type = answer.headers.get("content-type", "").split(";")[0]
        assert media_type in response.get("content", {"": None}), operation
        if media_type == PROBLEM_MEDIA_TYPE:
            kind = answer.json()["type"].rpartition(":")[2]
            assert kind in response["content"][media_type]["examples"]
            assert set(answer.json()) == set(
                document["components"]["schemas"]["Problem"]["required"]
            )


def test_every_kind_of_problem_has_an_example_in_the_words_of_a_caller() -> None:
    assert set(PROBLEM_DETAILS) == {kind.slug for kind in error_kinds()} - {UNANSWERED}


def test_problems_of_stylize_are_all_there_are(document: dict[str, Any]) -> None:
    examples: dict[str, Any] = {}
    for (_, path, _), response in documented(document).items():
        if path == "/stylize":
            examples |= response["content"].get(PROBLEM_MEDIA_TYPE, {}).get("examples", {})
    assert set(examples) == set(PROBLEM_DETAILS)
    kinds = {kind.slug: kind for kind in error_kinds()}
    for slug, example in examples.items():
        assert example["value"]["type"] == problem_type(slug)
        assert example["value"]["status"] == kinds[slug].status
        assert example["value"]["instance"] == "/stylize"


def test_every_answer_with_a_body_has_an_example_but_pictures(document: dict[str, Any]) -> None:
    for operation, response in documented(document).items():
        for media_type, content in response.get("content", {}).items():
            if media_type.startswith("image/"):
                continue
            schema = resolve(document, content["schema"])
            in_fields = all("examples" in field for field in schema.get("properties", {}).values())
            assert {"example", "examples"} & set(content) or in_fields, operation


def test_every_parameter_says_what_it_means_and_gives_an_example(document: dict[str, Any]) -> None:
    seen = set()
    for operations in document["paths"].values():
        for operation in operations.values():
            for node in operation["parameters"]:
                parameter = resolve(document, node)
                seen.add(parameter["name"].lower())
                if parameter["name"] != "style_id":
                    assert parameter["description"]
                    assert parameter["schema"]["examples"]
                assert {"type": "null"} not in parameter["schema"].get("anyOf", ())
    assert seen >= {
        "x-request-id",
        "traceparent",
        "x-request-timeout-seconds",
        "if-none-match",
        "style",
    }


def test_document_shows_both_bodies_of_stylize_and_all_formats(document: dict[str, Any]) -> None:
    operation = document["paths"]["/stylize"]["post"]
    content = operation["requestBody"]["content"]
    assert set(content) == {"multipart/form-data", "image/*", "application/octet-stream"}
    form = content["multipart/form-data"]["schema"]
    assert {"image", "style", "max_side", "keep_colors", "strength", "seed"} < set(
        form["properties"]
    )
    assert form["required"] == ["image", "style"]
    assert set(operation["responses"]["200"]["content"]) == {row.media_type for row in ENCODABLE}


def test_document_names_no_422_that_cannot_be(document: dict[str, Any]) -> None:
    assert {operation for operation in documented(document) if operation[2] == 422} == {
        ("post", "/stylize", 422)
    }
    assert "HTTPValidationError" not in json.dumps(document)


def test_root_of_the_errors_stands_for_the_unforeseen() -> None:
    assert (ServiceError.status, ServiceError.slug) == (500, "internal")


@pytest.fixture(scope="module")
def generated(document: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A package that openapi-python-client made from the document."""
    folder: Path = tmp_path_factory.mktemp("generated")
    pictures = ["image/*", *(row.media_type for row in FORMATS.values())]
    config = {
        "post_hooks": [],
        "content_type_overrides": dict.fromkeys(pictures, "application/octet-stream"),
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "openapi.json").write_text(json.dumps(document))
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none"]
    options = ["--path", "openapi.json", "--config", "config.json", "--fail-on-warning"]
    finished = subprocess.run(
        [*command, *options, "--output-path", "atelier_client"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    sys.path.insert(0, str(folder))
    yield importlib.import_module
    sys.path.remove(str(folder))
    for name in [name for name in sys.modules if name.startswith("atelier_client")]:
        del sys.modules[name]


def use_every_operation(client: Any, generated: Any, photo_jpeg: bytes) -> None:
    types, models = generated("atelier_client.types"), generated("atelier_client.models")
    stylize = generated("atelier_client.api.stylize.stylize")
    styles = generated("atelier_client.api.styles.list_styles").sync(client=client).styles
    assert [style.id for style in styles] == ["ink", "wash"]

    image = types.File(io.BytesIO(photo_jpeg), "photo.jpg", "image/jpeg")
    form = models.StylizeFilesBody(
        image=image, style="ink", max_side=48, format_=models.StylizeFilesBodyFormat.PNG
    )
    answer = stylize.sync_detailed(client=client, body=form, x_request_id="order-66")
    assert answer.headers["x-request-id"] == "order-66"
    assert Image.open(answer.parsed.payload).size == (48, 32)

    def raw() -> Any:
        return types.File(io.BytesIO(photo_jpeg))

    painted = stylize.sync(client=client, body=raw(), style="wash", quality=80)
    assert Image.open(painted.payload).format == "JPEG"
    problem = stylize.sync(client=client, body=raw(), style="cubism")
    assert isinstance(problem, models.Problem)
    assert (problem.status, problem.type_) == (404, "urn:atelier:error:style-not-found")

    preview = generated("atelier_client.api.styles.read_preview").sync("ink", client=client)
    assert Image.open(preview.payload).format == "JPEG"
    assert generated("atelier_client.api.operations.ready").sync(client=client).status == "ready"
    metrics = generated("atelier_client.api.operations.read_metrics").sync(client=client)
    assert "atelier_requests_total" in metrics


def test_client_made_from_the_document_works(
    generated: Any, server: Any, photo_jpeg: bytes
) -> None:
    with generated("atelier_client").Client(base_url=server.url) as client:
        use_every_operation(client, generated, photo_jpeg)
