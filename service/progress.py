"""Progress: how far each request in flight is, for whoever waits for its answer."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Stage: TypeAlias = Literal["reading", "decoding", "waiting", "painting", "encoding"]
"""What happens to a request, in order; waiting is for the device that paints."""


class Progress:
    """How far one request is; whoever carries it out says so as each stage begins.

    Nothing is counted until somebody asks.
    """

    def __init__(self) -> None:
        self._stage: Stage = "reading"
        self._jobs_ahead: Callable[[], int | None] = lambda: None

    def begin(self, stage: Stage) -> None:
        """Note that ``stage`` begins."""
        self._stage = stage
        self._jobs_ahead = lambda: None

    def queue(self, jobs_ahead: Callable[[], int | None]) -> None:
        """Note that the device is to paint it, or a part of it.

        Args:
            jobs_ahead: gives how many jobs come first; None once it is painted.
        """
        # Parts of a large picture take turns with others' jobs; yet its painting has begun.
        if self._stage != "painting":
            self._stage = "waiting"
            self._jobs_ahead = jobs_ahead

    def look(self) -> tuple[Stage, int | None]:
        """Give the stage, and how many jobs come first where it waits for those."""
        if self._stage == "waiting" and (ahead := self._jobs_ahead()) is not None:
            return "waiting", ahead
        # The batcher does not say when it takes a job: from then on it no longer knows a place.
        return ("painting" if self._stage == "waiting" else self._stage), None


class ProgressBoard:
    """Progress of the requests in flight by whose they are and their id; forgets them at the end.

    Holds as many as there are requests, which connections and the gate bound.
    """

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], Progress] = {}

    def __len__(self) -> int:
        return len(self._entries)

    @contextmanager
    def follow(self, owner: str, request_id: str) -> Iterator[Progress]:
        """Show a request for the length of the block; of two with one id, the later."""
        progress = Progress()
        self._entries[owner, request_id] = progress
        try:
            yield progress
        finally:
            if self._entries.get((owner, request_id)) is progress:
                del self._entries[owner, request_id]

    def find(self, owner: str, request_id: str) -> Progress | None:
        """Give the progress of a request that ``owner`` has in flight."""
        return self._entries.get((owner, request_id))
