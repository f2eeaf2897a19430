"""Live: frames a second through a real WebSocket, and how much the painting flickers.

    python -m benchmarks.live [--quick] [--threads N]

Speed: a real server process; a client that keeps two frames unanswered, as the page does.
Flicker, for several values of ``steadiness``: what differs between a painted frame and the one
before, moved as the camera moved; of pixels, and of areas of 32 px, seen as a change of light. Once
where the camera rests and somebody moves before it, and once where it pans and zooms.
Lag, where cuts are not told: how long the painting differs from that without smoothing after the
light has gone down by a quarter; and how far the first frame of another scene is off.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from websockets.sync.client import connect

from benchmarks.clips import FRAMES_PER_S, pan, rest, still, warped_difference
from benchmarks.generators import style_of, write_zoo
from benchmarks.load import make_form, make_jpeg, saturate
from benchmarks.report import check, describe_machine, finish
from benchmarks.servers import run_service
from model_zoo.cards import SHIPPED_ZOO, Manifest
from service.jobs import FrameJob
from service.settings import available_cores
from service.steadiness import DEFAULT_STEADINESS, Steadiness, memory
from service.stylizer import Stylizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchmarks.clips import Frame
    from benchmarks.servers import Server
    from model_zoo.cards import StyleCard

MIN_FRAMES_PER_S = 15.0
MAX_FLICKER_RATIO = 0.95
MAX_RATIO_OF_A_PAN = 1.02
AREA_PX = 32
_UNANSWERED = 2
_LAG_FRAMES_PER_S = 5
_LAG_LEFT = 0.25
"""What of the first difference may be left when the painting counts as having followed."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured, and for how long."""

    seconds: float
    clip_s: float
    styles: tuple[str, ...]
    knob: tuple[float, ...]
    clips: tuple[tuple[str, str], ...]


_CLIPS = (("coffee", "chelsea"), ("astronaut", "coffee"))
FULL = Plan(
    12,
    4,
    ("starry-night", "great-wave", "starry-night-mix"),
    (0.0, 0.25, DEFAULT_STEADINESS, 0.75, 1.0),
    _CLIPS,
)
QUICK = Plan(6, 3, ("starry-night",), (0.0, DEFAULT_STEADINESS, 1.0), _CLIPS)


def main() -> int:
    """Measure, print the tables and the JSON line; 1 where a check does not hold."""
    arguments = parse_arguments()
    plan = QUICK if arguments.quick else FULL
    speeds = measure_speeds(plan, arguments.threads)
    manifest = Manifest.read(SHIPPED_ZOO)
    engine = Stylizer(manifest, device="cpu", threads=arguments.threads)
    print(
        f"\n{'':<28}{'camera rests':<31}{'pans':<31}\n{'style':<18}{'steady':>8}"
        + f"{'pixels':>9}{'ratio':>7}{'areas':>8}{'ratio':>7}" * 2
        + f"{'lag s':>7}{'cut':>7}"
    )
    flickers = []
    for style in plan.styles:
        for row in measure_flicker(engine, manifest.card(style), plan):
            flickers.append(row)
            print_row(row)
    chosen = [row for row in flickers if row["steadiness"] == DEFAULT_STEADINESS]
    checks = [
        check(
            "frames a second at 320x240 with fast",
            min,
            [row for row in speeds if row["what"] == "alone, 320x240"],
            "frames_per_s",
            MIN_FRAMES_PER_S,
        ),
        check(
            "flicker of pixels with smoothing over without, camera rests",
            max,
            chosen,
            "rests_pixel_ratio",
            MAX_FLICKER_RATIO,
        ),
        check(
            "flicker of areas with smoothing over without, camera rests",
            max,
            chosen,
            "rests_area_ratio",
            MAX_FLICKER_RATIO,
        ),
        check(
            "flicker of pixels with smoothing over without, camera pans",
            max,
            chosen,
            "pans_pixel_ratio",
            MAX_RATIO_OF_A_PAN,
        ),
    ]
    machine = describe_machine(available_cores(), arguments.threads)
    return finish("live", machine, speeds + flickers, checks)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.live", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter runs, under two minutes")
    parser.add_argument("--threads", type=int, default=available_cores())
    return parser.parse_args()


# --- speed


def measure_speeds(plan: Plan, threads: int) -> list[dict[str, Any]]:
    """Frames a second, and how long each waited, of sessions through a real server."""
    print(f"{'':<34}{'frames/s':>9}{'p50 ms':>8}{'p95 ms':>8}{'side px':>8}{'dropped':>8}")
    rows = []
    fixed = {"max_side": 320, "min_side": 320, "frames_per_second": 120}
    with tempfile.TemporaryDirectory() as folder:
        write_zoo(Path(folder), {style_of("fast"): "fast"})
        with run_service(Path(folder), threads, ATELIER_LIVE_MAX_FRAME_RATE="120") as server:
            watch(server, encode(pan("coffee", "chelsea", 1)), 2, fixed)  # compiles
            small, large = pan("coffee", "chelsea", 4), enlarge(pan("coffee", "chelsea", 4))
            rows.append(watch(server, encode(small), plan.seconds, fixed, what="alone, 320x240"))
            rows.append(watch(server, encode(large), plan.seconds, {}, what="default, 640x480"))
            form = make_form(make_jpeg(512, 512), style=style_of("fast"))
            beside = threading.Thread(
                target=saturate,
                args=(server.url, [form]),
                kwargs={"clients": 1, "seconds": plan.seconds + 1},
            )
            beside.start()
            rows.append(
                watch(server, encode(large), plan.seconds, {}, what="the same beside POST /stylize")
            )
            beside.join()
    return rows


def encode(frames: list[Frame]) -> list[bytes]:
    """As a camera's page sends them."""
    encoded = []
    for frame in frames:
        with io.BytesIO() as file:
            Image.fromarray(frame.pixels).save(file, "jpeg", quality=80)
            encoded.append(file.getvalue())
    return encoded


def enlarge(frames: list[Frame]) -> list[Frame]:
    """The same at twice the side, as most cameras give them."""
    return [replace(it, pixels=it.pixels.repeat(2, axis=0).repeat(2, axis=1)) for it in frames]


def watch(
    server: Server,
    frames: list[bytes],
    seconds: float,
    parameters: dict[str, Any],
    what: str = "",
) -> dict[str, Any]:
    """Keep a session going; the second half is what counts."""
    url = server.url.replace("http", "ws", 1) + "/live"
    start = {"type": "start", "style": style_of("fast"), **parameters}
    waited_s, painted, said = [], 0, {}
    with connect(url, max_size=None, compression=None) as live:
        live.send(json.dumps(start))
        began_s = time.perf_counter()
        counted_s = began_s + seconds / 2
        sent_s: list[float] = []

        def send() -> None:
            live.send(frames[len(sent_s) % len(frames)])
            sent_s.append(time.perf_counter())

        for _ in range(_UNANSWERED):
            send()
        while (now_s := time.perf_counter()) < began_s + seconds:
            message = live.recv(timeout=60)
            if isinstance(message, str):
                said = json.loads(message) if '"statistics"' in message else said
                continue
            number = int.from_bytes(message[:4], "big")
            if now_s >= counted_s:
                painted += 1
                waited_s.append(time.perf_counter() - sent_s[number - 1])
            # What was dropped will not be answered.
            while len(sent_s) - number < _UNANSWERED:
                send()
        elapsed_s = time.perf_counter() - counted_s
    row = {
        "what": what,
        "frames_per_s": round(painted / elapsed_s, 2),
        "p50_ms": round(1000 * statistics.median(waited_s or [0]), 1),
        "p95_ms": round(1000 * float(np.percentile(waited_s or [0], 95)), 1),
        "painted_side": said.get("painted_side", 0),
        "dropped": said.get("dropped", 0),
    }
    if what:
        print(
            f"{what:<34}{row['frames_per_s']:>9.2f}{row['p50_ms']:>8.1f}{row['p95_ms']:>8.1f}"
            f"{row['painted_side']:>8}{row['dropped']:>8}",
            flush=True,
        )
    return row


# --- flicker and lag


def measure_flicker(engine: Stylizer, card: StyleCard, plan: Plan) -> list[dict[str, Any]]:
    """One row for each value of the knob."""
    clips = {
        kind: [make(*names, plan.clip_s) for names in plan.clips]
        for kind, make in (("rests", rest), ("pans", pan))
    }
    rows: list[dict[str, Any]] = []
    for steadiness in plan.knob:
        row: dict[str, Any] = {"style": card.style_id, "steadiness": steadiness}
        for kind, films in clips.items():
            measured = [flicker(clip, paint(engine, card, clip, steadiness)) for clip in films]
            for what, values in zip(("pixel", "area"), zip(*measured, strict=True), strict=True):
                name = f"{kind}_{what}_flicker"
                row[name] = round(statistics.mean(values), 3)
                first = rows[0][name] if rows else row[name]
                row[f"{kind}_{what}_ratio"] = round(row[name] / first, 3)
        row["lag_s"] = round(lag_s(engine, card, plan, steadiness), 3)
        row["untold_cut"] = round(untold_cut(engine, card, plan, steadiness), 2)
        rows.append(row)
    return rows


def print_row(row: dict[str, Any]) -> None:
    """Print one line of the table."""
    flickers = "".join(
        f"{row[f'{kind}_pixel_flicker']:>9.2f}{row[f'{kind}_pixel_ratio']:>7.3f}"
        f"{row[f'{kind}_area_flicker']:>8.2f}{row[f'{kind}_area_ratio']:>7.3f}"
        for kind in ("rests", "pans")
    )
    print(
        f"{row['style']:<18}{row['steadiness']:>8.2f}{flickers}{row['lag_s']:>7.2f}"
        f"{row['untold_cut']:>7.2f}",
        flush=True,
    )


def paint(
    engine: Stylizer, card: StyleCard, clip: list[Frame], steadiness: float
) -> list[NDArray[np.uint8]]:
    """Paint a clip as a live session does."""
    track: Steadiness[Any] = Steadiness()
    painted = []
    for number, frame in enumerate(clip):
        before, kept = track.recall(frame.pixels, card.network, number / FRAMES_PER_S, steadiness)
        (answer,) = engine.run([FrameJob(card, frame.pixels, before, kept, mix=mix_of(card))])
        track.remember(answer.statistics)
        painted.append(answer.pixels)
    return painted


def mix_of(card: StyleCard) -> tuple[tuple[int, float], ...]:
    """The card's own row, where its network has rows."""
    return ((card.style_row, 1.0),) if card.style_row else ()


def flicker(clip: list[Frame], painted: list[NDArray[np.uint8]]) -> tuple[float, float]:
    """Mean difference of neighbours, of 255: of pixels, and of areas of ``AREA_PX``."""
    pixels, areas = [], []
    for number in range(1, len(clip)):
        difference = warped_difference(
            painted[number - 1], painted[number], (clip[number - 1], clip[number])
        )
        pixels.append(float(np.nanmean(np.abs(difference))))
        height, width = (side // AREA_PX * AREA_PX for side in difference.shape[:2])
        tiles = difference[:height, :width].reshape(
            height // AREA_PX, AREA_PX, width // AREA_PX, AREA_PX, 3
        )
        means = tiles.mean(axis=(1, 3))  # NaN where any of it is not known
        areas.append(float(np.nanmean(np.abs(means))))
    return statistics.mean(pixels), statistics.mean(areas)


def lag_s(engine: Stylizer, card: StyleCard, plan: Plan, steadiness: float) -> float:
    """How long the painting differs from that without smoothing, once it is darker."""
    if not steadiness:
        return 0.0
    lags = []
    for scene, _ in plan.clips:
        # Few frames a second do: what is kept goes by time.
        clip = [*still(scene, 0.2), *still(scene, 3, light=0.75)]
        own, smoothed = (follow(engine, card, clip, value) for value in (0.0, steadiness))
        apart = [distance(one, other) for one, other in zip(own, smoothed, strict=True)]
        late = [number for number, value in enumerate(apart) if value > _LAG_LEFT * max(apart)]
        lags.append((late[-1] + 1 - apart.index(max(apart))) / _LAG_FRAMES_PER_S)
    return statistics.mean(lags)


def untold_cut(engine: Stylizer, card: StyleCard, plan: Plan, steadiness: float) -> float:
    """How far the first frame of another scene would be off, were the cut not told."""
    if not steadiness:
        return 0.0
    scenes = [scene for scene, _ in plan.clips]
    off = []
    for one, other in zip(scenes, [*scenes[1:], scenes[0]], strict=True):
        clip = [*still(one, 0.2), *still(other, 1 / FRAMES_PER_S)]
        told = paint(engine, card, clip, steadiness)[-1]
        off.append(distance(told, follow(engine, card, clip, steadiness)[-1]))
    return statistics.mean(off)


def follow(
    engine: Stylizer, card: StyleCard, clip: list[Frame], steadiness: float
) -> list[NDArray[np.uint8]]:
    """Paint a clip, of few frames a second, as if no cut were ever told."""
    before, painted = None, []
    for frame in clip:
        kept = memory(steadiness, 1 / _LAG_FRAMES_PER_S) if before is not None else 0.0
        (answer,) = engine.run([FrameJob(card, frame.pixels, before, kept, mix=mix_of(card))])
        before = answer.statistics
        painted.append(answer.pixels)
    return painted


def distance(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Mean difference of two pictures, of 255."""
    return float(np.abs(one.astype(np.float32) - other).mean())


if __name__ == "__main__":
    sys.exit(main())
