"""Uploads: the body of a stylize request, capped while it streams, and its parameters."""

from __future__ import annotations

import asyncio
import math
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from service.errors import (
    BodyTooLargeError,
    InvalidParameterError,
    MalformedRequestError,
    UnsupportedMediaTypeError,
    UploadTimeoutError,
)
from service.schemas import StylizeParameters

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Message

_MAX_FIELD_BYTES = 4096
_MAX_FIELDS = 32
_MIB = 2**20
_KIB = 2**10
# Less than a bad mobile connection gives; without a rate, a byte a second would do for ever.
_SLOWEST_BYTES_PER_S = 16 * _KIB


@dataclass(frozen=True, slots=True, eq=False)
class Upload:
    """A picture as it came, and what to do with it."""

    image: bytes
    parameters: StylizeParameters


class _InMemoryParser(MultiPartParser):
    # The body is capped already, and a photograph should not touch the disk.
    spool_max_size = sys.maxsize
    ended = False

    def on_end(self) -> None:
        """Note the closing boundary: without it a part may be cut short, or missing."""
        self.ended = True


async def read_upload(
    request: Request,
    *,
    max_body_bytes: int,
    body_timeout_s: float,
    reserve: Callable[[int], None],
) -> Upload:
    """Read a multipart/form-data or raw image body; query parameters count as fields.

    Args:
        request: whose body nobody has read yet.
        max_body_bytes: longest body.
        body_timeout_s: time it may take, and a second more for each 16 KiB of it that came.
        reserve: told how many bytes will be held, before the first is read where the client says
            so, else as they come; what it raises is passed on.

    Raises:
        BodyTooLargeError: more than ``max_body_bytes`` are announced, or come.
        InvalidParameterError: the picture is missing, or a field is not valid.
        MalformedRequestError: the multipart body does not parse.
        UnsupportedMediaTypeError: the Content-Type is neither kind.
        UploadTimeoutError: the body comes too slowly.
        ClientDisconnect: the client hung up before the end.
    """
    request = _keep_pace(_cap_body(request, max_body_bytes, reserve), body_timeout_s)
    media_type = parse_options_header(request.headers.get("content-type"))[0].decode("latin-1")
    fields: list[tuple[str, str | bytes]] = [*request.query_params.multi_items()]
    if media_type == "multipart/form-data":
        fields += await _read_form(request)
    elif media_type.startswith("image/") or media_type in {"application/octet-stream", ""}:
        fields.append(("image", await request.body()))
    else:
        raise UnsupportedMediaTypeError(
            f"Content-Type {media_type!r} is not accepted; send multipart/form-data with a file "
            "named 'image', or the picture itself as image/*"
        )
    return _to_upload(fields)


def _cap_body(request: Request, max_body_bytes: int, reserve: Callable[[int], None]) -> Request:
    """Refuse a body that announces too much, and count what arrives whatever it announced."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > max_body_bytes:
        # Rounded up, lest it read "20.0 MiB exceeds the limit of 20.0 MiB".
        mebibytes = math.ceil(int(announced) / _MIB * 10) / 10
        raise BodyTooLargeError(
            f"{mebibytes:.1f} MiB exceeds the limit of {max_body_bytes / _MIB:.1f} MiB"
        )
    if announced.isdecimal():
        reserve(int(announced))
    received = 0

    async def receive() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > max_body_bytes:
            raise BodyTooLargeError(
                f"the body goes on after the limit of {max_body_bytes / _MIB:.1f} MiB"
            )
        reserve(received)
        return message

    return Request(request.scope, receive)


def _keep_pace(request: Request, timeout_s: float) -> Request:
    """Give a body a time that grows with what has come of it."""
    began_s = asyncio.get_running_loop().time()
    received = 0

    async def receive() -> Message:
        nonlocal received
        allowed_s = timeout_s + received / _SLOWEST_BYTES_PER_S
        pace = asyncio.timeout_at(began_s + allowed_s)
        try:
            async with pace:
                message = await request.receive()
        except TimeoutError as error:
            if not pace.expired():
                raise
            raise UploadTimeoutError(
                f"{received / _KIB:.1f} KiB of the body came in {allowed_s:.0f} s; send at least "
                f"{_SLOWEST_BYTES_PER_S // _KIB} KiB/s"
            ) from error
        received += len(message.get("body", b""))
        return message

    return Request(request.scope, receive)


async def _read_form(request: Request) -> list[tuple[str, str | bytes]]:
    parser = _InMemoryParser(
        request.headers,
        request.stream(),
        max_files=_MAX_FIELDS,
        max_fields=_MAX_FIELDS,
        max_part_size=_MAX_FIELD_BYTES,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise MalformedRequestError(
            f"the multipart body does not parse: {error.message}"
        ) from error
    except (UnicodeError, LookupError) as error:
        raise MalformedRequestError("the charset of the multipart body is not usable") from error
    if not parser.ended:
        await form.close()
        raise MalformedRequestError("the multipart body ends before its closing boundary")
    try:
        return [
            (name, await value.read() if isinstance(value, UploadFile) else value)
            for name, value in form.multi_items()
        ]
    finally:
        await form.close()


def _to_upload(fields: list[tuple[str, str | bytes]]) -> Upload:
    values: dict[str, str | bytes] = {}
    for name, value in fields:
        if name in values:
            raise InvalidParameterError(f"{name}: is given more than once")
        values[name] = value
    image = values.pop("image", None)
    try:
        parameters = StylizeParameters.model_validate(values)
    except ValidationError as error:
        raise InvalidParameterError(_describe(error)) from error
    if image is None:
        raise InvalidParameterError("image: is missing; send the picture as a file of that name")
    if isinstance(image, str):
        raise InvalidParameterError("image: must be a file; its part needs a filename")
    if not image:
        raise InvalidParameterError("image: is empty")
    return Upload(image, parameters)


def _describe(error: ValidationError) -> str:
    """One sentence a fault, each naming its parameter."""
    sentences = []
    for fault in error.errors(include_url=False, include_context=False):
        name = ".".join(map(str, fault["loc"]))
        if fault["type"] == "extra_forbidden":
            known = ", ".join(("image", *StylizeParameters.model_fields))
            sentences.append(f"{name}: is no parameter; there are {known}")
        elif fault["type"] == "missing":
            sentences.append(f"{name}: is missing")
        else:
            sentences.append(f"{name}: {fault['msg'][0].lower()}{fault['msg'][1:]}")
    return "; ".join(sentences)
