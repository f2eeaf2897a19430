"""Everything at once for minutes: afterwards nothing is lost, held or leaked."""

from __future__ import annotations

import http.client
import os
import random
import socket
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from benchmarks.load import Call, make_form, make_jpeg
from tests.soak.conftest import shipped_style
from tests.soak.mutations import mutated

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.soak.conftest import Watched

SECONDS = float(os.environ.get("SOAK_CHAOS_SECONDS", "600"))
CLIENTS = 6
EXPECTED = {200, 400, 408, 413, 415, 422, 429, 500, 503, 504}  # the last three: faults are planted


class Guests:
    """Clients of every kind, each in a thread of its own, until told to leave."""

    def __init__(self, url: str, seed: int) -> None:
        self._address = urlsplit(url)
        self._seed = seed
        self._leave = threading.Event()
        self.statuses: Counter[int] = Counter()
        self.surprises: list[str] = []
        sizes = ((96, 64), (256, 192), (512, 512))
        self._good = [make_form(make_jpeg(*size), style=shipped_style()) for size in sizes]
        self._bad = [
            Call(f"/stylize?style={shipped_style()}", data, {"Content-Type": "image/png"})
            for data in mutated(200, seed=seed)
        ]

    def stay(self, seconds: float) -> None:
        """Keep the service busy for so long."""
        guests = [threading.Thread(target=self._visit, args=(n,)) for n in range(CLIENTS)]
        for guest in guests:
            guest.start()
        self._leave.wait(seconds)
        self._leave.set()
        for guest in guests:
            guest.join(60)

    def _visit(self, number: int) -> None:
        chance = random.Random(self._seed * 100 + number)  # noqa: S311  # manners, not secrets
        manners = (self._polite, self._polite, self._wrong, self._rude, self._slow, self._burst)
        while not self._leave.is_set():
            try:
                chance.choice(manners)(chance)
            except (OSError, http.client.HTTPException):
                continue  # cut off, which rude guests must expect
            self._leave.wait(chance.random() * 0.2)

    def _ask(self, call: Call) -> None:
        connection = http.client.HTTPConnection(self._address.netloc, timeout=60)
        try:
            connection.request("POST", call.path, call.body, call.headers)
            answer = connection.getresponse()
            answer.read()
            self._note(answer.status)
        finally:
            connection.close()

    def _note(self, status: int) -> None:
        self.statuses[status] += 1
        if status not in EXPECTED:
            self.surprises.append(str(status))

    def _polite(self, chance: random.Random) -> None:
        self._ask(chance.choice(self._good))

    def _wrong(self, chance: random.Random) -> None:
        self._ask(chance.choice(self._bad))

    def _rude(self, chance: random.Random) -> None:
        """Hang up in the middle of the request, or while it is painted."""
        call = chance.choice(self._good)
        with self._send(call, len(call.body) if chance.random() < 0.5 else 1000):
            time.sleep(chance.random() * 0.2)

    def _slow(self, chance: random.Random) -> None:
        """Read the answer in sips."""
        call = chance.choice(self._good)
        with self._send(call, len(call.body)) as connection:
            connection.settimeout(30)
            status = connection.recv(64)
            while connection.recv(2000) and not self._leave.is_set():
                time.sleep(0.005)
        if status.startswith(b"HTTP/1.1 "):
            self._note(int(status[9:12]))

    def _burst(self, chance: random.Random) -> None:
        call = chance.choice(self._good)
        together = [threading.Thread(target=self._try, args=(call,)) for _ in range(12)]
        for one in together:
            one.start()
        for one in together:
            one.join(60)

    def _try(self, call: Call) -> None:
        try:
            self._ask(call)
        except (OSError, http.client.HTTPException):
            return

    def _send(self, call: Call, count: int) -> socket.socket:
        address = (self._address.hostname, self._address.port)
        connection = socket.create_connection(address, timeout=10)
        lines = [f"POST {call.path} HTTP/1.1", "Host: service", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in call.headers.items()]
        lines += [f"Content-Length: {len(call.body)}", "", ""]
        connection.sendall("\r\n".join(lines).encode() + call.body[:count])
        return connection


def live_through(watched: Watched, seconds: float, patience_s: float = 30) -> dict[str, float]:
    """Let guests come for a while; what is left of them after ``patience_s`` at most."""
    Guests(watched.server.url, seed=1).stay(seconds / 5)  # whatever grows at first has grown
    watched.settled(patience_s)
    time.sleep(1)
    before = {
        "bytes": watched.server.resident_bytes,
        "threads": watched.threads(),
        "descriptors": watched.descriptors(),
    }
    guests = Guests(watched.server.url, seed=2)
    guests.stay(seconds * 4 / 5)
    settled = watched.settled(patience_s)
    time.sleep(1)
    return {
        "answers": guests.statuses.total(),
        "pictures": guests.statuses[200],
        "surprises": len(guests.surprises),
        "unsettled": float(not settled),
        "memory": watched.server.resident_bytes / before["bytes"],
        "threads": watched.threads() - before["threads"],
        "descriptors": watched.descriptors() - before["descriptors"],
        "silent": 0.0 if settled and watched.paints() else 1.0,
    }


@pytest.mark.timeout(1500)
def test_after_chaos_nothing_is_lost_held_or_leaked(
    start: Callable[..., Any], check: Callable[..., None]
) -> None:
    settings = {"ATELIER_MAX_IN_FLIGHT": "8", "SOAK_FAULTS": "crash,memory,pause"}
    with start(module="tests.soak.faulty", **settings) as watched:
        left = live_through(watched, SECONDS)
    check("answers in chaos", left["answers"], least=SECONDS / 2)
    check("of them pictures, share", left["pictures"] / left["answers"], least=0.1)
    check("statuses that nobody documents", left["surprises"], most=0)
    check("requests still in flight", left["unsettled"], most=0)
    check("memory after chaos", left["memory"], most=1.10)
    check("threads after chaos", left["threads"], least=-50, most=0)
    check("open files after chaos", left["descriptors"], least=-50, most=3)
    check("good request unanswered", left["silent"], most=0)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("fault", "figure", "bound"), [("leak", "memory", 1.10), ("lose", "silent", 0)]
)
def test_the_same_test_catches_a_planted_fault(
    start: Callable[..., Any],
    check: Callable[..., None],
    fault: str,
    figure: str,
    bound: float,
) -> None:
    settings = {"ATELIER_MAX_IN_FLIGHT": "8", "SOAK_FAULTS": fault}
    settings["ATELIER_STALL_TIMEOUT_S"] = "3600"  # or it would notice by itself and end
    settings["ATELIER_REQUEST_TIMEOUT_S"] = "5"  # or all would wait for what is lost
    with start(module="tests.soak.faulty", **settings) as watched:
        left = live_through(watched, min(40, SECONDS), patience_s=8)
        watched.server.process.kill()  # one that lost a request would not end by itself
    check(f"planted {fault}: {figure}", left[figure], least=bound + 1e-6)
