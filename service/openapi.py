"""OpenAPI: what signatures cannot say of bodies, headers, pictures and problems."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

from service import browser
from service.errors import ServiceError, error_kinds
from service.problems import PROBLEM_MEDIA_TYPE, problem_type
from service.schemas import Problem, StyleInfo, StyleList, StylizeParameters

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.formats import ImageFormat
    from service.settings import Settings

Responses = dict[int | str, dict[str, Any]]

HEADERS: dict[str, tuple[str, str]] = {
    "X-Request-ID": (
        "names this request in the service's log; the client's own where it sent a usable one",
        "4f1c0f0f6d3c4f0c9a9d6b0a1c2d3e4f",
    ),
    "Server-Timing": (
        "milliseconds of each stage (https://www.w3.org/TR/server-timing/)",
        "decode;dur=4.1, queue;dur=0.2, stylize;dur=182.3, encode;dur=3.9",
    ),
    "Vary": ("the headers of the request that chose the answer", "Accept"),
    "Content-Disposition": ("a name to save it by", 'inline; filename="starry-night.jpg"'),
    "ETag": ("send it back in If-None-Match", '"5d41402abc4b2a76b9719d911017c592"'),
    "Cache-Control": (
        "how long the answer may be kept; private where a key opened it",
        "public, max-age=60",
    ),
    "Retry-After": ("whole seconds after which to try again", "2"),
    "RateLimit-Policy": (
        "with `rate-limited`: how many requests (q) one caller may send in so many seconds (w)",
        '"default";q=60;w=60',
    ),
    "RateLimit": (
        "with `rate-limited`: how many are left (r), and seconds until there are more (t)",
        '"default";r=0;t=2',
    ),
    "WWW-Authenticate": (
        "how to send a key, and what is wrong with the one that came",
        'Bearer realm="atelier", error="invalid_token"',
    ),
    "Connection": ("the rest of the body is not read", "close"),
    **{
        name: ("tells browsers what they may not do with the answer", value)
        for name, value in browser.HEADERS.items()
    },
}
"""What answers carry: meaning and an example."""

_OF_EVERY_ANSWER = ("X-Request-ID", *browser.HEADERS)
_CACHED = ("ETag", "Cache-Control", "Vary")
_OF_STATUS = {
    401: ("WWW-Authenticate",),
    403: ("WWW-Authenticate",),
    408: ("Connection",),
    429: ("Retry-After", "RateLimit-Policy", "RateLimit"),
    503: ("Retry-After",),
}

PROBLEM_DETAILS = {
    "internal": "the service met an error of its own; its log names the cause",
    "malformed-request": "the multipart body ends before its closing boundary",
    "unauthorized": "a key is needed; send Authorization: Bearer KEY, or X-API-Key: KEY",
    "forbidden": "this key does not open /admin; send an administrator's",
    "style-not-found": "no style 'cubism'; GET /styles lists them",
    "request-not-found": "no request 'order-66' of yours is in flight here; it may be done, or at "
    "another instance",
    "not-acceptable": "Accept: text/html takes none of image/jpeg, image/png, image/webp",
    "upload-too-slow": "32.0 KiB of the body came in 12 s; send at least 16 KiB/s",
    "reload-in-progress": "another reload is not done yet; wait for its answer",
    "body-too-large": "21.0 MiB exceeds the limit of 20.0 MiB",
    "image-too-large": "61.0 MP exceeds the limit of 50.0 MP",
    "unsupported-media-type": "the bytes are not a picture of an accepted format: "
    "JPEG, PNG, WEBP, AVIF, GIF",
    "invalid-parameter": "strength: input should be less than or equal to 1",
    "corrupt-image": "the JPEG cannot be decoded: image file is truncated",
    "image-too-small": "1x1 px is below the least side of 16 px",
    "zoo-rejected": "/zoo/previews/starry-night.jpg: preview is missing; export it again; the zoo "
    "of before is served on",
    "busy": "32 requests in flight and 1 more exceed the limit of 32; try again in 2 s",
    "rate-limited": "60 requests in 60 s are the limit of one caller; try again in 2 s",
    "stylization-failed": "the generator gave numbers out of range",
    "not-ready": "the service is warming up",
    "device-lost": "the device has not answered for 61 s, longer than 60 s",
    "device-out-of-memory": "a pass over 4.2 MP does not fit the device's free memory; ask for a "
    "smaller max_side",
    "deadline-passed": "the 30 s allowed have passed; send a smaller picture, ask for a smaller "
    "max_side, or try when the service is less busy",
}
"""An example of what each problem says; one that is not here says what its class does."""

_STYLE = StyleInfo(
    id="starry-night",
    title="The Starry Night",
    artist="Vincent van Gogh",
    year="1889",
    description="swirls of blue and yellow",
    generator="johnson_half",
    mixable=True,
    mixes_with=["great-wave", "the-scream"],
    has_noise=False,
    picture_license="public domain",
    weights_license="Apache-2.0",
    preview_url="/styles/starry-night/preview",
).model_dump()
_PATH_EXAMPLES = {"style_id": _STYLE["id"], "request_id": "order-66"}
JSON_EXAMPLES = {StyleInfo: _STYLE, StyleList: {"styles": [_STYLE]}}


class DocumentedApp(FastAPI):
    """FastAPI whose document also says what holds for every operation."""

    def openapi(self) -> dict[str, Any]:
        """Give the document, made once."""
        if self.openapi_schema is None:
            _complete(super().openapi(), self._needs_key)
        document: dict[str, Any] = self.openapi_schema or {}
        return document

    def _needs_key(self, path: str) -> bool:
        """Whether a request to ``path``, one that takes a key, gets 401 without."""
        settings: Settings = self.state.settings
        if path.startswith("/admin/"):
            return True
        return settings.metrics_need_key if path == "/metrics" else bool(settings.api_keys)


def problems(*which: int | type[ServiceError]) -> Responses:
    """Document problem documents: of these kinds, or of all kinds that have these statuses."""
    chosen = [kind for kind in error_kinds() if kind in which or kind.status in which]
    return {
        status: _problem_response([kind for kind in chosen if kind.status == status])
        for status in sorted({kind.status for kind in chosen})
    }


def pictures(description: str, *formats: ImageFormat, headers: tuple[str, ...]) -> Responses:
    """Document that 200 is a picture in one of ``formats``."""
    content = _binary(*(row.media_type for row in formats))
    return {200: {"description": description, "content": content, "headers": _refer(*headers)}}


def stylized(*formats: ImageFormat) -> Responses:
    """Document the answer of ``POST /stylize``."""
    headers = ("Server-Timing", "Vary", "Content-Disposition")
    return pictures("The painted picture", *formats, headers=headers)


def cacheable(description: str, content: ImageFormat | type[StyleInfo | StyleList]) -> Responses:
    """Document an answer that the client may hold already: 200 or 304."""
    headers = _refer(*_CACHED)
    not_modified = {"description": "The client holds this answer already", "headers": headers}
    if isinstance(content, type):
        example = {"application/json": {"example": JSON_EXAMPLES[content]}}
        found = {"description": description, "content": example, "headers": headers}
        return {200: found, 304: not_modified}
    return pictures(description, content, headers=_CACHED) | {304: not_modified}


def text(description: str, example: str) -> Responses:
    """Document that 200 is plain text."""
    content = {"text/plain": {"schema": {"type": "string"}, "example": example}}
    return {200: {"description": description, "content": content}}


def stylize_request() -> dict[str, Any]:
    """Document both body kinds of ``POST /stylize`` and the query beside a raw one."""
    schema = StylizeParameters.model_json_schema()
    fields = {name: _without_null(field) for name, field in schema["properties"].items()}
    image = {"type": "string", "format": "binary", "description": "the photograph"}
    form = {
        "type": "object",
        "properties": {"image": image} | fields,
        "required": ["image", *schema["required"]],
        "additionalProperties": False,
    }
    raw = _binary("image/*", "application/octet-stream")
    return {
        "requestBody": {
            "required": True,
            "description": "A form with the picture, or the picture itself with the same "
            "parameters in the query.",
            "content": {"multipart/form-data": {"schema": form}} | raw,
        },
        "parameters": [
            {
                "name": name,
                "in": "query",
                "required": False,
                "description": f"Beside a raw body: {field['description']}",
                # A client that sent defaults here would give them twice beside a form.
                "schema": {key: value for key, value in field.items() if key != "default"},
            }
            for name, field in fields.items()
        ],
    }


def if_none_match() -> dict[str, Any]:
    """Document the header that makes an answer 304."""
    return {
        "parameters": [
            {
                "name": "If-None-Match",
                "in": "header",
                "required": False,
                "description": "ETags of answers that the client holds",
                "schema": {"type": "string", "examples": [HEADERS["ETag"][1]]},
            }
        ]
    }


def _complete(document: dict[str, Any], needs_key: Callable[[str], bool]) -> None:
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    # FastAPI adds its own 422 wherever there is a parameter, also where none can be wrong.
    for foreign in ("HTTPValidationError", "ValidationError"):
        schemas.pop(foreign, None)
    schemas["Problem"] = Problem.model_json_schema()
    components["headers"] = {
        name: {"description": meaning, "schema": {"type": "string"}, "example": example}
        for name, (meaning, example) in HEADERS.items()
    }
    components["parameters"] = {
        "X-Request-ID": {
            "name": "X-Request-ID",
            "in": "header",
            "required": False,
            "description": "comes back and stands in the log; up to 128 of the characters "
            "A-Z a-z 0-9 . _ ~ : / + = @ -, or a new one is made",
            "schema": {"type": "string", "examples": ["order-66"]},
        },
        "traceparent": {
            "name": "traceparent",
            "in": "header",
            "required": False,
            "description": "the caller's span (https://www.w3.org/TR/trace-context/), whose trace "
            "the log and, where tracing is on, our spans then belong to; ignored if not valid",
            "schema": {
                "type": "string",
                "examples": ["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"],
            },
        },
    }
    for path, operations in document["paths"].items():
        for operation in operations.values():
            _complete_operation(path, operation)
            if operation.get("security") and not needs_key(path):
                operation["security"].insert(0, {})  # none of them will do as well


def _complete_operation(path: str, operation: dict[str, Any]) -> None:
    for parameter in operation.setdefault("parameters", []):
        parameter["schema"] = _without_null(parameter["schema"])
    operation["parameters"] += [
        {"$ref": f"#/components/parameters/{name}"} for name in ("X-Request-ID", "traceparent")
    ]
    responses = operation["responses"]
    if "HTTPValidationError" in str(responses.get("422")):
        del responses["422"]
    for response in responses.values():
        response["headers"] = _refer(*_OF_EVERY_ANSWER) | response.get("headers", {})
        problem = response.get("content", {}).get(PROBLEM_MEDIA_TYPE, {})
        for example in problem.get("examples", {}).values():
            example["value"]["instance"] = path.format_map(_PATH_EXAMPLES)


def _problem_response(kinds: list[type[ServiceError]]) -> dict[str, Any]:
    status = kinds[0].status
    reasons = (f"- `{kind.slug}`: {(kind.__doc__ or '').splitlines()[0]}" for kind in kinds)
    content = {
        "schema": {"$ref": "#/components/schemas/Problem"},
        "examples": {kind.slug: _problem_example(kind) for kind in kinds},
    }
    return {
        "description": "\n".join((HTTPStatus(status).phrase, "", *reasons)),
        "content": {PROBLEM_MEDIA_TYPE: content},
        "headers": _refer(*_OF_STATUS.get(status, ())),
    }


def _problem_example(kind: type[ServiceError]) -> dict[str, Any]:
    problem = Problem(
        type=problem_type(kind.slug),
        title=kind.title,
        status=kind.status,
        detail=PROBLEM_DETAILS.get(kind.slug, kind.__doc__ or ""),
        instance="",
        request_id=HEADERS["X-Request-ID"][1],
    )
    return {"summary": kind.title, "value": problem.model_dump()}


def _refer(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _binary(*media_types: str) -> dict[str, Any]:
    schema = {"type": "string", "format": "binary"}
    return {media_type: {"schema": schema} for media_type in media_types}


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Turn "this or null" into "this": fields of forms, queries and headers cannot be null."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) != 1:
        return schema
    rest = {key: value for key, value in schema.items() if key not in {"anyOf", "default"}}
    return {**kinds[0], **rest}
