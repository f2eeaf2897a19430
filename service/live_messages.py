"""LiveMessages: what is said on /live, and its form on the wire; docs/live.md tells clients."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.errors import (
    BusyError,
    ForbiddenError,
    InvalidParameterError,
    MalformedRequestError,
    RateLimitedError,
    ServiceError,
    UnauthorizedError,
    UnavailableError,
)
from service.problems import problem_document
from service.steadiness import DEFAULT_STEADINESS

if TYPE_CHECKING:
    from service.settings import Settings

Model = TypeVar("Model", bound=BaseModel)

VERSION = 1

NORMAL_CLOSURE = 1000
GOING_AWAY = 1001
POLICY_VIOLATION = 1008
INTERNAL_ERROR = 1011
TRY_AGAIN_LATER = 1013

_MAX_TEXT_CHARACTERS = 4096
_NUMBER = struct.Struct(">I")
_NUMBERS = 2**32


class LiveParameters(BaseModel):
    """How frames are painted; the client may change each of these while live."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    style: str = Field(description="as in POST /stylize: a style, or a mixture")
    max_side: int | None = Field(default=None, ge=1, description="longest painted side in pixels")
    min_side: int | None = Field(default=None, ge=1, description="what it may shrink to")
    frames_per_second: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    steadiness: float = Field(default=DEFAULT_STEADINESS, ge=0, le=1, allow_inf_nan=False)
    strength: float = Field(default=1.0, ge=0, le=1, allow_inf_nan=False)
    keep_colors: bool = False
    seed: int = Field(default=0, ge=0, lt=2**63)
    quality: int | None = Field(default=None, ge=1, le=100, description="of the JPEG that answers")

    def agree(self, settings: Settings) -> LiveParameters:
        """Fill in what was left open, within the bounds of ``settings``.

        Raises:
            InvalidParameterError: something is out of bounds.
        """
        max_side = self.max_side or settings.live_max_side_px
        most = {
            "max_side": (max_side, settings.live_max_side_px),
            "frames_per_second": (self.frames_per_second or 0, settings.live_max_frame_rate),
        }
        for name, (asked, limit) in most.items():
            if asked > limit:
                raise InvalidParameterError(f"{name}: {asked:g} exceeds the limit of {limit:g}")
        least = {
            "max_side": (max_side, settings.min_side_px),
            "min_side": (self.min_side or settings.min_side_px, settings.min_side_px),
        }
        for name, (asked, limit) in least.items():
            if asked < limit:
                raise InvalidParameterError(f"{name}: {asked} is below the least of {limit}")
        min_side = self.min_side or min(settings.live_min_side_px, max_side)
        if min_side > max_side:
            raise InvalidParameterError(f"min_side: {min_side} exceeds the max_side of {max_side}")
        agreed = {
            "max_side": max_side,
            "min_side": min_side,
            "frames_per_second": self.frames_per_second or settings.live_frame_rate,
            "quality": self.quality or settings.default_quality,
        }
        return self.model_copy(update=agreed)


class _Start(BaseModel):
    """What the first message has besides parameters."""

    type: Literal["start"]
    version: Literal[1] = 1
    key: str | None = None


class _Change(BaseModel):
    type: Literal["change"]


def read_start(text: str) -> tuple[str | None, LiveParameters]:
    """Read a client's first message: its key, if any, and what it asks for.

    Raises:
        MalformedRequestError: it is no JSON object.
        InvalidParameterError: it is no start of this version, or a parameter is not valid.
    """
    start, rest = _split(text, _Start)
    return start.key, _validate(LiveParameters, rest)


def read_change(text: str, before: LiveParameters) -> LiveParameters:
    """Read a later message; null puts a parameter back to what the service chooses.

    Raises:
        MalformedRequestError: it is no JSON object.
        InvalidParameterError: it is no change, or a parameter is not valid.
    """
    _, rest = _split(text, _Change)
    asked = before.model_dump(exclude_unset=True) | rest
    return _validate(
        LiveParameters, {name: value for name, value in asked.items() if value is not None}
    )


def ready_message(
    agreed: LiveParameters, *, from_frame: int, request_id: str, painted_side: int
) -> str:
    """Say what holds from frame ``from_frame`` on."""
    said = {"type": "ready", "version": VERSION, "request_id": request_id, "from_frame": from_frame}
    return json.dumps(said | agreed.model_dump() | {"painted_side": painted_side})


def statistics_message(**figures: float | int) -> str:
    """Say how the session goes."""
    return json.dumps({"type": "statistics", **figures})


def error_message(error: ServiceError, *, request_id: str, frame: int | None = None) -> str:
    """Say what went wrong, with one frame or with the session."""
    problem = problem_document(error, instance="/live", request_id=request_id)
    if retry_after := error.headers.get("Retry-After"):
        problem["retry_after_s"] = int(retry_after)
    said: dict[str, Any] = {"type": "error", "problem": problem}
    return json.dumps(said if frame is None else said | {"frame": frame})


def picture_message(number: int, picture: bytes) -> bytes:
    """The painted frame ``number``: that in four bytes, the highest first, then the JPEG."""
    return _NUMBER.pack(number % _NUMBERS) + picture


def close_code(error: ServiceError) -> int:
    """With which code a session ends that cannot go on for ``error``."""
    if isinstance(error, BusyError | RateLimitedError | UnavailableError):
        return TRY_AGAIN_LATER
    if isinstance(error, UnauthorizedError | ForbiddenError) or error.status < 500:
        return POLICY_VIOLATION
    return INTERNAL_ERROR


def _split(text: str, kind: type[Model]) -> tuple[Model, dict[str, Any]]:
    """Read what ``kind`` has of a message, and give the rest."""
    if len(text) > _MAX_TEXT_CHARACTERS:
        raise MalformedRequestError(
            f"a message of {len(text):,} characters exceeds the limit of {_MAX_TEXT_CHARACTERS:,}"
        )
    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MalformedRequestError("the message is no JSON") from error
    if not isinstance(said, dict):
        raise MalformedRequestError("the message is no JSON object")
    own = {name: said.pop(name) for name in kind.model_fields if name in said}
    return _validate(kind, own), said


def _validate(kind: type[Model], values: dict[str, Any]) -> Model:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise InvalidParameterError(_describe(error)) from error


def _describe(error: ValidationError) -> str:
    """One sentence a fault, each naming its parameter."""
    sentences = []
    for fault in error.errors(include_url=False, include_context=False):
        name = ".".join(map(str, fault["loc"]))
        if fault["type"] == "extra_forbidden":
            known = ", ".join(LiveParameters.model_fields)
            sentences.append(f"{name}: is no parameter; there are {known}")
        elif fault["type"] == "missing":
            sentences.append(f"{name}: is missing")
        else:
            sentences.append(f"{name}: {fault['msg'][0].lower()}{fault['msg'][1:]}")
    return "; ".join(sentences)
