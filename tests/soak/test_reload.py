"""Good and bad reloads under load: no request fails, and memory does not grow."""

from __future__ import annotations

import hashlib
import http.client
import shutil
import threading
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from benchmarks.load import make_form, make_jpeg
from model_zoo.cards import SHIPPED_ZOO, Manifest, file_sha256
from model_zoo.checkpoints import load_style, save_generator
from tests.soak.conftest import shipped_style
from trainer.manifest_writer import write_manifest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RELOADS = 50
KEY = "soak"
CLIENTS = 3


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """Two of the shipped styles, in a folder that a test may spoil."""
    shipped = Manifest.read(SHIPPED_ZOO)
    cards = tuple(replace(card, mixes_as="") for card in shipped.cards[:2])
    for card in cards:
        for path in (card.weights, card.preview):
            (tmp_path / path).parent.mkdir(exist_ok=True)
            shutil.copy(SHIPPED_ZOO / path, tmp_path / path)
    write_manifest(Manifest(tmp_path, cards))
    return tmp_path


def change(zoo: Path, number: int) -> None:
    """Give the first style other weights, of another name."""
    manifest = Manifest.read(zoo)
    card = manifest.cards[0]
    generator = load_style(manifest, card)
    generator.to_rgb.bias.data.add_(0.001 * (1 if number % 4 else -1))  # type: ignore[union-attr,operator]
    weights = f"weights/{number}.safetensors"
    save_generator(generator, zoo / weights)
    changed = replace(card, weights=weights, sha256=file_sha256(zoo / weights))
    write_manifest(Manifest(zoo, (changed, *manifest.cards[1:])))


def spoil(zoo: Path, number: int) -> Callable[[], None]:
    """Break the zoo in one of many ways; give what mends it."""
    card = Manifest.read(zoo).cards[number % 2]
    path = zoo / ("manifest.toml", card.weights, card.preview)[number % 3]
    whole = path.read_bytes()
    if number % 4 == 1:
        path.unlink()
    else:
        path.write_bytes(whole[: len(whole) // 2])

    def mend() -> None:
        path.write_bytes(whole)

    return mend


@pytest.mark.timeout(900)
def test_reloads_under_load_fail_no_request_and_leak_nothing(
    start: Callable[..., Any], check: Callable[..., None], zoo: Path
) -> None:
    entry = f"soak={hashlib.sha256(KEY.encode()).hexdigest()}"
    call = make_form(make_jpeg(128, 96), style=shipped_style())
    statuses: Counter[int] = Counter()
    ended = threading.Event()

    with start(zoo=zoo, ATELIER_ADMIN_KEYS=entry) as watched:
        address = urlsplit(watched.server.url).netloc

        def paint() -> None:
            connection = http.client.HTTPConnection(address, timeout=60)
            while not ended.is_set():
                connection.request("POST", call.path, call.body, call.headers)
                answer = connection.getresponse()
                answer.read()
                statuses[answer.status] += 1
            connection.close()

        def reload() -> tuple[int, str]:
            connection = http.client.HTTPConnection(address, timeout=120)
            connection.request("POST", "/admin/reload", headers={"X-API-Key": KEY})
            answer = connection.getresponse()
            body = answer.read().decode()
            connection.close()
            return answer.status, body

        clients = [threading.Thread(target=paint) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        early = 0
        for number in range(RELOADS):
            if number % 2:
                mend = spoil(zoo, number)
                status, body = reload()
                mend()
                assert status == 422, (number, status, body)
            else:
                change(zoo, number)
                status, body = reload()
                assert status == 200, (number, status, body)
            if number == RELOADS // 5:
                early = watched.server.resident_bytes
        ended.set()
        for client in clients:
            client.join(60)
        growth = watched.server.resident_bytes / early
        assert watched.settled()
        assert watched.paints()
    check("reloads under load", RELOADS, least=50)
    check("requests during them", statuses.total(), least=RELOADS)
    check("of them not painted", statuses.total() - statuses[200], most=0)
    check("memory after reloads", growth, most=1.10)
