"""The options of the page, held against what the service makes of the same parameters."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import httpx
import pytest
import torch
from PIL import Image
from playwright.sync_api import expect

from model_zoo.cards import file_sha256
from model_zoo.checkpoints import save_generator
from model_zoo.generators import GENERATORS
from tests.page.visitor import STARRY_NIGHT, Visitor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.conftest import ServerProcess

WAVE = "The Great Wave off Kanagawa"


def paint(service: ServerProcess, photo: Path, **parameters: str) -> bytes:
    """The service's own answer."""
    answer = httpx.post(
        f"{service.url}/stylize",
        files={"image": photo.read_bytes()},
        data={"style": "starry-night"} | parameters,
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    return answer.content


def set_slider(visitor: Visitor, label: str, value: int) -> None:
    visitor.page.get_by_label(label, exact=True).fill(str(value))


def test_every_option_is_what_the_service_is_asked_for(
    visitor: Visitor, atelier: ServerProcess, photo: Path
) -> None:
    set_slider(visitor, "Strength", 60)
    visitor.page.get_by_label("Longer side").select_option("256 px")
    visitor.page.get_by_label("Keep the colours").check()
    visitor.page.get_by_text("File", exact=True).click()
    visitor.page.get_by_label("Format").select_option("WebP")
    visitor.page.get_by_label("Quality").fill("70")

    visitor.offer(photo)
    visitor.see_painted()

    name, painting = visitor.download()
    wanted = {"strength": "0.6", "max_side": "256", "keep_colors": "true"}
    assert painting == paint(atelier, photo, **wanted, format="webp", quality="70")
    assert name == "coffee-starry-night.webp"
    assert Image.open(io.BytesIO(painting)).size == (256, 171)


def test_an_option_that_changes_paints_anew(visitor: Visitor, photo: Path) -> None:
    visitor.offer(photo)
    visitor.see_painted()

    visitor.page.get_by_label("Longer side").select_option("256 px")

    expect(visitor.page.locator("#caption")).to_contain_text("256")


def test_no_size_is_offered_that_the_service_refuses(visitor: Visitor) -> None:
    sizes = visitor.page.get_by_label("Longer side").locator("option").all_inner_texts()

    assert max(int(size.split()[0]) for size in sizes) == 4096
    expect(visitor.page.get_by_label("Longer side")).to_have_value("1024")


def test_styles_of_one_network_are_mixed_in_shares(
    visitor: Visitor, atelier: ServerProcess, photo: Path
) -> None:
    visitor.page.get_by_text("Mix with other styles").click()
    set_slider(visitor, WAVE, 40)
    visitor.offer(photo)
    visitor.see_painted(f"60 % {STARRY_NIGHT}, 40 % {WAVE}")

    name, painting = visitor.download()

    assert painting == paint(atelier, photo, style="starry-night:0.6,great-wave:0.4")
    assert name == "coffee-mixture.jpg"


def test_three_styles_never_have_more_than_the_whole(
    visitor: Visitor, atelier: ServerProcess, photo: Path
) -> None:
    visitor.page.get_by_text("Mix with other styles").click()
    set_slider(visitor, WAVE, 70)
    set_slider(visitor, "The Scream", 60)

    expect(visitor.page.get_by_label("The Scream", exact=True)).to_have_value("30")
    visitor.offer(photo)
    visitor.see_painted(f"70 % {WAVE}, 30 % The Scream")
    mixture = "great-wave:0.7,the-scream:0.3"
    assert visitor.download()[1] == paint(atelier, photo, style=mixture)


def test_a_style_with_a_network_of_its_own_cannot_be_mixed(visitor: Visitor) -> None:
    visitor.choose_style("Tableau")

    expect(visitor.page.get_by_text("Mix with other styles")).to_be_hidden()


@pytest.fixture(scope="module")
def noisy(
    open_service: Callable[..., AbstractContextManager[ServerProcess]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ServerProcess]:
    """A service whose one style draws noise."""
    zoo = tmp_path_factory.mktemp("zoo")
    torch.manual_seed(0)
    save_generator(GENERATORS["texture_net"](noise_channels=3), zoo / "rain.safetensors")
    Image.new("RGB", (32, 32), "teal").save(zoo / "rain.jpg")
    (zoo / "manifest.toml").write_text(
        '[[style]]\nstyle_id = "rain"\ntitle = "Rain"\nartist = "Nobody"\nyear = "2016"\n'
        'generator = "texture_net"\narguments = { noise_channels = 3 }\n'
        f'weights = "rain.safetensors"\nsha256 = "{file_sha256(zoo / "rain.safetensors")}"\n'
        'preview = "rain.jpg"\npicture_license = "CC0-1.0"\nweights_license = "Apache-2.0"\n'
    )
    with open_service(ATELIER_ZOO=str(zoo)) as service:
        yield service


def test_a_style_with_noise_has_variants(
    invite: Callable[..., Visitor], noisy: ServerProcess, photo: Path
) -> None:
    visitor = invite(f"{noisy.url}/").arrive()
    visitor.offer(photo)
    visitor.see_painted("Rain")
    _, first = visitor.download()

    visitor.button("Another variant").click()
    expect(visitor.page.locator("#command-text")).to_contain_text("seed=")

    _, second = visitor.download()
    seed = visitor.page.get_by_label("Variant").input_value()
    assert first == paint(noisy, photo, style="rain")
    assert second == paint(noisy, photo, style="rain", seed=seed) != first


def test_a_style_without_noise_has_none(visitor: Visitor) -> None:
    expect(visitor.page.get_by_label("Variant")).to_be_hidden()
