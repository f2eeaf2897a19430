"""Video: a clip is painted frame by frame, in segments, and becomes a file like it."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TypeVar

import av
from av.error import FFmpegError

from service.video_clip import Clip, ClipError
from service.video_join import choose_encoder, join
from service.video_painter import FramePainter, VideoOptions
from service.video_segments import OtherStartError, Segments, held_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from service.jobs import NormStatistics
    from service.mixtures import Choice
    from service.stylizer import StyleEngine
    from service.video_clip import Frame
    from service.video_segments import SegmentWriter

__all__ = [
    "ClipError",
    "OtherStartError",
    "VideoOptions",
    "VideoOutcome",
    "VideoStoppedError",
    "paint_video",
]

T = TypeVar("T")

# Of what decides on the segments, in a way that the options do not show.
_LAYOUT = 1


class VideoStoppedError(Exception):
    """Asked to stop; what is finished stays."""


@dataclass(frozen=True, slots=True)
class VideoOutcome:
    """What became of a clip: how many frames it has, how many of them were there already.

    ``faults`` says what could not be read, ``notes`` what is not as it was; one sentence each.
    """

    frames: int
    resumed_frames: int
    faults: list[str]
    notes: list[str]


def paint_video(
    path: Path,
    out: Path,
    choice: Choice,
    options: VideoOptions,
    engine: StyleEngine,
    *,
    overwrite: bool = False,
    on_frame: Callable[[int, int | None], None] = lambda done, expected: None,  # noqa: ARG005
    is_stopping: Callable[[], bool] = lambda: False,
) -> VideoOutcome:
    """Paint the clip ``path`` into the file ``out``, going on where an earlier try broke off.

    Args:
        path: the clip.
        out: the file, of a suffix in ``CONTAINERS``; appears when it is whole.
        choice: what to paint in.
        options: how.
        engine: paints.
        overwrite: whether to throw away what was begun with other options.
        on_frame: told how many frames are done, of about how many.
        is_stopping: asked before each frame.

    Raises:
        ClipError: it holds nothing that can be painted, or not into such a file.
        OSError: ``out`` cannot be written.
        OtherStartError: something else was begun for ``out``.
        ServiceError: a frame cannot be painted.
        VideoStoppedError: ``is_stopping`` said so.
    """
    # FFmpeg takes what stands before a colon for a protocol, but not in a whole path.
    path, out = path.absolute(), out.absolute()
    folder = out.with_name(f"{out.name}.partial")
    suffix = out.suffix.lower()
    encoder = choose_encoder(suffix, options.quality)
    with (
        Clip.open(path, options.span, options.max_side_px) as clip,
        held_folder(folder, _state(path, suffix, choice, options, engine), anew=overwrite),
    ):
        segments = Segments(folder, encoder, clip.time_base, clip.rate)
        resumed = segments.frames
        painter = FramePainter(choice, options, engine)
        try:
            _paint_segments(clip, segments, painter, options, on_frame, is_stopping)
            part = folder / f"joined{suffix}"
            notes = join(segments.finished, clip, path, part, suffix)
        except ClipError:
            if not segments.finished:
                _remove(folder)
            raise
        except FFmpegError as error:
            if isinstance(error, OSError):  # the disk, not the clip
                raise
            raise ClipError(f"cannot become a {suffix}: {error.strerror}") from error
        part.replace(out)
        _remove(folder)
    return VideoOutcome(segments.frames, resumed, clip.faults.sentences(), notes)


def _remove(folder: Path) -> None:
    for rest in folder.iterdir():
        rest.unlink()
    folder.rmdir()


def _paint_segments(
    clip: Clip,
    segments: Segments,
    painter: FramePainter,
    options: VideoOptions,
    on_frame: Callable[[int, int | None], None],
    is_stopping: Callable[[], bool],
) -> None:
    """Paint what is missing; one frame is read and another encoded while one is painted."""
    done = segments.frames
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as encoder:
        frames = _ahead(clip.frames(skip=done), reader)
        if done and (last := next(frames, None)) is not None:
            painter.go_on_from(last, segments.statistics())
        on_frame(done, clip.expected_frames)
        upcoming = next(frames, None)
        while upcoming is not None:
            with segments.write() as writer, _Encoding(writer, encoder) as encoding:
                for _ in range(options.segment_frames):
                    if is_stopping():
                        raise VideoStoppedError
                    encoding.add(upcoming, painter.paint(upcoming))
                    done += 1
                    on_frame(done, clip.expected_frames)
                    if (upcoming := next(frames, None)) is None:
                        break
                encoding.finish(painter.statistics)


class _Encoding:
    """Encodes one frame at a time on another thread, and ends with it."""

    def __init__(self, writer: SegmentWriter, encoder: ThreadPoolExecutor) -> None:
        self._writer = writer
        self._encoder = encoder
        self._at_work: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._at_work is not None:
            wait((self._at_work,))

    def add(self, frame: Frame, painted: NDArray[np.uint8]) -> None:
        if self._at_work is not None:
            self._at_work.result()
        self._at_work = self._encoder.submit(self._writer.add, frame, painted)

    def finish(self, statistics: NormStatistics | None) -> None:
        if self._at_work is not None and statistics is not None:
            self._at_work.result()
            self._writer.finish(statistics)


def _ahead(items: Iterator[T], reader: ThreadPoolExecutor) -> Iterator[T]:
    """Give ``items``, each of which ``reader`` gets while the one before is at work."""
    upcoming = reader.submit(next, items, None)
    while (item := upcoming.result()) is not None:
        upcoming = reader.submit(next, items, None)
        yield item


def _state(
    path: Path, suffix: str, choice: Choice, options: VideoOptions, engine: StyleEngine
) -> dict[str, object]:
    """All that decides on the segments."""
    file = path.stat()
    return {
        "layout": _LAYOUT,
        "libraries": {name: ".".join(map(str, v)) for name, v in av.library_versions.items()},
        "clip": [str(path.resolve()), file.st_size, file.st_mtime_ns],
        "suffix": suffix,
        "engine": [engine.device, engine.runtime],
        "network": choice.card.network,
        "row": choice.card.style_row,
        "mix": choice.mix,
        "max_side_px": options.max_side_px,
        "strength": options.strength,
        "keep_colors": options.keep_colors,
        "seed": options.seed,
        "steadiness": options.steadiness,
        "quality": options.quality,
        "span": [str(options.span.start_s), str(options.span.end_s)],
        "segment_frames": options.segment_frames,
    }
