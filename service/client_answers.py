"""Answers: what a client makes of the service's good answers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from service.client_exchange import AtelierError

if TYPE_CHECKING:
    import httpx

# The part behind the stroke becomes a suffix of files, so that not everything will do.
_PICTURE = re.compile(r"image/[a-z0-9]+")
# Of what others on the way add to the header, some is without a time.
_TIME = re.compile(r"([\w.-]+)\s*;\s*dur=([0-9]+(?:\.[0-9]+)?)")


@dataclass(frozen=True, slots=True)
class Style:
    """One style of a service; ``preview_url`` is a path on it."""

    id: str
    title: str
    artist: str
    year: str
    description: str
    generator: str
    mixable: bool
    picture_license: str
    weights_license: str
    preview_url: str

    @classmethod
    def of(cls, entry: dict[str, Any]) -> Style:
        """Read an entry of ``GET /styles``; what a newer service adds to it is left out."""
        return cls(**{each.name: entry[each.name] for each in fields(cls)})


@dataclass(frozen=True, slots=True, eq=False)
class Stylized:
    """A painted picture, as a file's bytes."""

    data: bytes = field(repr=False)
    media_type: str
    request_id: str
    stages_ms: dict[str, float]

    @property
    def suffix(self) -> str:
        """What a file of it is called: ``jpg``, ``png`` or ``webp``."""
        return self.media_type.removeprefix("image/").replace("jpeg", "jpg")


def read_styles(answer: httpx.Response) -> list[Style]:
    """Read ``GET /styles``.

    Raises:
        AtelierError: it is something else.
    """
    try:
        return [Style.of(entry) for entry in answer.json()["styles"]]
    except (ValueError, KeyError, TypeError) as error:
        raise AtelierError(f"{answer.url} is no list of styles; is this an Atelier?") from error


def read_picture(answer: httpx.Response) -> Stylized:
    """Read ``POST /stylize``.

    Raises:
        AtelierError: it is something else.
    """
    given = answer.headers.get("Content-Type", "")
    media_type = given.partition(";")[0].strip().lower()
    if not _PICTURE.fullmatch(media_type):
        place = answer.url.copy_with(query=None)
        raise AtelierError(f"{place} answers with {given or 'nothing'}, not a picture")
    timing = answer.headers.get("Server-Timing", "")
    return Stylized(
        data=answer.content,
        media_type=media_type,
        request_id=answer.headers.get("X-Request-ID", ""),
        stages_ms={name: float(ms) for name, ms in _TIME.findall(timing)},
    )
