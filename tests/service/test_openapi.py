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

from service import browser
from service.app import create_app
from service.errors import (
    DeviceLostError,
    DeviceOutOfMemoryError,
    ServiceError,
    StylizationError,
    error_kinds,
)
from service.formats import ENCODABLE, FORMATS
from service.keys import hash_key
from service.openapi import PROBLEM_DETAILS
from service.problems import PROBLEM_MEDIA_TYPE, problem_type

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    import httpx

    WaitUntil = Callable[[Callable[[], bool]], Awaitable[None]]

pytestmark = pytest.mark.anyio

OF_THE_TRANSPORT = {"content-length", "content-type"}
UNANSWERED = "client-closed-request"  # nobody is left to read it
PROGRESS = "/requests/{request_id}"
LISTING = ("/styles", "/styles/{style_id}", "/styles/{style_id}/preview")
OF_ADMIN = {"forbidden", "reload-in-progress", "zoo-rejected"}
OF_PROGRESS = "request-not-found"

KEY, ADMINISTRATORS_KEY = "key-of-alice", "key-of-ops"
KEYS = {
    "api_keys": f"alice={hash_key(KEY)}",
    "admin_keys": f"ops={hash_key(ADMINISTRATORS_KEY)}",
}
ADMINISTRATOR = {"X-API-Key": ADMINISTRATORS_KEY}

Operation = tuple[str, str, int]
Answer = tuple[str, str, "httpx.Response"]  # method and path as documented, and what came


@pytest.fixture(scope="module")
def document(make_settings: Any) -> dict[str, Any]:
    """Of a service that has keys and /admin; in all else it does not depend on settings."""
    app = create_app(make_settings(runtime="torch", **KEYS))
    document: dict[str, Any] = json.loads(json.dumps(app.openapi()))
    return document


@pytest.mark.parametrize(
    ("settings", "closed"),
    [
        ({}, set()),
        ({"api_keys": KEYS["api_keys"]}, {"/stylize", PROGRESS, *LISTING}),
        ({"admin_keys": KEYS["admin_keys"]}, {"/admin/reload"}),
        (
            KEYS | {"metrics_need_key": True},
            {"/stylize", PROGRESS, *LISTING, "/metrics", "/admin/reload"},
        ),
    ],
)
async def test_document_asks_for_a_key_where_the_service_does(
    open_client: Any, stub_engine: Any, settings: dict[str, Any], closed: set[str]
) -> None:
    """An empty requirement means that none is needed."""
    asks, refuses = set(), set()
    async with open_client(stub_engine, **settings) as client:
        paths = client.app.openapi()["paths"]
        for path, operations in paths.items():
            for method, operation in operations.items():
                if {} not in operation.get("security", [{}]):
                    asks.add(path)
                where = path.replace("{style_id}", "ink")
                if (await client.http.request(method, where)).status_code == 401:
                    refuses.add(path)
    assert asks == refuses == closed


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


def documented_problems(response: dict[str, Any]) -> set[str]:
    return set(response.get("content", {}).get(PROBLEM_MEDIA_TYPE, {}).get("examples", ()))


async def get_each(http: Any, *paths: str, **options: Any) -> list[Answer]:
    return [
        ("get", path, await http.get(path.replace("{style_id}", "ink"), **options))
        for path in paths
    ]


async def answers_of_a_good_service(client: Any, photo: bytes, encode: Any) -> list[Answer]:
    http = client.http
    broken_form = {"Content-Type": "multipart/form-data; boundary=a"}
    tiny, large = (Image.new("RGB", size, "teal") for size in ((8, 8), (400, 300)))
    painted = [
        await client.stylize(photo),
        await http.post("/stylize", content=b"--a\r\n", headers=broken_form),
        await client.stylize(photo, "cubism"),
        await client.stylize(photo, headers={"Accept": "text/html"}),
        await client.stylize(bytes(21 * 2**20)),
        await client.stylize(encode(large)),
        await client.stylize(b"no picture"),
        await client.stylize(photo, strength="2"),
        await client.stylize(photo[: len(photo) // 2]),
        await client.stylize(encode(tiny)),
    ]
    answers = [("post", "/stylize", response) for response in painted]
    answers += await get_each(http, "/livez", "/readyz", "/metrics")
    for method, path, found in await get_each(http, *LISTING):
        held = {"If-None-Match": found.headers["etag"]}
        unchanged = await http.get(found.request.url, headers=held)
        answers += [(method, path, found), (method, path, unchanged)]
        if "{style_id}" in path:
            answers.append((method, path, await http.get(path.replace("{style_id}", "none"))))
    return answers


async def answers_of_a_troubled_service(
    client: Any, engine: Any, photo: bytes, wait_until: WaitUntil
) -> list[Answer]:
    """It admits one request and waits a moment for its body."""
    engine.gate.clear()
    headers = {"X-Request-Timeout-Seconds": "0.5", "X-Request-ID": "first"}
    first = asyncio.create_task(client.stylize(photo, headers=headers))
    await wait_until(lambda: client.app.state.pipeline.gate.in_flight == 1)
    asked = [await client.http.get(f"/requests/{name}") for name in ("first", "second")]
    painted = [await client.stylize(photo), await first]
    engine.gate.set()

    async def drip() -> AsyncIterator[bytes]:
        while True:
            yield b"\xff"
            await asyncio.sleep(0.005)

    headers = {"Content-Type": "image/jpeg"}
    painted.append(await client.http.post("/stylize?style=ink", content=drip(), headers=headers))
    for fault in (
        RuntimeError("a kernel of this pass alone"),
        StylizationError("the generator gave numbers out of range"),
        DeviceOutOfMemoryError("a pass over 4.2 MP does not fit"),
        DeviceLostError("the device broke down"),
    ):
        engine.fault = fault
        painted.append(await client.stylize(photo))
    answers = await get_each(client.http, "/livez", "/readyz")
    client.app.state.lifecycle.fault = "warm-up failed"
    painted.append(await client.stylize(photo))
    answers += await get_each(client.http, "/readyz")
    client.app.state.zoos.current = client.app.state.progress = None  # nothing foresees this
    answers += await get_each(client.http, *LISTING, PROGRESS)
    answers += [("get", PROGRESS, response) for response in asked]
    return answers + [("post", "/stylize", response) for response in painted]


async def answers_of_a_service_with_keys(client: Any, photo: bytes) -> list[Answer]:
    """It lets each caller paint once an hour, and shows its metrics to holders of keys."""
    headers = {"X-API-Key": KEY}
    painted = [await client.stylize(photo)]
    painted += [await client.stylize(photo, headers=headers) for _ in range(2)]
    return [
        *[("post", "/stylize", response) for response in painted],
        *await get_each(client.http, "/metrics", *LISTING, PROGRESS),
        *await get_each(client.http, "/metrics", *LISTING, headers=headers),
    ]


async def answers_to_an_administrator(
    client: Any, engine: Any, zoo: Path, photo: bytes, wait_until: WaitUntil
) -> list[Answer]:
    async def reload(headers: dict[str, str] = ADMINISTRATOR) -> httpx.Response:
        response: httpx.Response = await client.http.post("/admin/reload", headers=headers)
        return response

    reloads = [await reload({}), await reload({"X-API-Key": KEY}), await reload()]
    engine.gate.clear()
    painting = asyncio.create_task(client.stylize(photo, headers=ADMINISTRATOR))
    await wait_until(lambda: len(engine.batches) == 1)
    waiting = asyncio.create_task(reload())
    await wait_until(lambda: not client.app.state.reloader._reload.done())
    reloads.append(await reload())
    engine.gate.set()
    assert (await painting).status_code == (await waiting).status_code == 200

    (zoo / "ink.jpg").rename(zoo / "away.jpg")
    reloads.append(await reload())
    (zoo / "away.jpg").rename(zoo / "ink.jpg")
    engine.networks = None  # nothing foresees this
    reloads.append(await reload())
    client.app.state.lifecycle.drain()
    reloads.append(await reload())
    client.app.state.lifecycle._batcher.fault = "the device broke down"
    reloads.append(await reload())
    return [("post", "/admin/reload", response) for response in reloads]


@pytest.fixture
async def answers(
    open_client: Any,
    stub_engine: Any,
    wait_until: WaitUntil,
    make_zoo: Any,
    tmp_path: Path,
    photo_jpeg: bytes,
    encode: Any,
) -> list[Answer]:
    """Every answer that there is, of services that are good, troubled, or have keys."""
    found = []
    async with open_client(stub_engine, max_source_pixels=100_000) as client:
        found += await answers_of_a_good_service(client, photo_jpeg, encode)
    async with open_client(stub_engine, max_in_flight=1, body_timeout_s=0.2) as client:
        found += await answers_of_a_troubled_service(client, stub_engine, photo_jpeg, wait_until)
    stub_engine.fault = None
    keyed = KEYS | {"rate_limit": "1/hour", "metrics_need_key": True}
    async with open_client(stub_engine, **keyed) as client:
        found += await answers_of_a_service_with_keys(client, photo_jpeg)
    zoo = make_zoo(tmp_path)
    stub_engine.batches.clear()
    async with open_client(stub_engine, zoo=zoo, **KEYS) as client:
        found += await answers_to_an_administrator(client, stub_engine, zoo, photo_jpeg, wait_until)
    return found


async def test_every_documented_answer_is_given_as_documented_and_no_other(
    document: dict[str, Any], answers: list[Answer]
) -> None:
    responses = documented(document)
    headers: dict[Operation, set[str]] = {operation: set() for operation in responses}
    problems: dict[Operation, set[str]] = {operation: set() for operation in responses}
    for method, path, answer in answers:
        operation = (method, path, answer.status_code)
        assert operation in responses, answer.text
        headers[operation] |= set(answer.headers) - OF_THE_TRANSPORT
        media_type = answer.headers.get("content-type", "").split(";")[0]
        assert media_type in responses[operation].get("content", {"": None}), operation
        if media_type == PROBLEM_MEDIA_TYPE:
            problems[operation].add(answer.json()["type"].rpartition(":")[2])
            assert set(answer.json()) == set(
                document["components"]["schemas"]["Problem"]["required"]
            )
    assert problems == {
        operation: documented_problems(response) for operation, response in responses.items()
    }
    assert headers == {
        operation: set(map(str.lower, response["headers"]))
        for operation, response in responses.items()
    }


async def test_document_is_served_as_it_is(document: dict[str, Any], open_client: Any) -> None:
    async with open_client(runtime="torch", **KEYS) as client:
        assert (await client.http.get("/openapi.json")).json() == document


async def test_headers_that_never_differ_are_documented_as_they_are(
    document: dict[str, Any], answers: list[Answer]
) -> None:
    (_, _, answer), examples = answers[0], document["components"]["headers"]
    for name, value in browser.HEADERS.items():
        assert answer.headers[name] == examples[name]["example"] == value


def test_every_kind_of_problem_has_an_example_in_the_words_of_a_caller() -> None:
    assert set(PROBLEM_DETAILS) == {kind.slug for kind in error_kinds()} - {UNANSWERED}


def test_problems_of_stylize_are_all_there_are(document: dict[str, Any]) -> None:
    """But for those of /admin, and of asking how far it is, which happen nowhere else."""
    examples: dict[str, dict[str, Any]] = {"/stylize": {}, "/admin/reload": {}}
    for (_, path, _), response in documented(document).items():
        content = response.get("content", {}).get(PROBLEM_MEDIA_TYPE, {})
        examples.setdefault(path, {}).update(content.get("examples", {}))
    assert set(examples["/stylize"]) == set(PROBLEM_DETAILS) - OF_ADMIN - {OF_PROGRESS}
    for path, of_path in examples.items():
        assert path == "/admin/reload" or not OF_ADMIN & set(of_path)
    kinds = {kind.slug: kind for kind in error_kinds()}
    for slug, example in (examples["/stylize"] | examples["/admin/reload"]).items():
        assert example["value"]["type"] == problem_type(slug)
        assert example["value"]["status"] == kinds[slug].status
    instances = {example["value"]["instance"] for example in examples["/stylize"].values()}
    assert instances == {"/stylize"}


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
        ("post", "/stylize", 422),
        ("post", "/admin/reload", 422),
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


@pytest.mark.slow
def test_client_made_from_the_document_sends_keys_and_reloads(
    generated: Any, start_service: Any
) -> None:
    reload_zoo = generated("atelier_client.api.admin.reload_zoo")
    authenticated = generated("atelier_client").AuthenticatedClient
    variables = {f"ATELIER_{name.upper()}": value for name, value in KEYS.items()}
    with start_service(**variables) as server:
        with authenticated(base_url=server.url, token=KEY) as client:
            styles = generated("atelier_client.api.styles.list_styles").sync(client=client)
            assert [style.id for style in styles.styles] == ["ink", "wash"]
            assert reload_zoo.sync(client=client).type_ == "urn:atelier:error:forbidden"
        with authenticated(base_url=server.url, token=ADMINISTRATORS_KEY) as client:
            assert reload_zoo.sync(client=client).styles == 2
