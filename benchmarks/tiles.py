"""Large pictures: tiled beside whole where both fit, and 100 megapixels through the service.

    python -m benchmarks.tiles [--quick] [--threads N] [--zoo FOLDER]

Uses the styles of a zoo, since what tiles get wrong shows only in trained weights. Photographs are
enlarged ones.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from skimage import data as skimage_data

from benchmarks.load import make_form, saturate
from benchmarks.report import check, describe_machine, finish, peak_resident_bytes
from benchmarks.servers import run_service
from model_zoo.cards import SHIPPED_ZOO, Manifest, StyleCard
from service.jobs import Job, StyleJob
from service.settings import available_cores
from service.stylizer import Stylizer
from service.tiled import paint_in_tiles

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from service.tiles import TileLayout

MIN_PSNR_DB = 30.0
MAX_SEAM_RATIO = 1.05
MAX_RESIDENT_BYTES = 4 * 2**30
_WHOLE_BUDGET_BYTES = 16 * 2**30
_PHOTOS = ("coffee", "astronaut", "rocket")
_NEAR_LINES = 16
_HUGE_PX = (11560, 8660)

Image.MAX_IMAGE_PIXELS = None


def main() -> int:
    """Measure, print the table and the JSON line; 1 where a check does not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tiles", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one photograph, 10 megapixels")
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--zoo", type=Path, default=SHIPPED_ZOO)
    arguments = parser.parse_args()
    manifest = Manifest.read(arguments.zoo)
    print(f"{'style':<18}{'generator':<14}{'photograph':<12}{'size':<12}", end="")
    print(f"{'PSNR dB':>9}{'colour':>8}{'seams':>8}{'s':>8}{'peak MiB':>10}")
    results = []
    for card in one_of_each(manifest):
        for photo in _PHOTOS[:1] if arguments.quick else _PHOTOS:
            results.append(compare(manifest, card, photo, arguments.threads))
            print_row(results[-1])
    size = (3600, 2700) if arguments.quick else _HUGE_PX
    fast = [card for card in manifest if card.generator == "fast"] or list(manifest)
    results.append(serve_huge(manifest, fast[0], size, arguments.threads))
    print_row(results[-1])
    checks = [
        check("tiled against whole, dB", min, results[:-1], "psnr_db", MIN_PSNR_DB),
        check("gradient across tile borders over inside", max, results, "seams", MAX_SEAM_RATIO),
        check("peak bytes of the service", max, results[-1:], "peak_bytes", MAX_RESIDENT_BYTES),
    ]
    machine = describe_machine(available_cores(), arguments.threads)
    return finish("tiles", machine, results, checks)


def one_of_each(manifest: Manifest) -> list[StyleCard]:
    """The first two styles of each architecture."""
    chosen: dict[str, list[StyleCard]] = {}
    for card in manifest:
        chosen.setdefault(card.generator, []).append(card)
    return [card for cards in chosen.values() for card in cards[:2]]


def enlarge(name: str, size: tuple[int, int]) -> Image.Image:
    """A photograph at ``size``, with a grain like a camera's."""
    picture = Image.fromarray(getattr(skimage_data, name)()).convert("RGB")
    picture = picture.resize(size, Image.Resampling.BICUBIC)
    noise = np.random.default_rng(0).normal(0, 4, (512, 512, 1))
    rows, columns = -(-size[1] // 512), -(-size[0] // 512)
    grain = np.tile(noise, (rows, columns, 1))[: size[1], : size[0]].astype(np.float32)
    pixels = np.asarray(picture)
    grained = np.empty_like(pixels)
    for top in range(0, size[1], 512):
        part = slice(top, top + 512)
        grained[part] = np.clip(pixels[part] + grain[part], 0, 255)
    return Image.fromarray(grained)


def compare(manifest: Manifest, card: StyleCard, photo: str, threads: int) -> dict[str, Any]:
    """Paint one picture whole and in tiles, the statistics from a sample of it."""
    one = Manifest(manifest.zoo, (card,))
    pixels = np.asarray(enlarge(photo, (3072, 2304)))
    job = StyleJob(card, pixels)
    ample = Stylizer(one, device="cpu", threads=threads, memory_budget_bytes=_WHOLE_BUDGET_BYTES)
    whole = ample.run([job])[0]
    stylizer = Stylizer(one, device="cpu", threads=threads)
    layout = stylizer.layout(card)
    if layout is None:
        raise SystemExit(f"{card.style_id} cannot be painted in tiles")
    started = time.perf_counter()
    tiled = paint_tiled(stylizer, job, layout)
    seconds = time.perf_counter() - started
    difference = tiled.astype(np.float32) - whole
    return {
        "style": card.style_id,
        "generator": card.generator,
        "photograph": photo,
        "size": "3072x2304",
        "psnr_db": round(float(10 * np.log10(255**2 / np.square(difference).mean())), 2),
        "colour": round(float(np.abs(difference.mean((0, 1))).max()), 2),
        # What lies there differs from what lies beside it in the whole painting, too.
        "seams": round(seam_ratio(tiled, layout) / seam_ratio(whole, layout), 3),
        "seconds": round(seconds, 2),
    }


def paint_tiled(stylizer: Stylizer, job: StyleJob, layout: TileLayout) -> NDArray[np.uint8]:
    """Paint as the pipeline does, without a queue."""

    async def submit(part: Job) -> Any:
        return stylizer.run([part])[0]

    async def at_once(function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    return asyncio.run(paint_in_tiles(job, layout, submit=submit, on_codec_pool=at_once))


def seam_ratio(painting: NDArray[np.uint8], layout: TileLayout) -> float:
    """Squared differences between neighbours across tile borders, over those near them.

    Compared with lines that lie alike on the generator's own grid, which decoders show a little.
    """
    across, beside = [], []
    for tile in layout.tiles(*painting.shape[:2]):
        for axis, core in enumerate(tile.core):
            if core.start == 0:
                continue
            other = tile.core[1 - axis]
            for line in range(-_NEAR_LINES, _NEAR_LINES + 1):
                first = core.start + line * layout.stride - 1
                pair = np.moveaxis(painting, axis, 0)[first : first + 2, other]
                energy = float(np.square(np.diff(pair.astype(np.int32), axis=0)).mean())
                (beside if line else across).append(energy)
    return round(float(np.mean(across) / np.mean(beside)), 3)


def serve_huge(
    manifest: Manifest, card: StyleCard, size: tuple[int, int], threads: int
) -> dict[str, Any]:
    """Send one picture through the service; its peak memory is that of the whole process."""
    buffer = io.BytesIO()
    enlarge(_PHOTOS[0], size).save(buffer, "jpeg", quality=88)
    call = make_form(
        buffer.getvalue(), style=card.style_id, max_side="16384", quality="95", format="jpeg"
    )
    settings = {
        "ATELIER_MAX_SIDE_PX": "16384",
        "ATELIER_MAX_SOURCE_PIXELS": "150000000",
        "ATELIER_MAX_BODY_BYTES": str(200 * 2**20),
        "ATELIER_REQUEST_TIMEOUT_S": "900",
    }
    with run_service(manifest.zoo, threads, **settings) as server:
        answers, seconds = saturate(server.url, [call], clients=1, count=1, keep_body=True)
        peak_bytes = peak_resident_bytes(server.process.pid)
    if answers[0].status != 200:
        raise SystemExit(f"the service answered {answers[0].status}: {answers[0].body[:300]!r}")
    painting = np.asarray(Image.open(io.BytesIO(answers[0].body)))
    one = Manifest(manifest.zoo, (card,))
    layout = Stylizer(one, device="cpu", threads=threads).layout(card)
    if layout is None or painting.shape[:2] != size[::-1]:
        raise SystemExit(f"the painting is {painting.shape}")
    return {
        "style": card.style_id,
        "generator": card.generator,
        "photograph": _PHOTOS[0],
        "size": f"{size[0]}x{size[1]}",
        "seams": seam_ratio(painting, layout),
        "seconds": round(seconds, 2),
        "peak_bytes": peak_bytes,
        "stages_ms": answers[0].stages_ms,
    }


def print_row(row: dict[str, Any]) -> None:
    """Print one line of the table."""
    psnr, colour = (f"{row[key]:.2f}" if key in row else "-" for key in ("psnr_db", "colour"))
    peak = f"{row['peak_bytes'] / 2**20:.0f}" if "peak_bytes" in row else "-"
    print(
        f"{row['style']:<18}{row['generator']:<14}{row['photograph']:<12}{row['size']:<12}"
        f"{psnr:>9}{colour:>8}{row['seams']:>8.3f}{row['seconds']:>8.1f}{peak:>10}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
