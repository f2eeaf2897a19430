"""The motion of the clips is as known as benchmarks.live takes it to be."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from benchmarks.clips import Frame, pan, rest, still, warped_difference


def differences(clip: list[Frame]) -> tuple[float, float]:
    """Mean difference of neighbours, as seen and after the camera's motion is undone."""
    seen, undone = [], []
    for before, after in itertools.pairwise(clip):
        warped = warped_difference(before.pixels, after.pixels, (before, after))
        known = np.isfinite(warped)
        plain = after.pixels.astype(np.float32) - before.pixels
        seen.append(np.abs(plain)[known].mean())
        undone.append(np.abs(warped)[known].mean())
        assert known.mean() > 0.5
    return float(np.mean(seen)), float(np.mean(undone))


@pytest.mark.parametrize("scene", ["coffee", "astronaut"])
def test_a_pan_that_is_undone_leaves_noise_and_the_drift_of_the_light(scene: str) -> None:
    seen, undone = differences(pan(scene, "chelsea", 2))
    assert undone < 5
    assert undone < seen / 3


def test_what_moves_before_a_camera_that_rests_is_left_out() -> None:
    quiet = differences(still("coffee", 1))[1]
    _, undone = differences(rest("coffee", "chelsea", 1))
    assert undone == pytest.approx(quiet, rel=0.05)


def test_what_moves_covers_a_part_of_the_picture_that_is_marked() -> None:
    plain = still("coffee", 0.1)[0].pixels.astype(int)
    for frame in rest("coffee", "chelsea", 1):
        changed = np.abs(frame.pixels - plain).max(axis=2) > 30
        assert 0.05 < frame.foreign.mean() < 0.3
        assert changed[~frame.foreign].mean() < 0.001
