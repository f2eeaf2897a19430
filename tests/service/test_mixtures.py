"""Styles of one network: the parameter ``style``, batches of several, mixtures, strength."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from model_zoo.cards import Manifest, file_sha256
from model_zoo.checkpoints import save_generator
from model_zoo.generators.conditional import ConditionalGenerator, conditional
from service.errors import InvalidParameterError, StyleNotFoundError
from service.jobs import MeasureJob, StyleJob, TileJob
from service.mixtures import choose_style, label_of
from service.stylizer import Stylizer
from trainer.manifest_writer import write_manifest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from PIL import Image

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def zoo(tiny_zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``ink`` has a network of its own and ``oil`` for mixtures; ``oil`` and ``chalk`` share one,
    ``other`` is alone in another."""
    folder = tmp_path_factory.mktemp("shared")
    ink = Manifest.read(tiny_zoo).card("ink")
    for path in (ink.weights, ink.preview):
        (folder / path).write_bytes((tiny_zoo / path).read_bytes())
    cards = [replace(ink, mixes_as="oil")]
    rows = {"many": ("oil", "chalk"), "few": ("other",)}
    for seed, (name, style_ids) in enumerate(rows.items()):
        torch.manual_seed(seed)
        generator = conditional(rows=3)
        assert isinstance(generator, ConditionalGenerator)
        with torch.no_grad():
            generator.rows.add_(torch.randn_like(generator.rows) * 0.2)
        weights = folder / f"{name}.safetensors"
        save_generator(generator, weights)
        cards += [
            replace(
                ink,
                style_id=style_id,
                generator="conditional",
                arguments={"rows": 3},
                weights=weights.name,
                sha256=file_sha256(weights),
                style_row=row,
            )
            for row, style_id in enumerate(style_ids, 1)
        ]
    write_manifest(Manifest(folder, tuple(cards)))
    return folder


@pytest.fixture(scope="module")
def manifest(zoo: Path) -> Manifest:
    return Manifest.read(zoo)


@pytest.fixture(scope="module")
async def client(open_client: Any, zoo: Path) -> AsyncIterator[Any]:
    async with open_client(zoo=zoo) as client:
        yield client


@pytest.mark.parametrize(
    ("text", "style_id", "mix"),
    [
        ("ink", "ink", ()),
        ("chalk", "chalk", ((2, 1.0),)),
        ("oil:0.6,chalk:0.4", "oil", ((1, 0.6), (2, 0.4))),
        ("chalk:0.25, ink:.75", "chalk", ((2, 0.25), (1, 0.75))),
        ("ink:1", "oil", ((1, 1.0),)),
        ("oil:0,chalk:1", "oil", ((1, 0.0), (2, 1.0))),
    ],
)
def test_style_is_one_or_several_with_shares(
    manifest: Manifest, text: str, style_id: str, mix: Any
) -> None:
    choice = choose_style(text, manifest)

    assert choice.card.style_id == style_id
    assert [row for row, _ in choice.mix] == [row for row, _ in mix]
    assert [share for _, share in choice.mix] == pytest.approx([share for _, share in mix])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("oil:0.6,chalk:0.6", "add up to 1.2; write style=ID"),
        ("oil:0.5", "add up to 0.5"),
        ("oil:-0.5,chalk:1.5", "'oil:-0.5' has no share from 0 to 1"),
        ("oil:nan,chalk:1", "'oil:nan' has no share"),
        ("oil,chalk", "'oil' has no share"),
        ("oil:,chalk:1", "'oil:' has no share"),
        ("oil:0.5:0.5", "has no share"),
        ("oil:0.5,oil:0.5", "'oil' is named twice"),
        ("oil:0.5,other:0.5", "rows of different networks"),
    ],
)
def test_shares_that_break_the_rule_are_refused_with_it(
    manifest: Manifest, text: str, message: str
) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        choose_style(text, manifest)


@pytest.mark.parametrize("text", ["", "gone", "oil:0.5,gone:0.5", ":1", ",", "oil:1,"])
def test_a_style_that_is_not_there_is_not_found(manifest: Manifest, text: str) -> None:
    with pytest.raises((StyleNotFoundError, InvalidParameterError)):
        choose_style(text, manifest)


def test_a_style_with_a_network_of_its_own_names_those_that_mix(tiny_zoo: Path) -> None:
    with pytest.raises(InvalidParameterError, match="those that can: none of this zoo"):
        choose_style("ink:0.5,wash:0.5", Manifest.read(tiny_zoo))


def test_thirds_need_not_add_up_to_the_last_digit(manifest: Manifest) -> None:
    mix = choose_style("oil:0.333,chalk:0.6665", manifest).mix

    assert sum(share for _, share in mix) == pytest.approx(1)


def test_labels_are_few_whatever_clients_send(manifest: Manifest) -> None:
    assert label_of("oil", manifest) == "oil"
    assert label_of("oil:0.6,chalk:0.4", manifest) == "mixture"
    assert label_of("oil:9,chalk:x", manifest) == "mixture"
    assert label_of("gone", manifest) == label_of("oil:1,gone:1", manifest) == "unknown"


@pytest.mark.parametrize("runtime", ["torch", "openvino"])
def test_batch_of_several_styles_equals_each_alone(
    manifest: Manifest, runtime: Any, photograph: Callable[..., Image.Image]
) -> None:
    stylizer = Stylizer(manifest, device="cpu", runtime=runtime, threads=1)
    pixels = [np.asarray(photograph(96, 64, name)) for name in ("coffee", "astronaut", "chelsea")]
    oil, chalk = manifest.card("oil"), manifest.card("chalk")
    jobs = [
        StyleJob(oil, pixels[0]),
        StyleJob(chalk, pixels[1]),
        StyleJob(oil, pixels[2], mix=((1, 0.3), (2, 0.7))),
    ]
    assert len({job.batch_key for job in jobs}) == 1

    together = np.asarray(stylizer.run(jobs), int)
    alone = np.asarray([stylizer.run([job])[0] for job in jobs], int)

    assert np.abs(together - alone).max() <= 1
    other = stylizer.run([StyleJob(chalk, pixels[0])])[0].astype(int)
    assert np.abs(other - alone[0]).max() > 10


@pytest.mark.parametrize("runtime", ["torch", "openvino"])
def test_tile_is_painted_in_its_pictures_mixture(
    manifest: Manifest, runtime: Any, photograph: Callable[..., Image.Image]
) -> None:
    stylizer = Stylizer(manifest, device="cpu", runtime=runtime, threads=1)
    pixels = np.asarray(photograph(96, 64))
    card, mix = manifest.card("oil"), ((0, 0.2), (2, 0.8))
    contrast = float((pixels / 255).std())

    (whole,) = stylizer.run([MeasureJob(card, pixels[None], contrast, mix)])
    (tile,) = stylizer.run([TileJob(card, pixels, whole, 0, 0, mix)])
    (painted,) = stylizer.run([StyleJob(card, pixels, mix=mix)])

    assert np.abs(tile.astype(int) - painted).max() <= 2


async def test_mixture_over_http_is_unlike_either_style(client: Any, photo_jpeg: bytes) -> None:
    mixture = (await client.paint(photo_jpeg, style="oil:0.5,chalk:0.5")).astype(int)
    for style in ("oil", "chalk"):
        alone = (await client.paint(photo_jpeg, style=style)).astype(int)
        assert np.abs(mixture - alone).max() > 10
    whole_share = await client.paint(photo_jpeg, style="ink:1")
    assert np.array_equal(whole_share, await client.paint(photo_jpeg, style="oil"))


async def test_shares_that_do_not_add_up_are_422_with_the_rule(
    client: Any, photo_jpeg: bytes
) -> None:
    response = await client.stylize(photo_jpeg, style="oil:0.5,chalk:0.4")

    assert response.status_code == 422
    assert "sum is 1" in response.json()["detail"]


async def test_strength_0_of_a_shared_network_is_the_photograph_itself(
    client: Any, photo_jpeg: bytes
) -> None:
    faint = await client.paint(photo_jpeg, style="oil", strength="0")
    photo = await client.paint(photo_jpeg, style="ink", strength="0")

    assert np.abs(faint.astype(int) - photo).max() <= 1


async def test_strength_between_is_no_blend_of_pictures(client: Any, photo_jpeg: bytes) -> None:
    photo, half, full = [
        (await client.paint(photo_jpeg, style="oil", strength=strength)).astype(float)
        for strength in ("0", "0.5", "1")
    ]
    assert np.abs(half - photo).mean() < np.abs(full - photo).mean()
    assert np.abs(half - (photo + full) / 2).mean() > 1


async def test_styles_say_whether_they_can_be_mixed(client: Any) -> None:
    styles = (await client.http.get("/styles")).json()["styles"]

    assert {style["id"]: style["mixable"] for style in styles} == {
        "ink": True,
        "oil": True,
        "chalk": True,
        "other": True,
    }


async def test_styles_name_those_they_can_be_mixed_with_each_row_once(client: Any) -> None:
    styles = (await client.http.get("/styles")).json()["styles"]

    assert {style["id"]: style["mixes_with"] for style in styles} == {
        "ink": ["chalk"],
        "oil": ["chalk"],
        "chalk": ["ink"],  # which oil stands for, and is listed first
        "other": [],
    }


async def test_what_styles_say_they_can_be_mixed_with_is_so(client: Any, photo_jpeg: bytes) -> None:
    for style in (await client.http.get("/styles")).json()["styles"]:
        for other in style["mixes_with"]:
            await client.paint(photo_jpeg, style=f"{style['id']}:0.3,{other}:0.7")
