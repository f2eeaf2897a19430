"""video: a clip becomes a painted clip, with its sound."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tqdm import tqdm

from model_zoo.cards import Manifest
from service.bulk import in_the_way
from service.commands.arguments import (
    UsageError,
    add_command,
    add_painting,
    at_least_1,
    read_settings,
    seconds,
    share,
)
from service.errors import DeviceLostError, ServiceError
from service.ledger import OutputLostError
from service.steadiness import DEFAULT_STEADINESS
from service.stopping import stop_on_signal
from service.workshops import WorkshopLostError

if TYPE_CHECKING:
    import argparse

    from model_zoo.cards import StyleCard
    from service.commands.arguments import Commands
    from service.settings import Settings
    from service.stylizer import Stylizer
    from service.video import VideoOptions

EXIT_FAULTS = 1

_SUFFIXES = (".mp4", ".mkv", ".mov", ".m4v", ".webm")
_QUALITIES = range(52)


def add_to(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the command and its arguments."""
    command = add_command(
        commands,
        "video",
        "paint a clip",
        "Paint every frame of a clip; sound, times of frames and subtitles stay (pip install "
        "'atelier[video]'). Started again, it goes on where it broke off.",
        run,
    )
    add = command.add_argument
    add("clip", type=Path, metavar="CLIP", help="file of any format that FFmpeg reads")
    add("-s", "--style", required=True, metavar="ID", help="style, or mixture as a:0.6,b:0.4")
    add("-o", "--out", type=Path, required=True, help=f"file: {', '.join(_SUFFIXES)}")
    add_painting(command)
    add(
        "--steadiness",
        type=share,
        default=DEFAULT_STEADINESS,
        metavar="0..1",
        help="0: each frame by itself, 1: changes slowest",
    )
    add(
        "--quality",
        type=int,
        choices=_QUALITIES,
        default=18,
        metavar="0..51",
        help="as x264 counts it: less is better and larger, 18 unless said",
    )
    add("--start", type=seconds, metavar="S", help="first second")
    add("--end", type=seconds, metavar="S", help="second that is not painted any more")
    add("--overwrite", action="store_true", help="replace OUT, begin anew what has other options")
    add("--json", action="store_true", help="a line on standard output at the end")
    add(
        "--segment-frames",
        type=at_least_1,
        default=100,
        metavar="N",
        help="most frames that are lost when it is killed, 100 unless said",
    )
    add("--zoo", type=Path, metavar="DIR", help="another zoo than that of ATELIER_ZOO")


def run(options: argparse.Namespace) -> int:
    """Paint, and say what became of it."""
    from service import video  # needs the extra
    from service.mixtures import choose_style  # brings torch along

    if options.out.suffix.lower() not in _SUFFIXES:
        raise UsageError(f"{options.out}: none of {', '.join(_SUFFIXES)}")
    if options.out.is_dir():
        raise UsageError(f"{options.out} is a folder; -o is the file to write")
    if options.out.exists() and options.clip.exists() and options.out.samefile(options.clip):
        return _tell(options, "failed", f"{options.out} is the clip itself", EXIT_FAULTS)
    if options.out.exists() and not options.overwrite:
        return _tell(options, "failed", str(in_the_way(options.out)), EXIT_FAULTS)
    settings = read_settings(zoo=options.zoo)
    choice = choose_style(options.style, Manifest.read(settings.zoo))
    with stop_on_signal() as stop, _Progress() as progress:
        try:
            outcome = video.paint_video(
                options.clip,
                options.out,
                choice,
                _video_options(options, settings),
                _open_engine(settings, choice.card),
                overwrite=options.overwrite,
                on_frame=progress.show,
                is_stopping=lambda: stop.signal is not None,
            )
        except video.VideoStoppedError:
            words = f"{progress.done} frames painted; the same command goes on from there"
            return _tell(options, "stopped", words, stop.exit_code)
        except (video.ClipError, video.OtherStartError) as error:
            return _tell(options, "failed", f"{options.clip}: {error}", EXIT_FAULTS)
        except DeviceLostError as error:
            raise WorkshopLostError(error.detail) from error
        except ServiceError as error:
            return _tell(options, "failed", f"{options.clip}: {error.detail}", EXIT_FAULTS)
        except OSError as error:
            raise OutputLostError(f"{options.out}: {error.strerror or error}") from error
    words = f"{outcome.frames} frames, {outcome.resumed_frames} of them there already"
    words = "; ".join([words, *outcome.notes, *outcome.faults])
    facts = {
        "frames": outcome.frames,
        "resumed_frames": outcome.resumed_frames,
        "notes": outcome.notes,
        "faults": outcome.faults,
        "seconds": round(progress.seconds, 3),
    }
    return _tell(options, "painted", words, EXIT_FAULTS if outcome.faults else 0, **facts)


def _video_options(options: argparse.Namespace, settings: Settings) -> VideoOptions:
    from service.video import VideoOptions
    from service.video_clip import Span

    if options.end is not None and options.end <= (options.start or 0):
        raise UsageError("--end does not come after --start")
    if options.max_side is not None and options.max_side > settings.max_side_px:
        raise UsageError(f"--max-side {options.max_side} exceeds {settings.max_side_px}")
    return VideoOptions(
        max_side_px=options.max_side or settings.default_max_side_px,
        strength=options.strength,
        keep_colors=options.keep_colors,
        seed=options.seed,
        steadiness=options.steadiness,
        quality=options.quality,
        span=Span(options.start, options.end),
        segment_frames=options.segment_frames,
    )


def _open_engine(settings: Settings, card: StyleCard) -> Stylizer:
    from service.studio import create_engine
    from service.stylizer import DeviceUnavailableError

    try:
        return create_engine(Manifest(settings.zoo, (card,)), settings)
    except DeviceUnavailableError as error:
        raise WorkshopLostError(str(error)) from error


class _Progress:
    """A bar of the frames that are done, where somebody watches."""

    def __init__(self) -> None:
        self.done = 0
        self._began_s = time.monotonic()
        self._bar = tqdm(unit="frame", disable=not sys.stderr.isatty(), leave=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began_s

    def show(self, done: int, expected: int | None) -> None:
        """Note that so many frames are done, of about so many."""
        if self._bar.total is None:
            self._bar.initial, self._bar.total = done, expected
        self.done = done
        self._bar.update(done - self._bar.n)


def _tell(options: argparse.Namespace, state: str, words: str, code: int, **facts: object) -> int:
    if options.json:
        out = str(options.out) if state == "painted" else None
        line = {"clip": str(options.clip), "state": state, "out": out}
        print(json.dumps(line | (facts or {"detail": words})))
    print(words, file=sys.stderr)
    return code
