import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.trainer.conftest import vgg_tensors
from trainer.errors import TrainerError
from trainer.loss_network import CAFFE, LossNetwork
from trainer.losses import LossWeights, PerceptualLoss
from trainer.optimize import EVALUATIONS, optimize
from trainer.picture_metrics import border_ratio, checkerboard_energy, flat_share
from trainer.pictures import load_picture
from trainer.references import (
    SHIPPED_REFERENCES,
    Reference,
    ReferenceCache,
    read_references,
    write_references,
)

WEIGHTS = LossWeights(
    content_layers=("relu2_2",),
    content_weight=1.0,
    style_layers=("relu1_2", "relu2_2"),
    style_weight=5.0,
    style_scales=(1.0,),
    total_variation_weight=0.0,
)


@pytest.fixture
def loss() -> PerceptualLoss:
    torch.manual_seed(1)
    return PerceptualLoss(LossNetwork(vgg_tensors(), CAFFE), torch.rand(1, 3, 64, 64) ** 3, WEIGHTS)


@pytest.fixture
def photo() -> torch.Tensor:
    torch.manual_seed(2)
    return torch.nn.functional.interpolate(torch.rand(1, 3, 8, 10), size=(40, 50))


def test_optimize_lowers_the_objective_and_gives_a_picture_in_256_steps(
    photo: torch.Tensor, loss: PerceptualLoss
) -> None:
    told: list[int] = []

    found = optimize(photo, loss, evaluations=30, on_evaluation=lambda n, _: told.append(n))

    assert found.objective < 0.5 * found.curve[0]
    assert found.picture.shape == photo.shape
    assert found.picture.min() >= 0
    assert found.picture.max() <= 1
    torch.testing.assert_close((found.picture * 255).round() / 255, found.picture)
    assert told == list(range(1, len(found.curve) + 1))
    assert 25 <= len(found.curve) <= 30 + 25  # a line search may finish what it began


def test_optimize_starts_where_it_is_told_and_leaves_that_alone(
    photo: torch.Tensor, loss: PerceptualLoss
) -> None:
    noise = torch.rand_like(photo)
    before = noise.clone()

    found = optimize(photo, loss, start=noise, evaluations=5)

    with torch.no_grad():
        expected = loss(noise, loss.content_targets(photo)).objective.item()
    assert found.curve[0] == pytest.approx(expected, rel=1e-4)
    assert torch.equal(noise, before)


def test_references_are_found_once_for_the_same_question(
    photo: torch.Tensor, loss: PerceptualLoss, tmp_path: Path
) -> None:
    folder = tmp_path / "references"
    cache = ReferenceCache(folder, evaluations=10)
    calls: list[int] = []

    first = cache.reference(photo, loss, "noise", lambda number, _: calls.append(number))
    assert len(calls) >= 10
    calls.clear()
    again = ReferenceCache(folder, evaluations=10)
    assert again.reference(photo, loss, "x", lambda number, _: calls.append(number)) == first
    assert calls == []

    cache.reference(1 - photo, loss, "negative")
    ReferenceCache(folder, evaluations=11).reference(photo, loss, "noise")
    assert len(list(folder.glob("*.json"))) == 3
    assert cache.used.keys() == {cache.key(photo, loss), cache.key(1 - photo, loss)}


def test_a_reference_has_the_figures_of_its_picture_which_is_kept(
    photo: torch.Tensor, loss: PerceptualLoss, tmp_path: Path
) -> None:
    cache = ReferenceCache(tmp_path, evaluations=10)

    reference = cache.reference(photo, loss, "noise")

    picture = load_picture(tmp_path / f"{cache.key(photo, loss)}.png")
    with torch.no_grad():
        objective = loss(picture, loss.content_targets(photo)).objective.item()
    assert reference.photograph == "noise"
    assert reference.objective == pytest.approx(objective, rel=1e-4)
    assert reference.border == pytest.approx(border_ratio(picture))
    assert reference.checkerboard == pytest.approx(checkerboard_energy(picture))
    assert reference.flat == pytest.approx(flat_share(picture))
    assert reference.size_px == (40, 50)


@pytest.mark.parametrize("text", ["half a", '{"objective": 0.001, "evaluations": 10}', "[]"])
def test_a_file_that_lacks_figures_is_measured_anew(
    photo: torch.Tensor, loss: PerceptualLoss, tmp_path: Path, text: str
) -> None:
    first = ReferenceCache(tmp_path, evaluations=5)
    expected = first.reference(photo, loss, "noise")
    path = tmp_path / f"{first.key(photo, loss)}.json"
    path.write_text(text)

    found = ReferenceCache(tmp_path, evaluations=5).reference(photo, loss, "noise")

    assert found.objective == pytest.approx(expected.objective, rel=1e-4)
    assert Reference.from_facts(json.loads(path.read_text())) == found


def test_known_references_come_first_unless_all_are_measured_anew(
    photo: torch.Tensor, loss: PerceptualLoss, tmp_path: Path
) -> None:
    file, folder = tmp_path / "known.json", tmp_path / "references"
    cache = ReferenceCache(folder, evaluations=5)
    measured = cache.reference(photo, loss, "noise")
    told = replace(measured, objective=0.5)
    write_references(file, {cache.key(photo, loss): told, "0": measured})
    known = read_references(file)

    assert list(known) == sorted(known)
    assert ReferenceCache(folder, 5, known).reference(photo, loss, "noise") == told
    anew = ReferenceCache(folder, 5, known, anew=True)
    found = anew.reference(photo, loss, "noise")
    assert found.objective == pytest.approx(measured.objective, rel=1e-4)
    assert anew.reference(photo, loss, "noise") is found


def test_the_shipped_references_can_be_read_and_are_of_full_length() -> None:
    references = read_references(SHIPPED_REFERENCES)

    assert all(reference.evaluations >= EVALUATIONS for reference in references.values())
    assert all(0 < reference.objective <= reference.at_50 for reference in references.values())


def test_known_references_that_are_damaged_are_named(tmp_path: Path) -> None:
    assert read_references(tmp_path / "none.json") == {}
    (tmp_path / "known.json").write_text('{"0": {"objective": 1}}')

    with pytest.raises(TrainerError, match=r"known\.json"):
        read_references(tmp_path / "known.json")
