"""SIGTERM under load: every request that was accepted gets its picture."""

from __future__ import annotations

import http.client
import signal
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from benchmarks.load import make_form, make_jpeg
from tests.soak.conftest import shipped_style

if TYPE_CHECKING:
    from collections.abc import Callable

CLIENTS = 6
ROUNDS = 3


@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", range(ROUNDS))
def test_every_accepted_request_gets_its_picture(
    start: Callable[..., Any], check: Callable[..., None], number: int
) -> None:
    call = make_form(make_jpeg(256, 256), style=shipped_style())
    outcomes: Counter[str] = Counter()
    ended = threading.Event()

    def client(address: str) -> None:
        while not ended.is_set():
            connection = http.client.HTTPConnection(address, timeout=60)
            try:
                connection.connect()
            except OSError:
                return  # not accepted: the socket is closed
            try:
                connection.request("POST", call.path, call.body, call.headers)
                answer = connection.getresponse()
                answer.read()
                outcomes[str(answer.status)] += 1
            except (OSError, http.client.HTTPException) as error:
                outcomes[type(error).__name__] += 1
            finally:
                connection.close()

    with start(ATELIER_DRAIN_S="1") as watched:
        address = urlsplit(watched.server.url).netloc
        clients = [threading.Thread(target=client, args=(address,)) for _ in range(CLIENTS)]
        for one in clients:
            one.start()
        time.sleep(2 + number * 0.3)
        watched.server.process.send_signal(signal.SIGTERM)
        status = watched.server.process.wait(60)
        ended.set()
        for one in clients:
            one.join(60)
    lost = sum(count for outcome, count in outcomes.items() if outcome not in {"200", "429", "503"})
    assert not lost, outcomes
    assert status == 0
    check(f"pictures before and after SIGTERM, round {number}", outcomes["200"], least=5)
    check(f"accepted requests lost, round {number}", lost, most=0)
