"""The full circle: photographs and a style picture become a style, which a server serves."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from model_zoo.cards import SHIPPED_ZOO, Manifest, StyleCard
from tests.trainer.conftest import PHOTOGRAPHS, RECIPE, vgg_tensors

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.conftest import ServerProcess

SHIPPED = Manifest.read(SHIPPED_ZOO).cards


def run_trainer(*arguments: object) -> None:
    subprocess.run(
        [sys.executable, "-m", "trainer", *map(str, arguments)],
        check=True,
        timeout=240,
        capture_output=True,
    )


@pytest.mark.slow
def test_a_style_is_trained_exported_served_and_painted_with(
    tmp_path: Path,
    photograph: Callable[..., Image.Image],
    encode: Callable[..., bytes],
    start_service: Callable[..., AbstractContextManager[ServerProcess]],
) -> None:
    photos, run, zoo = (tmp_path / name for name in ("photos", "run", "zoo"))
    photos.mkdir()
    for name in PHOTOGRAPHS:
        photograph(160, 120, name).save(photos / f"{name}.jpg")
    photograph(128, 96, "coffee").save(tmp_path / "style.png")
    (tmp_path / "coffee-cup.toml").write_text(RECIPE.replace("steps = 6", "steps = 4"))
    save_file(vgg_tensors(), tmp_path / "vgg.safetensors")

    run_trainer(
        *("train", tmp_path / "coffee-cup.toml", "--photos", photos, "--out", run),
        *("--loss-network", tmp_path / "vgg.safetensors", "--device", "cpu"),
        *("--eval-photos", photos, "--threads", 1),
    )
    run_trainer("export", run, "--style-id", "coffee-cup", "--zoo", zoo)

    with start_service(ATELIER_ZOO=str(zoo)) as server, httpx.Client(base_url=server.url) as http:
        listed = http.get("/styles").json()["styles"]
        answer = http.post(
            "/stylize",
            files={"image": encode(photograph(338, 225, "rocket"))},
            data={"style": "coffee-cup"},
            timeout=60,
        )
        preview = http.get(listed[0]["preview_url"])

    assert [style["id"] for style in listed] == ["coffee-cup"]
    assert listed[0]["title"] == "Bricks"
    assert answer.status_code == 200
    with Image.open(io.BytesIO(answer.content)) as painted:
        assert (painted.format, painted.size) == ("JPEG", (338, 225))
        assert np.asarray(painted).std() > 5
    with Image.open(io.BytesIO(preview.content)) as picture:
        assert max(picture.size) == 512


@pytest.mark.slow
def test_the_shipped_zoo_is_what_a_server_serves_by_default(
    photograph: Callable[..., Image.Image],
    encode: Callable[..., bytes],
    start_service: Callable[..., AbstractContextManager[ServerProcess]],
) -> None:
    """Every shipped style answers in the photograph's size, the same bytes twice."""
    body = encode(photograph(210, 150, "astronaut"))
    with (
        start_service(ATELIER_ZOO="") as server,
        httpx.Client(base_url=server.url, timeout=60) as http,
    ):
        styles = http.get("/styles").json()["styles"]
        for style in styles:
            answers = [
                http.post("/stylize", files={"image": body}, data={"style": style["id"]})
                for _ in range(2)
            ]
            assert [answer.status_code for answer in answers] == [200, 200]
            assert answers[0].content == answers[1].content
            with Image.open(io.BytesIO(answers[0].content)) as painted:
                assert painted.size == (210, 150)

    assert [style["id"] for style in styles] == [card.style_id for card in SHIPPED]


@pytest.mark.parametrize("card", SHIPPED, ids=lambda card: card.style_id)
def test_a_shipped_style_changes_the_picture_and_keeps_its_objects(
    card: StyleCard, photograph: Callable[..., Image.Image]
) -> None:
    """Far from the photograph in colour, near to it in where light and dark meet."""
    import torch

    from model_zoo.checkpoints import load_generator

    photo = np.asarray(photograph(256, 256, "astronaut"))
    generator = load_generator(SHIPPED_ZOO / card.weights, card.generator, card.arguments)
    tensor = torch.from_numpy(photo.copy()).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        painted = generator(tensor).clamp(0, 1)[0].permute(1, 2, 0).numpy() * 255

    def edges(picture: np.ndarray) -> np.ndarray:
        small = torch.from_numpy(picture.mean(2).copy())[None, None].float()
        small = torch.nn.functional.avg_pool2d(small, 8)[0, 0].numpy()
        return np.hypot(np.diff(small, axis=0)[:, 1:], np.diff(small, axis=1)[1:]).ravel()

    assert np.abs(painted - photo).mean() > 15
    assert painted.std() > 20
    assert np.corrcoef(edges(painted), edges(photo.astype(np.float32)))[0, 1] > 0.25
