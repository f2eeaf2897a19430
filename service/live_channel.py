"""Channel: a live session's connection to its client; what waits to be sent, and how it ends."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from service.live_messages import close_code

if TYPE_CHECKING:
    from service.errors import ServiceError
    from service.live_painter import Painting

_ERRORS_KEPT = 8


class Channel(Protocol):
    """The connection to a client."""

    async def receive(self) -> str | bytes:
        """Give the next message.

        Raises:
            SessionEnd: there will be none.
        """

    async def send(self, message: str | bytes) -> None:
        """Send a message, as soon as the client has taken most of those before.

        Raises:
            SessionEnd: the client has gone.
        """


class SessionEnd(Exception):  # noqa: N818  # an end is no error
    """A session ends: ``code`` and ``text`` are for the client, ``reason`` for the log.

    ``error`` is what it ends for, where that is an error.
    """

    def __init__(
        self, reason: str, code: int, text: str = "", error: ServiceError | None = None
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code
        self.text = text
        self.error = error

    @classmethod
    def of(cls, error: ServiceError) -> SessionEnd:
        """The end of a session that cannot go on for ``error``."""
        return cls(error.slug, close_code(error), error.title, error)


@dataclass(slots=True)
class Outbox:
    """What is to be sent; of each kind only as much as may wait."""

    ready: str | None = None
    errors: deque[str] = field(default_factory=lambda: deque(maxlen=_ERRORS_KEPT))
    painting: Painting | None = None
    statistics: str | None = None

    def take(self) -> str | Painting | None:
        """The next thing to send, or None."""
        if self.errors:
            return self.errors.popleft()
        for name in ("ready", "painting", "statistics"):
            if (found := getattr(self, name)) is not None:
                setattr(self, name, None)
                taken: str | Painting = found
                return taken
        return None
