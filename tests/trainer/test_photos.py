from pathlib import Path

import pytest
import torch
from PIL import Image

from trainer.errors import TrainerError
from trainer.photos import BadPhotoCount, PhotoCrops, batches


def test_crops_are_the_same_for_the_same_seed_and_differ_otherwise(photo_folder: Path) -> None:
    crops = [PhotoCrops(photo_folder, 64, seed=1)[n].pixels for n in range(4)]
    again = [PhotoCrops(photo_folder, 64, seed=1)[n].pixels for n in reversed(range(4))]
    other = [PhotoCrops(photo_folder, 64, seed=2)[n].pixels for n in range(4)]

    assert all(torch.equal(a, b) for a, b in zip(crops, reversed(again), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(crops, other, strict=True))
    assert {c.shape for c in crops} == {(3, 64, 64)}
    assert {c.dtype for c in crops} == {torch.uint8}


def test_every_photograph_comes_once_in_each_pass(photo_folder: Path) -> None:
    crops = PhotoCrops(photo_folder, 64, seed=1)
    size = len(crops.paths)

    passes = [[crops[n + start].opened[0] for n in range(size)] for start in (0, size, 2 * size)]

    assert all(sorted(p) == sorted(map(str, crops.paths)) for p in passes)
    assert len({tuple(p) for p in passes}) > 1


def test_photographs_below_and_of_all_sizes_are_used(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    Image.new("RGB", (1000, 90), "red").save(tmp_path / "below/wide.JPG")
    Image.new("L", (40, 70), 9).save(tmp_path / "small.png")
    Image.new("RGBA", (64, 64)).save(tmp_path / "exact.webp")
    (tmp_path / "notes.txt").write_text("no picture")
    crops = PhotoCrops(tmp_path, 64, seed=0)

    found = [crops[n] for n in range(3)]

    assert len(crops.paths) == 3
    assert not any(crop.bad for crop in found)
    assert {crop.pixels.shape for crop in found} == {(3, 64, 64)}


def test_corrupt_and_tiny_photographs_are_replaced_and_counted(
    tmp_path: Path, photo_folder: Path
) -> None:
    for path in photo_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    whole = (tmp_path / "coffee.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 3])
    Image.new("RGB", (31, 200)).save(tmp_path / "tiny.png")
    crops = PhotoCrops(tmp_path, 64, seed=0)
    count = BadPhotoCount(len(crops.paths))

    for batch in batches(crops, first_step=0, last_step=6, batch_size=2, workers=0):
        assert batch.pixels.shape == (2, 3, 64, 64)
        assert batch.pixels.float().std() > 5
        count.add(batch)

    assert {Path(p).name for p in count.bad} == {"cut.jpg", "tiny.png"}


@pytest.mark.parametrize("workers", [0, 1])
def test_more_than_half_bad_stops_the_run(tmp_path: Path, photo_folder: Path, workers: int) -> None:
    (tmp_path / "good.jpg").write_bytes((photo_folder / "coffee.jpg").read_bytes())
    for n in range(3):
        (tmp_path / f"bad{n}.jpg").write_bytes(b"no JPEG at all")
    crops = PhotoCrops(tmp_path, 64, seed=0)
    count = BadPhotoCount(len(crops.paths))

    with pytest.raises(TrainerError, match="3 of 4 photographs cannot be used"):
        for batch in batches(crops, first_step=0, last_step=50, batch_size=2, workers=workers):
            count.add(batch)


def test_a_folder_without_one_good_photograph_stops_the_run(tmp_path: Path) -> None:
    for n in range(40):
        (tmp_path / f"bad{n}.jpg").write_bytes(b"no JPEG at all")
    crops = PhotoCrops(tmp_path, 64, seed=0)
    count = BadPhotoCount(len(crops.paths))

    with pytest.raises(TrainerError, match="cannot be used"):
        for batch in batches(crops, first_step=0, last_step=1, batch_size=1, workers=0):
            count.add(batch)


def test_a_resumed_stream_goes_on_where_it_stopped(photo_folder: Path) -> None:
    def stream(first: int) -> list[torch.Tensor]:
        crops = PhotoCrops(photo_folder, 64, seed=3)
        steps = batches(crops, first_step=first, last_step=5, batch_size=2, workers=0)
        return [batch.pixels for batch in steps]

    assert all(torch.equal(a, b) for a, b in zip(stream(0)[3:], stream(3), strict=True))


@pytest.mark.parametrize("name", ["absent", "empty"])
def test_when_the_folder_is_absent_or_empty_then_says_so(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()

    with pytest.raises(TrainerError, match=name):
        PhotoCrops(tmp_path / name, 64, seed=0)
