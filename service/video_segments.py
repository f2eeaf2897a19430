"""Segments: the painted part of a clip, in pieces that are there whole, so that work goes on."""

from __future__ import annotations

import fcntl
import json
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from av.video.stream import VideoStream

from service.ledger import write_whole
from service.video_colors import to_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from fractions import Fraction
    from pathlib import Path

    from av.container import OutputContainer
    from av.video.frame import VideoFrame
    from numpy.typing import NDArray

    from service.video_clip import Frame

_STATE = "state.json"
# As players need them to jump; each segment begins with one.
_MOST_BETWEEN_KEY_FRAMES = 250


class OtherStartError(Exception):
    """The folder holds segments of something else."""


@dataclass(frozen=True, slots=True)
class Encoder:
    """A video codec and its options; what decides on the bytes beside the pictures."""

    codec: str
    options: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of the painted clip: packets in ``path``, one for each of ``pts``."""

    path: Path
    pts: tuple[int, ...]
    durations: tuple[int, ...]


class Segments:
    """The finished segments of one clip, in a folder, and how the next is written.

    A segment counts from the moment that its list of times is there, which is written last.
    """

    def __init__(self, folder: Path, encoder: Encoder, time_base: Fraction, rate: Fraction) -> None:
        self._folder = folder
        self._encoder = encoder
        self._time_base = time_base
        self._rate = rate
        self.finished: list[Segment] = []
        while (segment := _read(self._next_path())) is not None:
            self.finished.append(segment)

    @property
    def frames(self) -> int:
        """How many pictures are finished."""
        return sum(len(segment.pts) for segment in self.finished)

    def statistics(self) -> NDArray[np.float32]:
        """What the last finished picture was painted with; there must be one."""
        path = _statistics_path(self.finished[-1].path)
        statistics: NDArray[np.float32] = np.fromfile(path, np.float32)
        return statistics

    @contextmanager
    def write(self) -> Iterator[SegmentWriter]:
        """Write the next segment, which counts once its writer was told to finish."""
        path = self._next_path()
        with av.open(str(path), "w", format="matroska") as container:
            yield SegmentWriter(container, path, self._open_stream)
        if (segment := _read(path)) is not None:
            self.finished.append(segment)

    def _next_path(self) -> Path:
        return self._folder / f"{len(self.finished):06}.mkv"

    def _open_stream(
        self, container: OutputContainer, frame: VideoFrame, aspect: Fraction | None
    ) -> VideoStream:
        stream = container.add_stream(
            self._encoder.codec, rate=self._rate, options=dict(self._encoder.options)
        )
        assert isinstance(stream, VideoStream)  # noqa: S101  # what such a codec gives
        stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, "yuv420p"
        context = stream.codec_context
        context.time_base = self._time_base
        # Without B-frames packets come in the order of their times, and segments fit together.
        context.max_b_frames = 0
        context.gop_size = _MOST_BETWEEN_KEY_FRAMES
        context.color_range, context.colorspace = ColorRange.MPEG, Colorspace.ITU709
        context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        if aspect:
            context.sample_aspect_ratio = aspect
        return stream


class SegmentWriter:
    """Encodes the pictures of one segment."""

    def __init__(
        self,
        container: OutputContainer,
        path: Path,
        open_stream: Callable[[OutputContainer, VideoFrame, Fraction | None], VideoStream],
    ) -> None:
        self._container = container
        self._path = path
        self._open_stream = open_stream
        self._stream: VideoStream | None = None
        self._pts: list[int] = []
        self._durations: list[int] = []

    def add(self, source: Frame, painted: NDArray[np.uint8]) -> None:
        """Encode ``painted``, to be shown when ``source`` was."""
        frame = to_frame(painted)
        if self._stream is None:
            self._stream = self._open_stream(self._container, frame, source.aspect)
        self._pts.append(source.pts)
        self._durations.append(source.duration)
        # From 0 on in each segment: the list has the true times.
        frame.pts = source.pts - self._pts[0]
        frame.time_base = self._stream.codec_context.time_base
        self._container.mux(self._stream.encode(frame))

    def finish(self, statistics: NDArray[np.float32]) -> None:
        """Make the segment count; ``statistics`` are those of its last picture."""
        if self._stream is None:
            return
        self._container.mux(self._stream.encode())
        self._container.close()
        statistics.tofile(_statistics_path(self._path))
        times = {"pts": self._pts, "durations": self._durations}
        write_whole(_times_path(self._path), json.dumps(times).encode())


@contextmanager
def held_folder(folder: Path, of: Mapping[str, object], *, anew: bool) -> Iterator[None]:
    """Hold the folder of a clip's segments, made where there is none.

    Args:
        folder: the folder.
        of: what decides on the segments; must be JSON.
        anew: whether to throw away what is there of something else.

    Raises:
        OtherStartError: something else was begun there, or is being written at the moment.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OtherStartError(f"{folder}: another process is at work there") from error
        state, own = folder / _STATE, json.dumps(of, indent=2, sort_keys=True)
        if state.exists() and state.read_text(encoding="utf-8") != own:
            if not anew:
                raise OtherStartError(
                    f"{folder} holds a start with other options, or of another clip; "
                    "remove it, or begin anew with --overwrite"
                )
            state.unlink()
        if not state.exists():
            for path in (*folder.glob("*.json"), *folder.glob("*.mkv"), *folder.glob("*.f32")):
                path.unlink()
            write_whole(state, own.encode())
        yield


def _read(path: Path) -> Segment | None:
    try:
        times = json.loads(_times_path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return Segment(path, tuple(times["pts"]), tuple(times["durations"]))


def _times_path(path: Path) -> Path:
    return path.with_suffix(".json")


def _statistics_path(path: Path) -> Path:
    return path.with_suffix(".f32")
