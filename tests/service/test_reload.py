"""Another zoo in the place of the one that is served, and what becomes of requests meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import io
import threading
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

from model_zoo.cards import Manifest, file_sha256
from model_zoo.checkpoints import save_generator
from model_zoo.generators import GENERATORS
from service.keys import hash_key
from service.stylizer import Stylizer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.anyio

KEY = "the-administrators-key"
ADMIN = {"admin_keys": f"ops={hash_key(KEY)}"}
LIGHT = ADMIN | {"runtime": "torch", "default_max_side_px": 32}  # quick to load and to paint


@pytest.fixture
def zoo(make_zoo: Callable[[Path], Path], tmp_path: Path) -> Path:
    return make_zoo(tmp_path)


def rewrite(zoo: Path, old: str, new: str) -> None:
    manifest = zoo / "manifest.toml"
    text = manifest.read_text(encoding="utf-8")
    assert old in text
    manifest.write_text(text.replace(old, new), encoding="utf-8")


def train_again(zoo: Path, seed: int, style_id: str = "ink") -> None:
    """Give a style other weights, as an export does: the file first, then the manifest."""
    weights = zoo / f"{style_id}.safetensors"
    before = file_sha256(weights)
    torch.manual_seed(seed)
    save_generator(GENERATORS["johnson_half"](), weights)
    rewrite(zoo, before, file_sha256(weights))


def add_style(zoo: Path, style_id: str, like: str = "wash") -> None:
    """A style that shares the files of another."""
    manifest = zoo / "manifest.toml"
    (entry,) = [
        part for part in manifest.read_text(encoding="utf-8").split("\n\n") if f'"{like}"' in part
    ]
    entry = entry.replace(f'style_id = "{like}"', f'style_id = "{style_id}"')
    manifest.write_text(manifest.read_text(encoding="utf-8") + "\n" + entry, encoding="utf-8")


async def reload(client: Any) -> httpx.Response:
    response: httpx.Response = await client.http.post("/admin/reload", headers={"X-API-Key": KEY})
    return response


def assert_problem(response: httpx.Response, status: int, slug: str, detail: str) -> None:
    assert response.status_code == status, response.text
    assert response.json()["type"] == f"urn:atelier:error:{slug}"
    assert detail in response.json()["detail"]


async def test_reload_when_weights_differ_then_paints_with_the_new_ones(
    open_client: Any, zoo: Path, photo_jpeg: bytes
) -> None:
    async with open_client(zoo=zoo, **ADMIN) as client:  # with the default runtime
        ink, wash = [await client.paint(photo_jpeg, style=style) for style in ("ink", "wash")]
        train_again(zoo, seed=7)
        report = (await reload(client)).json()
        assert (report["styles"], report["changed"]) == (2, ["ink"])
        assert (report["networks_loaded"], report["networks_kept"]) == (1, 1)
        assert not np.array_equal(await client.paint(photo_jpeg, style="ink"), ink)
        assert np.array_equal(await client.paint(photo_jpeg, style="wash"), wash)


async def test_reload_when_styles_come_and_go_then_listing_preview_and_metrics_follow(
    open_client: Any, zoo: Path, photo_jpeg: bytes
) -> None:
    async with open_client(zoo=zoo, **LIGHT) as client:
        listing = await client.http.get("/styles")
        add_style(zoo, "gouache")
        rewrite(zoo, 'style_id = "ink"', 'style_id = "quill"')
        report = (await reload(client)).json()
        assert (report["added"], report["removed"]) == (["quill", "gouache"], ["ink"])
        assert report["networks_loaded"] == 0

        held = {"If-None-Match": listing.headers["etag"]}
        again = await client.http.get("/styles", headers=held)
        assert again.status_code == 200
        assert [style["id"] for style in again.json()["styles"]] == ["quill", "wash", "gouache"]
        assert (await client.http.get("/styles/gouache/preview")).status_code == 200
        assert (await client.http.get("/styles/ink/preview")).status_code == 404
        assert (await client.stylize(photo_jpeg, "gouache")).status_code == 200
        assert (await client.stylize(photo_jpeg, "ink")).status_code == 404
        metrics = (await client.http.get("/metrics")).text
        assert "atelier_styles_loaded 3.0" in metrics
        assert 'route="/stylize",status="200",style="gouache"} 1.0' in metrics


async def test_networks_that_both_zoos_share_are_not_loaded_again(
    open_client: Any, zoo: Path
) -> None:
    async with open_client(zoo=zoo, **LIGHT) as client:
        painters = client.app.state.pipeline._engine._painters
        before = {card.style_id: painters[card.network] for card in Manifest.read(zoo)}
        train_again(zoo, seed=3)
        await reload(client)
        after = {card.style_id: painters[card.network] for card in Manifest.read(zoo)}
        assert after["wash"] is before["wash"]
        assert after["ink"] is not before["ink"]
        assert len(painters) == 2  # and the old one is gone


def cut_weights(zoo: Path) -> None:
    (zoo / "ink.safetensors").write_bytes((zoo / "ink.safetensors").read_bytes()[:1000])


def forget_weights(zoo: Path) -> None:
    (zoo / "ink.safetensors").unlink()


def forget_preview(zoo: Path) -> None:
    (zoo / "ink.jpg").unlink()


def cut_preview(zoo: Path) -> None:
    (zoo / "ink.jpg").write_bytes((zoo / "ink.jpg").read_bytes()[:-100])


def break_manifest(zoo: Path) -> None:
    (zoo / "manifest.toml").write_text("[[style", encoding="utf-8")


def forget_manifest(zoo: Path) -> None:
    (zoo / "manifest.toml").unlink()


def empty_manifest(zoo: Path) -> None:
    (zoo / "manifest.toml").write_text("", encoding="utf-8")


def declare_another_generator(zoo: Path) -> None:
    rewrite(zoo, 'generator = "johnson_half"', 'generator = "johnson"')


def write_no_number(zoo: Path) -> None:
    """Weights whose checksum is right and whose numbers are not."""
    weights = zoo / "ink.safetensors"
    before = file_sha256(weights)
    data = bytearray(weights.read_bytes())
    data[-2:] = b"\xff\x7f"  # NaN, in fp16
    weights.write_bytes(data)
    rewrite(zoo, before, file_sha256(weights))


@pytest.mark.parametrize(
    ("spoil", "file"),
    [
        (cut_weights, "ink.safetensors: sha256 is"),
        (forget_weights, "ink.safetensors: cannot be read"),
        (forget_preview, "ink.jpg: preview is missing"),
        (cut_preview, "ink.jpg: preview is damaged"),
        (break_manifest, "manifest.toml: is not valid TOML"),
        (forget_manifest, "manifest.toml: cannot be read"),
        (empty_manifest, "manifest.toml: holds no style"),
        (declare_another_generator, "ink.safetensors: "),
        (write_no_number, "holds values that are not finite"),
    ],
)
async def test_reload_when_the_zoo_is_at_fault_then_422_names_the_file_and_the_old_one_paints_on(
    open_client: Any,
    zoo: Path,
    photo_jpeg: bytes,
    spoil: Callable[[Path], None],
    file: str,
) -> None:
    async with open_client(zoo=zoo, **LIGHT) as client:
        before = await client.paint(photo_jpeg)
        train_again(zoo, 5, "wash")  # of which nothing is to be served, either
        wash = await client.paint(photo_jpeg, style="wash")
        spoil(zoo)
        response = await reload(client)
        assert_problem(response, 422, "zoo-rejected", file)
        assert str(zoo) in response.json()["detail"]
        assert response.json()["detail"].endswith("the zoo of before is served on")
        assert np.array_equal(await client.paint(photo_jpeg), before)
        assert np.array_equal(await client.paint(photo_jpeg, style="wash"), wash)
        assert len(client.app.state.pipeline._engine._painters) == 2
        assert (await client.http.get("/readyz")).status_code == 200


async def test_reload_when_a_style_does_not_paint_then_422_names_its_weights(
    open_client: Any, zoo: Path, stub_engine: Any, photo_jpeg: bytes
) -> None:
    async with open_client(stub_engine, zoo=zoo, **ADMIN) as client:
        networks = set(stub_engine.networks)
        train_again(zoo, seed=5)
        stub_engine.fault = RuntimeError("no kernel for this device")
        detail = "ink.safetensors: style 'ink' does not paint: no kernel for this device"
        assert_problem(await reload(client), 422, "zoo-rejected", detail)
        stub_engine.fault = None
        assert stub_engine.networks == networks
        assert (await client.stylize(photo_jpeg)).status_code == 200
        assert (await reload(client)).json()["changed"] == ["ink"]


async def test_a_request_paints_to_its_end_with_the_zoo_that_it_began_with(
    open_client: Any, zoo: Path, photo_jpeg: bytes, wait_until: Any
) -> None:
    """Its network is let go of when it has ended, and not before."""
    old = Manifest.read(zoo).card("ink").network
    async with open_client(zoo=zoo, codec_threads=1, **LIGHT) as client:
        pipeline = client.app.state.pipeline
        before = await client.paint(photo_jpeg)
        decoding = threading.Event()
        pipeline._codec_pool.submit(decoding.wait, 20)
        request = asyncio.create_task(client.paint(photo_jpeg))
        await wait_until(lambda: pipeline.gate.in_flight == 1)
        for seed in (8, 9):
            train_again(zoo, seed)
            assert (await reload(client)).status_code == 200
        assert old in pipeline._engine._painters
        assert len(pipeline._engine._painters) == 3  # not the one between
        decoding.set()
        assert np.array_equal(await request, before)
        await wait_until(lambda: old not in pipeline._engine._painters)
        assert not np.array_equal(await client.paint(photo_jpeg), before)


async def test_requests_during_reloads_all_succeed(
    open_client: Any, zoo: Path, photo_jpeg: bytes
) -> None:
    async with open_client(zoo=zoo, **LIGHT) as client:
        done = asyncio.Event()

        async def ask_on(style: str) -> list[int]:
            statuses = []
            while not done.is_set():
                statuses.append((await client.stylize(photo_jpeg, style)).status_code)
            return statuses

        asking = [asyncio.create_task(ask_on(style)) for style in ("ink", "ink", "wash")]
        for seed in range(20, 24):
            train_again(zoo, seed, ("ink", "wash")[seed % 2])
            assert (await reload(client)).status_code == 200
            (zoo / "ink.jpg").rename(zoo / "away.jpg")
            assert (await reload(client)).status_code == 422
            (zoo / "away.jpg").rename(zoo / "ink.jpg")
        done.set()
        statuses = [status for some in await asyncio.gather(*asking) for status in some]
        assert set(statuses) == {200}
        assert len(statuses) >= 3


async def test_reloads_come_one_at_a_time(
    open_client: Any, zoo: Path, stub_engine: Any, wait_until: Any
) -> None:
    async with open_client(stub_engine, zoo=zoo, **ADMIN) as client:
        train_again(zoo, seed=9)
        stub_engine.gate.clear()
        first = asyncio.create_task(reload(client))
        await wait_until(lambda: len(stub_engine.networks) == 3)
        assert_problem(await reload(client), 409, "reload-in-progress", "not done yet")
        stub_engine.gate.set()
        assert (await first).status_code == 200
        assert (await reload(client)).status_code == 200


async def test_a_reload_goes_on_though_its_caller_hung_up(
    open_client: Any, zoo: Path, stub_engine: Any, wait_until: Any
) -> None:
    async with open_client(stub_engine, zoo=zoo, **ADMIN) as client:
        new = client.app.state.zoos
        old = new.current
        train_again(zoo, seed=9)
        stub_engine.gate.clear()
        asking = asyncio.create_task(reload(client))
        await wait_until(lambda: len(stub_engine.networks) == 3)
        asking.cancel()
        stub_engine.gate.set()
        await wait_until(lambda: new.current is not old)


async def test_reload_when_warming_up_or_draining_then_503(
    open_client: Any, zoo: Path, stub_engine: Any
) -> None:
    stub_engine.gate.clear()
    async with open_client(stub_engine, until_ready=False, zoo=zoo, **ADMIN) as client:
        assert_problem(await reload(client), 503, "not-ready", "warming up")
        stub_engine.gate.set()
        await client.app.state.lifecycle.settle()
        assert (await reload(client)).status_code == 200
        client.app.state.lifecycle.drain()
        assert_problem(await reload(client), 503, "not-ready", "draining")


async def test_the_end_does_not_wait_for_a_reload_to_succeed(
    open_client: Any, zoo: Path, stub_engine: Any, wait_until: Any
) -> None:
    async with open_client(stub_engine, zoo=zoo, **ADMIN) as client:
        train_again(zoo, seed=9)
        stub_engine.gate.clear()
        asking = asyncio.create_task(reload(client))
        await wait_until(lambda: len(stub_engine.networks) == 3)
        await client.app.state.reloader.aclose()
        stub_engine.gate.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asking
        assert len(client.app.state.zoos.current.manifest) == 2


async def test_poll_when_the_manifest_changes_then_serves_it(
    open_client: Any, zoo: Path, stub_engine: Any, wait_until: Any
) -> None:
    async with open_client(stub_engine, zoo=zoo, zoo_poll_seconds=0.01) as client:
        zoos = client.app.state.zoos
        add_style(zoo, "gouache")
        await wait_until(lambda: len(zoos.current.manifest) == 3)
        assert (await client.http.post("/admin/reload")).status_code == 404


async def test_poll_when_a_file_comes_after_the_manifest_then_serves_it_once_it_is_there(
    open_client: Any,
    zoo: Path,
    stub_engine: Any,
    wait_until: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def said() -> list[str]:
        records = [r for r in caplog.records if r.getMessage() == "zoo_rejected"]
        return [record.fields["reason"] for record in records]

    async with open_client(stub_engine, zoo=zoo, zoo_poll_seconds=0.01) as client:
        looked: list[int] = []
        client.app.state.reloader._on_outcome = lambda _: looked.append(1)
        weights = (zoo / "ink.safetensors").read_bytes()
        (zoo / "ink.safetensors").unlink()
        add_style(zoo, "gouache")
        await wait_until(lambda: len(looked) >= 3)
        assert len(said()) == 1
        assert "ink.safetensors: cannot be read" in said()[0]
        (zoo / "ink.safetensors").write_bytes(weights)
        await wait_until(lambda: len(client.app.state.zoos.current.manifest) == 3)


def test_load_when_a_file_was_replaced_after_it_was_verified_then_names_it(zoo: Path) -> None:
    manifest = Manifest.read(zoo)
    manifest.verify()
    train_again(zoo, seed=4)
    with pytest.raises(Exception, match=r"ink\.safetensors: sha256 is"):
        Stylizer(manifest, device="cpu", runtime="torch")


def resident_mib(server: Any) -> float:
    """Memory of a server process, as its own metrics say."""
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    (line,) = [line for line in lines if line.startswith("process_resident_memory_bytes ")]
    return float(line.split()[1]) / 2**20


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["openvino", "torch"])
def test_memory_does_not_grow_with_reloads(
    start_service: Any,
    zoo: Path,
    photo_jpeg: bytes,
    runtime: str,
) -> None:
    """Thirty zoos after each other, each with other weights in both styles, and faulty ones."""
    variables = {"ATELIER_ZOO": str(zoo), "ATELIER_ADMIN_KEYS": ADMIN["admin_keys"]}
    # Nobody reads what the process logs here, and a full pipe would stop it.
    variables |= {"ATELIER_RUNTIME": runtime, "ATELIER_LOG_LEVEL": "error"}
    variables |= {"MALLOC_ARENA_MAX": "2"}  # as in the container
    seen, key = [], {"X-API-Key": KEY}
    with start_service(**variables) as server:
        reload_url = f"{server.url}/admin/reload"
        for seed in range(30):
            for style in ("ink", "wash"):
                train_again(zoo, 100 + 2 * seed + (style == "ink"), style)
            answer = httpx.post(reload_url, headers=key, timeout=60)
            assert answer.json()["networks_loaded"] == 2, answer.text
            (zoo / "ink.jpg").rename(zoo / "away.jpg")
            assert httpx.post(reload_url, headers=key, timeout=60).status_code == 422
            (zoo / "away.jpg").rename(zoo / "ink.jpg")
            for style in ("ink", "wash"):
                painted = httpx.post(
                    f"{server.url}/stylize?style={style}", content=photo_jpeg, timeout=60
                )
                assert Image.open(io.BytesIO(painted.content)).size == (96, 64)
            seen.append(resident_mib(server))
        server.stop()
    # A network of this zoo holds 7 MiB of weights alone: 40 of them come and go.

    assert max(seen[-10:]) < max(seen[:10]) + 16, [round(mib) for mib in seen]
