"""A tiny zoo, photographs, and the service around them: in process and as a real one."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import os
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data as skimage_data

from model_zoo.cards import file_sha256
from model_zoo.checkpoints import save_generator
from model_zoo.generators import GENERATORS
from service.app import create_app
from service.logs import JsonFormatter
from service.settings import Settings

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterator,
        Awaitable,
        Callable,
        Collection,
        Iterable,
        Iterator,
        Sequence,
    )
    from pathlib import Path

    from fastapi import FastAPI
    from numpy.typing import NDArray
    from opentelemetry.trace import TracerProvider

    from model_zoo.cards import Manifest, StyleCard
    from service.tiles import TileLayout

TINY_STYLES = ("ink", "wash")
PHOTOGRAPHS = ("astronaut", "coffee", "chelsea")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Untrained weights magnify roundings more or less: a test has the same ones each time."""
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Pictures here are small; threads that wait for each other suffer on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def make_zoo() -> Callable[[Path], Path]:
    """Write a zoo of two styles, seeded and untrained, into a folder."""

    def make(zoo: Path) -> Path:
        entries = []
        for seed, style_id in enumerate(TINY_STYLES):
            torch.manual_seed(seed)
            weights, preview = zoo / f"{style_id}.safetensors", zoo / f"{style_id}.jpg"
            save_generator(GENERATORS["johnson_half"](), weights)
            Image.new("RGB", (32, 32), (40 * seed, 90, 160)).save(preview)
            entries.append(
                f'[[style]]\nstyle_id = "{style_id}"\ntitle = "{style_id.title()}"\n'
                f'artist = "Nobody"\nyear = "2016"\ngenerator = "johnson_half"\n'
                f'weights = "{weights.name}"\nsha256 = "{file_sha256(weights)}"\n'
                f'preview = "{preview.name}"\n'
                'picture_license = "CC0-1.0"\nweights_license = "Apache-2.0"\n'
            )
        (zoo / "manifest.toml").write_text("\n".join(entries), encoding="utf-8")
        return zoo

    return make


@pytest.fixture(scope="session")
def tiny_zoo(make_zoo: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_zoo(tmp_path_factory.mktemp("zoo"))


@pytest.fixture(scope="session")
def photograph() -> Callable[..., Image.Image]:
    """A real photograph, scaled to (width, height)."""

    def load(width: int = 96, height: int = 64, name: str = "coffee") -> Image.Image:
        picture: Image.Image = Image.fromarray(getattr(skimage_data, name)())
        return picture.resize((width, height), Image.Resampling.LANCZOS)

    return load


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    """A Pillow picture as the bytes of a file."""

    def encode(picture: Image.Image, file_format: str = "jpeg", **options: Any) -> bytes:
        buffer = io.BytesIO()
        picture.save(buffer, file_format, **options)
        return buffer.getvalue()

    return encode


@pytest.fixture(scope="session")
def photo_jpeg(photograph: Callable[..., Image.Image], encode: Callable[..., bytes]) -> bytes:
    """96x64 px."""
    return encode(photograph())


@dataclass
class StubEngine:
    """Paints every picture in one grey; holds each batch and the warm-up until ``gate`` is open."""

    gate: threading.Event
    batches: list[int]
    fault: Exception | None = None
    device: str = "cpu"
    runtime: str = "stub"
    passes_at_once: int = 1
    crowd: int = 0
    networks: set[str] = field(default_factory=set)

    def load(self, manifest: Manifest) -> None:
        self.networks |= {card.network for card in manifest}

    def keep(self, networks: Collection[str]) -> None:
        self.networks &= set(networks)

    def warm_up(self, cards: Iterable[StyleCard], side_px: int) -> None:
        assert list(cards)
        assert side_px
        self._work()

    def most_px(self, card: StyleCard) -> int:  # noqa: ARG002
        return 10**9

    def layout(self, card: StyleCard) -> TileLayout | None:  # noqa: ARG002
        return None

    def overlaps(self, job: Any) -> bool:  # noqa: ARG002
        return True

    def run(self, jobs: Sequence[Any]) -> list[Any]:
        self.batches.append(len(jobs))
        self._work()
        return [np.full_like(job.pixels, 7) for job in jobs]

    def device_memory_bytes(self) -> int:
        return 0

    def _work(self) -> None:
        assert self.gate.wait(20)
        if self.fault:
            raise self.fault


@pytest.fixture
def stub_engine() -> Iterator[StubEngine]:
    engine = StubEngine(threading.Event(), [])
    engine.gate.set()
    yield engine
    engine.gate.set()


@pytest.fixture
def log_lines() -> Iterator[list[dict[str, Any]]]:
    """What the service logs, as a reader of its JSON lines sees it."""
    seen: list[dict[str, Any]] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            line = self.format(record)
            assert "\n" not in line
            seen.append(json.loads(line))

    collector = Collector()
    collector.setFormatter(JsonFormatter())
    logger = logging.getLogger("service")
    logger.addHandler(collector)
    logger.setLevel(logging.DEBUG)
    yield seen
    logger.removeHandler(collector)
    logger.setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def wait_until() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    """Look again and again until something holds that no event tells of."""

    async def wait_until(holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not holds():  # noqa: ASYNC110
                await asyncio.sleep(0.002)

    return wait_until


@pytest.fixture(scope="session")
def make_settings(tiny_zoo: Path) -> Callable[..., Settings]:
    def make(**overrides: Any) -> Settings:
        defaults: dict[str, Any] = {
            "zoo": tiny_zoo,
            "warm_up_side_px": 16,
            "model_threads": 1,
            "codec_threads": 2,
        }
        return Settings(**defaults | overrides)

    return make


@dataclass
class Client:
    """An HTTP client of an application in this process, whose lifespan is running."""

    app: FastAPI
    http: httpx.AsyncClient

    async def stylize(self, image: bytes, style: str = "ink", **options: Any) -> httpx.Response:
        headers = options.pop("headers", None)
        return await self.http.post(
            "/stylize",
            files={"image": ("photo", image)},
            data={"style": style} | options,
            headers=headers,
        )

    async def paint(self, image: bytes, **parameters: str) -> NDArray[np.uint8]:
        """The painting of a request that succeeds."""
        response = await self.stylize(image, format="png", **parameters)
        assert response.status_code == 200, response.text
        return np.asarray(Image.open(io.BytesIO(response.content)))


@pytest.fixture(scope="session")
def open_client(
    make_settings: Callable[..., Settings],
) -> Callable[..., contextlib.AbstractAsyncContextManager[Client]]:
    """Open a client of a fresh application; waits until it is ready unless told not to."""

    @contextlib.asynccontextmanager
    async def open_client(
        engine: StubEngine | None = None,
        *,
        until_ready: bool = True,
        tracer_provider: TracerProvider | None = None,
        **overrides: Any,
    ) -> AsyncIterator[Client]:
        app = create_app(make_settings(**overrides), engine, tracer_provider=tracer_provider)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app), base_url="http://service"
            ) as http,
        ):
            if until_ready:
                await app.state.lifecycle.settle()
            yield Client(app, http)

    return open_client


@pytest.fixture(scope="module")
async def client(
    open_client: Callable[..., contextlib.AbstractAsyncContextManager[Client]],
) -> AsyncIterator[Client]:
    """Paints with the tiny zoo's real generators."""
    async with open_client() as client:
        yield client


@dataclass
class ServerProcess:
    """A running ``python -m service``."""

    process: subprocess.Popen[str]
    greeting: str

    @property
    def url(self) -> str:
        return self.greeting.split()[-1].removesuffix("/stylize")

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def stop(self) -> tuple[int, str]:
        """Ask for a graceful end; give exit status and standard error."""
        self.process.terminate()
        _, errors = self.process.communicate(timeout=30)
        return self.process.returncode, errors


def service_environment(zoo: Path, **variables: str) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("ATELIER_")}
    defaults = {"ATELIER_ZOO": str(zoo), "ATELIER_PORT": "0", "ATELIER_WARM_UP_SIDE_PX": "16"}
    defaults |= {"ATELIER_MODEL_THREADS": "1"}
    return own | defaults | variables


@pytest.fixture(scope="session")
def run_service(tiny_zoo: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``python -m service`` to its end, for starts that fail."""

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "service", *arguments],
            env=service_environment(tiny_zoo, **variables),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def start_service(
    tiny_zoo: Path,
) -> Callable[..., contextlib.AbstractContextManager[ServerProcess]]:
    """Start ``python -m service``, or ``code``, on a free port and wait until it is ready."""

    @contextlib.contextmanager
    def start(*, code: str = "", **variables: str) -> Iterator[ServerProcess]:
        process = subprocess.Popen(
            [sys.executable, *(("-c", code) if code else ("-m", "service"))],
            env=service_environment(tiny_zoo, **variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            try:
                assert process.stdout is not None
                yield ServerProcess(process, process.stdout.readline())
            finally:
                if process.poll() is None:
                    process.kill()

    return start


@pytest.fixture(scope="session")
def server(
    start_service: Callable[..., contextlib.AbstractContextManager[ServerProcess]],
) -> Iterator[ServerProcess]:
    """One real process, shared by the tests that need a socket and leave it as it was."""
    with start_service(ATELIER_MAX_IN_FLIGHT="4") as server:
        yield server
