"""OpenAPI: what signatures cannot say of bodies, pictures and problems."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from service.errors import PROBLEM_MEDIA_TYPE
from service.schemas import Problem, StylizeParameters

if TYPE_CHECKING:
    from service.formats import ImageFormat

Responses = dict[int | str, dict[str, Any]]


def problems(*statuses: int) -> Responses:
    """Document that each status is answered with a problem document."""
    content = {PROBLEM_MEDIA_TYPE: {"schema": Problem.model_json_schema()}}
    return {status: {"description": "Problem", "content": content} for status in statuses}


def pictures(description: str, *formats: ImageFormat) -> Responses:
    """Document that 200 is a picture in one of ``formats``."""
    content = _binary(*(row.media_type for row in formats))
    return {200: {"description": description, "content": content}}


def stylize_request() -> dict[str, Any]:
    """Document both body kinds of ``POST /stylize`` and the query beside a raw one."""
    schema = StylizeParameters.model_json_schema()
    fields, required = schema["properties"], ["image", *schema["required"]]
    image = {"type": "string", "format": "binary", "description": "the photograph"}
    form = {"type": "object", "properties": {"image": image} | fields, "required": required}
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
                "schema": field,
            }
            for name, field in fields.items()
        ],
    }


def _binary(*media_types: str) -> dict[str, Any]:
    schema = {"type": "string", "format": "binary"}
    return {media_type: {"schema": schema} for media_type in media_types}
