"""How far a request is, for whoever waits for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from service.keys import hash_key
from service.progress import Progress, ProgressBoard

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    WaitUntil = Callable[[Callable[[], bool]], Awaitable[None]]

pytestmark = pytest.mark.anyio

ALICE, BOB = "atelier_alice", "atelier_bob"


def named(request_id: str, **headers: str) -> dict[str, str]:
    return {"X-Request-ID": request_id, **headers}


async def look(client: Any, request_id: str, **headers: str) -> Any:
    return await client.http.get(f"/requests/{request_id}", headers=headers)


# --- one request after another


async def test_requests_that_wait_know_how_many_come_first(
    open_client: Any, stub_engine: Any, photo_jpeg: bytes, wait_until: WaitUntil
) -> None:
    stub_engine.gate.set()
    async with open_client(stub_engine) as client:
        stub_engine.gate.clear()
        stub_engine.batches.clear()
        tasks = []
        for number, waiting in enumerate((0, 1, 2)):
            tasks.append(
                asyncio.create_task(client.stylize(photo_jpeg, headers=named(f"job/{number}")))
            )
            queue = client.app.state.pipeline._batcher
            await wait_until(
                lambda queue=queue, n=waiting: bool(stub_engine.batches) and len(queue) == n
            )

        answers = [(await look(client, f"job/{number}")).json() for number in range(3)]

        assert answers == [
            {"stage": "painting", "jobs_ahead": None},
            {"stage": "waiting", "jobs_ahead": 1},
            {"stage": "waiting", "jobs_ahead": 2},
        ]
        stub_engine.gate.set()
        assert {task.status_code for task in await asyncio.gather(*tasks)} == {200}


async def test_a_body_that_still_comes_is_being_read(client: Any, photo_jpeg: bytes) -> None:
    begun, rest = asyncio.Event(), asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield photo_jpeg[:100]
        begun.set()
        await rest.wait()
        yield photo_jpeg[100:]

    headers = named("slow", **{"Content-Type": "image/jpeg"})
    posting = asyncio.create_task(
        client.http.post("/stylize?style=ink", content=slowly(), headers=headers)
    )
    await begun.wait()

    assert (await look(client, "slow")).json() == {"stage": "reading", "jobs_ahead": None}

    rest.set()
    assert (await posting).status_code == 200


@pytest.mark.parametrize("image", [None, b"no picture"])
async def test_a_request_that_is_done_is_forgotten(
    client: Any, photo_jpeg: bytes, image: bytes | None
) -> None:
    await client.stylize(image or photo_jpeg, headers=named("done"))

    answer = await look(client, "done")

    assert answer.status_code == 404
    assert answer.json()["type"] == "urn:atelier:error:request-not-found"
    assert "'done'" in answer.json()["detail"]
    assert len(client.app.state.progress) == 0


async def test_only_the_owner_of_a_request_sees_it(
    open_client: Any, stub_engine: Any, photo_jpeg: bytes, wait_until: WaitUntil
) -> None:
    keys = f"alice={hash_key(ALICE)},bob={hash_key(BOB)}"
    async with open_client(stub_engine, api_keys=keys) as client:
        stub_engine.gate.clear()
        stub_engine.batches.clear()
        headers = named("mine", **{"X-API-Key": ALICE})
        task = asyncio.create_task(client.stylize(photo_jpeg, headers=headers))
        await wait_until(lambda: bool(stub_engine.batches))

        statuses = [
            (await look(client, "mine", **({"X-API-Key": key} if key else {}))).status_code
            for key in (ALICE, BOB, "")
        ]

        assert statuses == [200, 404, 401]
        stub_engine.gate.set()
        await task


async def test_asking_is_no_event_of_the_log(
    client: Any, log_lines: list[dict[str, Any]], photo_jpeg: bytes
) -> None:
    """Pages ask twice a second."""
    await look(client, "nobody")
    await client.stylize(photo_jpeg)

    levels = {
        line["route"]: line["level"] for line in log_lines if line["event"] == "request_finished"
    }
    assert levels == {"/requests/{request_id}": "debug", "/stylize": "info"}


# --- the parts


def test_of_two_requests_with_one_id_the_later_is_shown_and_both_are_forgotten() -> None:
    board = ProgressBoard()
    with board.follow("alice", "same") as first:
        with board.follow("alice", "same") as second:
            assert board.find("alice", "same") is second is not first
        assert board.find("alice", "same") is None
    assert len(board) == 0


def test_parts_of_a_large_picture_that_take_turns_do_not_wait_again() -> None:
    progress = Progress()
    progress.queue(lambda: 3)
    assert progress.look() == ("waiting", 3)
    progress.begin("painting")
    progress.queue(lambda: 2)
    assert progress.look() == ("painting", None)


def test_a_job_whose_turn_has_come_is_being_painted() -> None:
    progress = Progress()
    progress.queue(lambda: None)
    assert progress.look() == ("painting", None)
