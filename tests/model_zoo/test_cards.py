import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from model_zoo.cards import SHIPPED_ZOO, Manifest, StyleCard, UnknownStyleError, ZooError
from model_zoo.checkpoints import build_generator, load_generator

CARD = """
[[style]]
style_id = "waves"
title = "Waves"
artist = "Nobody"
year = "1900"
generator = "johnson_half"
weights = "weights/waves.safetensors"
sha256 = "{sha256}"
preview = "previews/waves.jpg"
picture_license = "Public domain"
weights_license = "Apache-2.0"
arguments = {{ normalization = "instance" }}
"""
GOOD = CARD.format(sha256=hashlib.sha256(b"weights").hexdigest())


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    for folder in ("weights", "previews"):
        (tmp_path / folder).mkdir()
    (tmp_path / "manifest.toml").write_text(GOOD)
    (tmp_path / "weights/waves.safetensors").write_bytes(b"weights")
    (tmp_path / "previews/waves.jpg").write_bytes(b"\xff\xd8 preview \xff\xd9")
    return tmp_path


def test_manifest_reads_cards_in_order_and_verifies(zoo: Path) -> None:
    (zoo / "manifest.toml").write_text(GOOD + GOOD.replace('"waves"', '"more-waves"'))

    manifest = Manifest.read(zoo)
    manifest.verify()

    assert [card.style_id for card in manifest] == ["waves", "more-waves"]
    assert manifest.card("waves").arguments == {"normalization": "instance"}


def test_verify_when_weights_differ_then_names_the_file(zoo: Path) -> None:
    (zoo / "weights/waves.safetensors").write_bytes(b"other weights")

    with pytest.raises(ZooError, match=r"waves\.safetensors: sha256 is"):
        Manifest.read(zoo).verify()


@pytest.mark.parametrize("name", ["weights/waves.safetensors", "previews/waves.jpg"])
def test_verify_when_a_file_is_missing_then_names_it(zoo: Path, name: str) -> None:
    (zoo / name).unlink()

    with pytest.raises(ZooError, match=Path(name).name):
        Manifest.read(zoo).verify()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("style_id", "styl_id"), "unknown key 'styl_id'"),
        (('year = "1900"', "year = 1900"), "year must be a string"),
        (('year = "1900"\n', ""), "missing 'year'"),
        (('"weights/waves', '"../waves'), "must lie inside the zoo"),
        (('"weights/waves', '"/weights/waves'), "must lie inside the zoo"),
        (('"waves"', '"Waves!"'), "lower-case"),
        (('sha256 = "', 'sha256 = "z'), "64 hexadecimal digits"),
        (("[[style]]", "[style]"), "array of tables"),
        (("[[style]]", "[[styles]]"), "unknown key 'styles'"),
        (("[[style]]", "[[style"), "not valid TOML"),
    ],
)
def test_read_when_the_manifest_is_wrong_then_says_where(
    zoo: Path, change: tuple[str, str], message: str
) -> None:
    (zoo / "manifest.toml").write_text(GOOD.replace(*change))

    with pytest.raises(ZooError, match=message) as caught:
        Manifest.read(zoo)

    assert "manifest.toml" in str(caught.value)


def test_read_when_an_id_appears_twice_or_there_is_no_manifest_then_says_so(zoo: Path) -> None:
    (zoo / "manifest.toml").write_text(GOOD + GOOD)
    with pytest.raises(ZooError, match="appears twice"):
        Manifest.read(zoo)

    (zoo / "manifest.toml").unlink()
    with pytest.raises(ZooError, match=r"manifest\.toml: cannot be read"):
        Manifest.read(zoo)


def test_card_when_the_style_is_unknown_then_lists_those_there_are(zoo: Path) -> None:
    with pytest.raises(UnknownStyleError, match="there are: waves"):
        Manifest.read(zoo).card("rain")


def test_shipped_zoo_verifies() -> None:
    manifest = Manifest.read(SHIPPED_ZOO)

    manifest.verify()

    assert len(manifest) >= 2


@pytest.mark.parametrize("card", Manifest.read(SHIPPED_ZOO).cards, ids=lambda card: card.style_id)
def test_shipped_style_loads_and_can_be_trained_again(card: StyleCard) -> None:
    manifest = Manifest.read(SHIPPED_ZOO)

    load_generator(manifest.weights_path(card), card.generator, card.arguments)

    assert (SHIPPED_ZOO.parent / "trainer/recipes" / card.recipe).is_file()
    assert manifest.weights_path(card).stat().st_size <= 4 * 2**20
    assert manifest.preview_path(card).stat().st_size <= 60 * 2**10


def test_shipped_zoo_holds_no_stray_files() -> None:
    manifest = Manifest.read(SHIPPED_ZOO)
    named = {manifest.weights_path(c) for c in manifest} | {
        manifest.preview_path(c) for c in manifest
    }

    present = {p for f in ("weights", "previews") for p in (SHIPPED_ZOO / f).iterdir()}

    assert present == named


@pytest.mark.parametrize("noise_channels", [0, 3])
def test_a_card_knows_whether_its_generator_draws_noise(zoo: Path, noise_channels: int) -> None:
    card = replace(
        Manifest.read(zoo).card("waves"),
        generator="texture_net",
        arguments={"noise_channels": noise_channels},
    )

    generator = build_generator(card.generator, card.arguments)

    assert card.has_noise == bool(generator.noise_channels) == bool(noise_channels)


@pytest.mark.parametrize("card", Manifest.read(SHIPPED_ZOO).cards, ids=lambda card: card.style_id)
def test_cards_of_shipped_styles_know_it_too(card: StyleCard) -> None:
    generator = build_generator(card.generator, card.arguments)

    assert card.has_noise == bool(generator.noise_channels)
