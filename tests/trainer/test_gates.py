import math

import pytest

from trainer.gates import Gate, gates

REFERENCE = {"checkerboard": 0.4, "border": 0.9, "flat": 0.01}
GOOD = {
    "mean_gap": 0.45,
    "worst_gap": 0.85,
    "checkerboard": 1.3,
    "border": 0.8,
    "clipped": 0.01,
    "flat": 0.1,
    "contrast_change": 1.0,
    "style_distance": 0.05,
    "other_style_distance": 0.3,
    "times_nearer": 8.0,
}


def failing(**figures: float) -> list[str]:
    return [gate.name for gate in gates(GOOD | figures, REFERENCE) if not gate.holds]


def test_a_good_style_holds_every_gate() -> None:
    assert failing() == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mean_gap", 0.501),
        ("worst_gap", 0.901),
        ("checkerboard", 1.41),
        ("border", 0.71),
        ("border", 1.13),
        ("clipped", 0.021),
        ("flat", 0.12),
        ("contrast_change", 3.0),
        ("style_distance", 0.31),
        ("times_nearer", 3.9),
        ("mean_gap", math.nan),
        ("times_nearer", math.nan),
    ],
)
def test_a_figure_outside_its_bounds_fails_its_own_gate_alone(name: str, value: float) -> None:
    assert failing(**{name: value}) == [name]


@pytest.mark.parametrize("name", ["checkerboard", "flat", "border"])
def test_what_l_bfgs_leaves_moves_the_bound(name: str) -> None:
    moved = REFERENCE | {name: REFERENCE[name] + 1}
    figures = GOOD | {name: REFERENCE[name] + 1}

    assert all(gate.holds for gate in gates(figures, moved))
    assert name in failing(**{name: REFERENCE[name] + 1.1})


def test_a_zoo_of_one_painting_has_no_other_to_be_compared_with() -> None:
    alone = {name: value for name, value in GOOD.items() if name != "other_style_distance"}

    assert "style_distance" not in [gate.name for gate in gates(alone, REFERENCE)]


def test_a_fault_says_both_numbers_and_how_far_they_are_apart() -> None:
    assert Gate(name="gap", value=0.95, most=0.9).fault() == "gap 0.95 > 0.9 (by 0.05)"
    assert Gate(name="border", value=0.5, least=0.75).fault() == "border 0.5 < 0.75 (by 0.25)"
    assert Gate(name="gap", value=math.nan, most=1).as_check() == {
        "name": "gap",
        "value": None,
        "bound": {"most": 1},
        "holds": False,
    }
