"""A service for the examples of the documentation, and a folder as their reader has it."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from model_zoo.cards import SHIPPED_ZOO, Manifest
from service.keys import hash_key, make_key
from tests.documentation.pages import PAGES, ROOT, code_of
from tests.documentation.stand_ins import write_stand_ins

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from PIL import Image

    from tests.conftest import ServerProcess

KEY = make_key()
# What a reader has of the repository, who stands in its folder.
OF_THE_REPOSITORY = ("Makefile", "Dockerfile", "constraints.txt", "deploy", "trainer")


@pytest.fixture(scope="session")
def spoken_of_zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Those of the shipped styles that examples name, so that the service starts soon."""
    named = " ".join(map(code_of, PAGES))
    manifest = Manifest.read(SHIPPED_ZOO)
    cards = [card for card in manifest if re.search(rf"\b{card.style_id}\b", named)]
    wanted = {card.style_id for card in cards} | {card.mixes_as for card in cards}
    zoo = tmp_path_factory.mktemp("spoken-of")
    for folder in ("weights", "previews"):
        (zoo / folder).symlink_to(SHIPPED_ZOO / folder)
    head, *entries = re.split(
        r"^(?=\[\[style\]\]$)", (SHIPPED_ZOO / "manifest.toml").read_text(), flags=re.MULTILINE
    )
    kept = [it for it in entries if re.findall(r'^style_id = "(.*)"$', it, re.M)[0] in wanted]
    (zoo / "manifest.toml").write_text("".join([head, *kept]))
    return zoo


@pytest.fixture(scope="session")
def documented_service(
    spoken_of_zoo: Path,
    start_service: Callable[..., AbstractContextManager[ServerProcess]],
) -> Iterator[ServerProcess]:
    """A real process, which every example asks in place of http://127.0.0.1:8000."""
    settings = {"ATELIER_ADMIN_KEYS": f"ops={hash_key(KEY)}", "ATELIER_CORS_ORIGINS": "*"}
    with start_service(ATELIER_ZOO=str(spoken_of_zoo), **settings) as server:
        yield server


@dataclass(frozen=True, slots=True)
class Workplace:
    """Where an example runs: its folder and what it finds there, its environment.

    ``records`` is where programs that are not run leave their calls.
    """

    folder: Path
    given: frozenset[Path]
    records: Path
    environment: dict[str, str]


@pytest.fixture(scope="session")
def clip(
    photograph: Callable[..., Image.Image], tmp_path_factory: pytest.TempPathFactory
) -> Path | None:
    """A second of a photograph; None where the extra ``video`` is not installed."""
    if importlib.util.find_spec("av") is None:
        return None
    import av

    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=4)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for _ in range(4):
            container.mux(stream.encode(av.VideoFrame.from_image(photograph())))
        container.mux(stream.encode())
    return path


@pytest.fixture
def workplace(
    tmp_path: Path,
    tiny_zoo: Path,
    spoken_of_zoo: Path,
    photograph: Callable[..., Image.Image],
    clip: Path | None,
) -> Workplace:
    folder, home, records = (tmp_path / name for name in ("reader", "home", "records"))
    for path in (folder, home, records):
        path.mkdir()
    photograph(320, 240, "astronaut").save(folder / "photo.jpg")
    photograph(128, 128, "coffee").save(folder / "painting.jpg")
    (folder / "photos/holiday").mkdir(parents=True)
    photograph(160, 120, "coffee").save(folder / "photos/coffee.jpg")
    photograph(120, 160, "chelsea").save(folder / "photos/holiday/cat.png")
    if clip is not None:
        shutil.copy(clip, folder)
    for name in OF_THE_REPOSITORY:
        (folder / name).symlink_to(ROOT / name)
    (folder / "my-atelier").symlink_to(ROOT / "deploy/kubernetes/example")
    for path in ("weights", "previews"):
        shutil.copytree(tiny_zoo, folder / "my-zoo" / path)
    shutil.copy(tiny_zoo / "manifest.toml", folder / "my-zoo")
    write_stand_ins(folder / ".venv/bin")
    # An answer that is an error is one, and of errors the document is shown.
    (home / ".curlrc").write_text("fail-with-body\nshow-error\nsilent\n")
    path = os.pathsep.join((str(folder / ".venv/bin"), str(Path(sys.executable).parent)))
    environment = {n: v for n, v in os.environ.items() if not n.startswith("ATELIER_")}
    environment |= {"PATH": f"{path}{os.pathsep}{os.environ['PATH']}", "HOME": str(home)}
    environment |= {"RECORDS": str(records), "KEY": KEY, "PWD": str(folder)}
    # Sooner ready, and light on a busy machine.
    environment |= {"ATELIER_RUNTIME": "torch", "ATELIER_ZOO": str(spoken_of_zoo)}
    environment |= {"ATELIER_MODEL_THREADS": "1", "OMP_NUM_THREADS": "1"}
    environment |= {name: hash_key(name) for name in re.findall(r"\$(\w*HASH_OF_\w+)", all_code())}
    return Workplace(folder, frozenset(folder.rglob("*")), records, environment)


def all_code() -> str:
    return "\n".join(map(code_of, PAGES))
