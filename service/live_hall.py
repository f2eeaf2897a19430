"""LiveHall: how many live sessions there may be, of one client and of all."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from service.errors import BusyError

if TYPE_CHECKING:
    from collections.abc import Iterator

# A session may last for long, so nobody knows when a place will be free.
_RETRY_AFTER_S = 10
# Those who have connected and not yet said what they want; each may hold one message.
_AT_THE_DOOR = 16
_AT_THE_DOOR_EACH = 4


class LiveHall:
    """Gives places to sessions, and bounds those that wait at the door.

    Belongs to one event loop; it takes no lock.

    Args:
        places: sessions at once.
        places_each: sessions of one client at once.
    """

    def __init__(self, places: int, places_each: int) -> None:
        self._inside = _Room(places, places_each, "live sessions")
        self._door = _Room(_AT_THE_DOOR, _AT_THE_DOOR_EACH, "connections without a first message")

    @property
    def sessions(self) -> int:
        """Sessions now."""
        return self._inside.guests.total()

    @contextmanager
    def wait_at_door(self, address: str) -> Iterator[None]:
        """Stay at the door for the length of the block.

        Raises:
            BusyError: it is crowded.
        """
        with self._door.enter(address):
            yield

    @contextmanager
    def enter(self, client: str) -> Iterator[None]:
        """Hold a place for the length of the block.

        Raises:
            BusyError: none is free, or the client has as many as one may.
        """
        with self._inside.enter(client):
            yield


class _Room:
    def __init__(self, places: int, places_each: int, noun: str) -> None:
        self.guests: Counter[str] = Counter()
        self._places = places
        self._places_each = places_each
        self._noun = noun

    @contextmanager
    def enter(self, guest: str) -> Iterator[None]:
        if self.guests.total() >= self._places:
            raise self._full(f"{self._places} {self._noun} are as many as there may be")
        if self.guests[guest] >= self._places_each:
            raise self._full(f"{self._places_each} {self._noun} are as many as one client may have")
        self.guests[guest] += 1
        try:
            yield
        finally:
            self.guests[guest] -= 1
            if not self.guests[guest]:
                del self.guests[guest]

    def _full(self, what: str) -> BusyError:
        detail = f"{what}; try again in {_RETRY_AFTER_S} s"
        return BusyError(detail, retry_after_s=_RETRY_AFTER_S)
