"""Content photographs: an endless, seeded stream of square crops from a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Sampler

from trainer.distributed import World
from trainer.errors import TrainerError
from trainer.pictures import DECODE_ERRORS, find_pictures, open_picture

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from torch import Tensor

TRIES = 50
"""Replacements drawn for one crop; a folder where none of them is good is unusable."""
LARGEST_ZOOM_OUT = 1.5
"""A photograph's shorter side is scaled to between 1 and this many crops, so sizes vary."""


class Crop(NamedTuple):
    """One training crop, uint8 (3, S, S), and what was opened to get it."""

    pixels: Tensor
    opened: list[str]
    bad: list[str]


class Batch(NamedTuple):
    """Crops of one step, uint8 (N, 3, S, S), and what was opened to get them."""

    pixels: Tensor
    opened: list[str]
    bad: list[str]


class PhotoCrops(Dataset[Crop]):
    """Crop number ``i`` of an endless stream; the same for the same seed, whoever asks.

    Every photograph comes once in each pass over the folder, in an order that the seed decides;
    crop position, zoom and flip depend on seed and number alone. So a resumed run goes on exactly
    where it stopped, and any number of workers gives the same stream.
    """

    def __init__(
        self, folder: Path, crop_px: int, seed: int, *, at_most: int | None = None
    ) -> None:
        """Look for pictures in ``folder`` and below; keep ``at_most``, drawn by ``seed``.

        Raises:
            TrainerError: there are none.
        """
        self.paths = find_pictures(folder)
        if at_most is not None:
            order = np.random.default_rng((seed, 2)).permutation(len(self.paths))
            self.paths = [self.paths[i] for i in sorted(order[:at_most])]
        self.crop_px = crop_px
        self.seed = seed
        self._pass_number = -1
        self._order = np.empty(0, dtype=np.int64)

    def __getitem__(self, number: int) -> Crop:
        rng = np.random.default_rng((self.seed, number))
        path = self.paths[self._index(number)]
        opened: list[str] = []
        bad: list[str] = []
        for _ in range(TRIES):
            opened.append(str(path))
            try:
                return Crop(self._crop(path, rng), opened, bad)
            except DECODE_ERRORS:
                bad.append(str(path))
                path = self.paths[rng.integers(len(self.paths))]
        # A worker's exception would lose its one clear line: BadPhotoCount says it instead.
        return Crop(torch.zeros(3, self.crop_px, self.crop_px, dtype=torch.uint8), opened, bad)

    def _index(self, number: int) -> int:
        pass_number, position = divmod(number, len(self.paths))
        if pass_number != self._pass_number:
            self._order = np.random.default_rng((self.seed, pass_number, 1)).permutation(
                len(self.paths)
            )
            self._pass_number = pass_number
        return int(self._order[position])

    def _crop(self, path: Path, rng: np.random.Generator) -> Tensor:
        size = self.crop_px
        image = open_picture(path, at_least_px=round(size * LARGEST_ZOOM_OUT))
        shorter = min(image.size)
        if shorter < size // 2:
            raise ValueError(f"its shorter side is {shorter} px")
        largest = min(max(shorter, size), round(size * LARGEST_ZOOM_OUT))
        scale = int(rng.integers(size, largest + 1)) / shorter
        width, height = (max(size, round(side * scale)) for side in image.size)
        left, top = int(rng.integers(width - size + 1)), int(rng.integers(height - size + 1))
        box = (
            left / scale,
            top / scale,
            min((left + size) / scale, image.width),
            min((top + size) / scale, image.height),
        )
        crop = image.resize((size, size), Image.Resampling.LANCZOS, box=box, reducing_gap=2.0)
        if rng.random() < 0.5:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return torch.from_numpy(np.array(crop)).permute(2, 0, 1)


class _Steps(Sampler[list[int]]):
    """Crop numbers of each step from ``first`` on: of its batch, the share of process ``rank``."""

    def __init__(self, first: int, last: int, batch_size: int, rank: int, share: int) -> None:
        self.steps = range(first, last)
        self.batch_size = batch_size
        self.offset = rank * share
        self.share = share

    def __iter__(self) -> Iterator[list[int]]:
        for step in self.steps:
            start = step * self.batch_size + self.offset
            yield list(range(start, start + self.share))

    def __len__(self) -> int:
        return len(self.steps)


class BadPhotoCount:
    """Counts photographs that cannot be used, and stops a run that has too many."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.opened: set[str] = set()
        self.bad: set[str] = set()

    def add(self, batch: Batch) -> None:
        """Count a batch.

        Raises:
            TrainerError: more than half of those opened so far are bad, and enough were opened
                to tell.
        """
        self.opened.update(batch.opened)
        self.bad.update(batch.bad)
        if len(self.opened) >= min(self.total, 16) and 2 * len(self.bad) > len(self.opened):
            raise TrainerError(
                f"{len(self.bad)} of {len(self.opened)} photographs cannot be used "
                f"(corrupt or too small), {min(self.bad)} among them; give a better --photos folder"
            )


def batches(
    crops: PhotoCrops,
    *,
    first_step: int,
    last_step: int,
    batch_size: int,
    workers: int,
    world: World | None = None,
) -> Iterable[Batch]:
    """Batches of steps ``first_step`` to ``last_step`` (excluded), decoded by ``workers``.

    Where several processes train, each gets its share of every batch.
    """
    world = world or World()
    share = world.share_of(batch_size)
    loader: DataLoader[Crop] = DataLoader(
        crops,
        batch_sampler=_Steps(first_step, last_step, batch_size, world.rank, share),
        num_workers=workers,
        collate_fn=_collate,
        prefetch_factor=4 if workers else None,
        pin_memory=torch.cuda.is_available(),
    )
    return cast("Iterable[Batch]", loader)


def _collate(crops: list[Crop]) -> Batch:
    return Batch(
        torch.stack([crop.pixels for crop in crops]),
        [path for crop in crops for path in crop.opened],
        [path for crop in crops for path in crop.bad],
    )
