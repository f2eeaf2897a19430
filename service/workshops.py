"""Workshops: where a file's picture is painted, here or by a service. All give the same bytes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from types import TracebackType

    from service.schemas import StylizeParameters


class CannotPaintError(Exception):
    """One picture cannot be painted; ``detail`` is the service's own sentence on it.

    ``type`` and ``status`` are those of its problem document, where it comes from the service.
    """

    def __init__(
        self,
        detail: str,
        *,
        type: str = "about:blank",  # noqa: A002  # the member's name in RFC 9457
        status: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.type = type
        self.status = status


class WorkshopLostError(Exception):
    """No picture at all can be painted; the message says why."""


@dataclass(frozen=True, slots=True, eq=False)
class Painting:
    """A painted picture, as a file's bytes, and what such a file is called."""

    data: bytes = field(repr=False)
    suffix: str


class Workshop(Protocol):
    """Paints pictures; open it before."""

    @property
    def jobs(self) -> int:
        """How many pictures at once keep it busy."""

    @property
    def max_bytes(self) -> int:
        """Size of the largest file that is worth reading."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def describe(self, parameters: StylizeParameters) -> dict[str, object]:
        """Name what decides on a painting beside its photograph, as far as that is known."""

    async def paint(self, image: bytes, parameters: StylizeParameters) -> Painting:
        """Paint a file's bytes.

        Raises:
            CannotPaintError: not these.
            WorkshopLostError: nor any others.
        """
