"""What is kept of earlier frames: by time, and not from another scene, network or mixture."""

from __future__ import annotations

import math
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pytest

from service.steadiness import (
    CUT_DISTANCE,
    LONGEST_MEMORY_S,
    Steadiness,
    distance,
    memory,
    take_colors,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from PIL.Image import Image

PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "rocket", "immunohistochemistry", "retina")


@pytest.fixture
def scene(photograph: Callable[..., Image]) -> Callable[..., NDArray[np.uint8]]:
    def load(name: str = "coffee", width: int = 96, height: int = 64) -> NDArray[np.uint8]:
        return np.asarray(photograph(width, height, name))

    return load


def test_first_frame_is_painted_by_itself(scene: Callable[..., NDArray[np.uint8]]) -> None:
    assert Steadiness[str]().recall(scene(), "a", 0.0, 1.0) == (None, 0.0)


def test_next_frame_of_a_scene_recalls_the_statistics_of_the_one_before(
    scene: Callable[..., NDArray[np.uint8]],
) -> None:
    steadiness = Steadiness[str]()
    for number in range(5):
        before, kept = steadiness.recall(scene(), "a", number / 15, 0.5)
        assert before == (f"of {number - 1}" if number else None)
        assert kept == pytest.approx(memory(0.5, 1 / 15) if number else 0)
        steadiness.remember(f"of {number}")


def test_what_is_kept_fades_with_time_whatever_the_frame_rate() -> None:
    for steadiness in (0.2, 0.5, 1.0):
        fast = memory(steadiness, 1 / 30) ** 30
        slow = memory(steadiness, 1 / 5) ** 5
        assert fast == pytest.approx(slow)
    assert memory(1.0, LONGEST_MEMORY_S) == pytest.approx(math.exp(-1))


def test_knob_at_zero_keeps_nothing_and_a_higher_one_more() -> None:
    kept = [memory(step / 10, 1 / 15) for step in range(11)]
    assert kept[0] == 0
    assert kept == sorted(kept)
    assert all(0 <= value < 1 for value in kept)


@pytest.mark.parametrize("elapsed_s", [0.0, -1.0])
def test_clock_that_does_not_move_forgets_nevertheless(elapsed_s: float) -> None:
    assert memory(1.0, elapsed_s) < 1


def test_another_network_or_mixture_recalls_nothing(
    scene: Callable[..., NDArray[np.uint8]],
) -> None:
    steadiness = Steadiness[str]()
    steadiness.recall(scene(), "a", 0.0, 1.0)
    steadiness.remember("of a")
    assert steadiness.recall(scene(), "b", 0.1, 1.0) == (None, 0.0)


def test_cut_to_another_scene_recalls_nothing_and_the_one_after_does(
    scene: Callable[..., NDArray[np.uint8]],
) -> None:
    steadiness = Steadiness[str]()
    steadiness.recall(scene("coffee"), "a", 0.0, 1.0)
    steadiness.remember("coffee")
    assert steadiness.recall(scene("astronaut"), "a", 0.1, 1.0) == (None, 0.0)
    assert steadiness.cuts == 1
    steadiness.remember("astronaut")
    assert steadiness.recall(scene("astronaut"), "a", 0.2, 1.0)[0] == "astronaut"


@pytest.mark.parametrize("one_and_other", [*combinations(PHOTOGRAPHS, 2)], ids="-".join)
def test_different_photographs_are_different_scenes(
    one_and_other: tuple[str, str], scene: Callable[..., NDArray[np.uint8]]
) -> None:
    one, other = map(scene, one_and_other)
    assert distance(take_colors(one), take_colors(other)) > CUT_DISTANCE


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_motion_noise_exposure_and_another_size_are_no_cut(
    name: str, scene: Callable[..., NDArray[np.uint8]]
) -> None:
    whole = scene(name, 352, 264)
    first = take_colors(whole[:240, :320])
    noise = np.random.default_rng(0).normal(0, 6, (240, 320, 3))
    # A tenth of the width between two frames, and a tenth darker.
    other = np.clip(whole[8:248, 32:352] * 0.9 + noise, 0, 255).astype(np.uint8)
    assert distance(first, take_colors(other)) < CUT_DISTANCE
    assert distance(first, take_colors(scene(name, 176, 132)[:120, :160])) < CUT_DISTANCE


@pytest.mark.parametrize("shape", [(1, 1, 3), (16, 4000, 3), (3, 50, 3)])
def test_picture_of_any_shape_can_be_compared(shape: tuple[int, ...]) -> None:
    white = take_colors(np.full(shape, 255, np.uint8))
    assert distance(white, take_colors(np.zeros((64, 64, 3), np.uint8))) == pytest.approx(1)
