"""Deadline: the moment by which a request must be done, looked at before every stage."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.errors import DeadlineError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@dataclass(frozen=True, slots=True)
class Deadline:
    """The moment, on the monotonic clock that event loops go by."""

    at_s: float
    allowed_s: float

    @classmethod
    def after(cls, allowed_s: float) -> Deadline:
        """A deadline ``allowed_s`` from now."""
        return cls(time.monotonic() + allowed_s, allowed_s)

    def check(self) -> None:
        """See, on any thread, that there is time left.

        Raises:
            DeadlineError: there is none.
        """
        if time.monotonic() >= self.at_s:
            raise self._error()

    @asynccontextmanager
    async def enforce(self) -> AsyncIterator[None]:
        """Cancel what the block awaits once the deadline passes.

        Raises:
            DeadlineError: it passed.
        """
        limit = asyncio.timeout_at(self.at_s)
        try:
            async with limit:
                yield
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise self._error() from error

    def _error(self) -> DeadlineError:
        return DeadlineError(
            f"the {self.allowed_s:g} s allowed have passed; send a smaller picture, ask for a "
            "smaller max_side, or try when the service is less busy"
        )
