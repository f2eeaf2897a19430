"""Work and Outcome: what crosses between an ingress and an engine."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from service.deadlines import Deadline
from service.formats import FORMATS
from service.logs import request_ids
from service.pipeline import StyleRequest, StylizedImage

if TYPE_CHECKING:
    from service.errors import ServiceError


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """A request as an engine gets it.

    ``formats`` are names. ``left_s`` is the time that is left, since clocks of machines differ.
    ``ids`` are the headers that tie log lines and traces together.
    """

    image: bytes
    style: str
    formats: tuple[str, ...]
    left_s: float
    max_side_px: int
    quality: int
    keep_colors: bool
    strength: float
    seed: int
    owner: str
    ids: dict[str, str]

    @classmethod
    def of(cls, request: StyleRequest) -> Work:
        """Pack ``request``."""
        return cls(
            image=request.image,
            style=request.style,
            formats=tuple(row.name for row in request.formats),
            left_s=request.deadline.at_s - time.monotonic(),
            max_side_px=request.max_side_px,
            quality=request.quality,
            keep_colors=request.keep_colors,
            strength=request.strength,
            seed=request.seed,
            owner=request.owner,
            ids=request_ids(),
        )

    def unpack(self) -> StyleRequest:
        """Give the request, with what is left of its time."""
        return StyleRequest(
            image=self.image,
            style=self.style,
            formats=tuple(FORMATS[name] for name in self.formats),
            deadline=Deadline.after(self.left_s),
            max_side_px=self.max_side_px,
            quality=self.quality,
            keep_colors=self.keep_colors,
            strength=self.strength,
            seed=self.seed,
            owner=self.owner,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What became of it: the painted picture and its format, or the error.

    An error is carried rather than raised, or Ray would wrap it and log its traceback.
    """

    stages_s: dict[str, float] = field(default_factory=dict)
    data: bytes = b""
    format: str = ""
    error: ServiceError | None = None

    def unpack(self) -> StylizedImage:
        """Give the picture.

        Raises:
            ServiceError: as in the engine.
        """
        if self.error is not None:
            raise self.error
        return StylizedImage(self.data, FORMATS[self.format])
