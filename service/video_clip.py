"""Clip: a video file as it is read, frame by frame, as far as it can be read."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING

import av
from av.codec.context import ThreadType
from av.error import FFmpegError
from av.stream import Disposition

from service.video_colors import fitting_size, to_pixels

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np
    from av.container import InputContainer
    from av.container.core import Container
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

_SHORTER_BY_S = 1.0
_CLOCK = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)")


class ClipError(Exception):
    """The file holds no pictures that can be read; the message says what it is instead."""


@dataclass(frozen=True, slots=True)
class Span:
    """From when to when, in seconds of the clip's own clock."""

    start_s: Fraction | None = None
    end_s: Fraction | None = None

    def __contains__(self, at_s: Fraction) -> bool:
        return not self.begins_after(at_s) and not self.ends_before(at_s)

    def begins_after(self, at_s: Fraction) -> bool:
        """Whether that moment comes too early."""
        return self.start_s is not None and at_s < self.start_s

    def ends_before(self, at_s: Fraction) -> bool:
        """Whether that moment comes too late."""
        return self.end_s is not None and at_s >= self.end_s

    @property
    def is_whole(self) -> bool:
        """Whether it is all of the clip."""
        return self == Span()

    @property
    def offset_s(self) -> Fraction:
        """What is taken from all times, so that what is cut out begins at 0."""
        return self.start_s or Fraction(0)


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A picture, uint8 (H, W, 3) sRGB, and when it is shown, in units of the clip's time base.

    ``aspect`` is that of a pixel, where it is known.
    """

    pixels: NDArray[np.uint8]
    pts: int
    duration: int
    at_s: float
    aspect: Fraction | None


@dataclass(slots=True)
class Faults:
    """What could not be read, one sentence a kind."""

    damaged_packets: int = 0
    late_frames: int = 0
    broke_off: str = ""

    def sentences(self) -> list[str]:
        """All of them, each with its number."""
        parts = []
        if self.damaged_packets:
            parts.append(f"{self.damaged_packets} damaged packets gave no picture")
        if self.late_frames:
            parts.append(f"{self.late_frames} pictures came out of order and were left out")
        if self.broke_off:
            parts.append(self.broke_off)
        return parts


@dataclass(slots=True, eq=False)
class Clip:
    """The pictures of an open file; ``faults`` grows as they are read."""

    container: InputContainer
    stream: VideoStream
    time_base: Fraction
    span: Span
    max_side_px: int | None
    faults: Faults = field(default_factory=Faults)
    _size: tuple[int, int] | None = None

    @classmethod
    @contextmanager
    def open(cls, path: Path, span: Span, max_side_px: int | None) -> Iterator[Clip]:
        """Open a file.

        Raises:
            ClipError: it cannot be read, or has no pictures.
        """
        try:
            container = av.open(str(path), metadata_errors="replace")
        except (FFmpegError, OSError) as error:
            raise ClipError(f"cannot be read as a clip: {error.strerror or error}") from error
        with container:
            stream = painted_stream(container)
            if stream is None or stream.time_base is None:
                raise ClipError("has no moving pictures")
            stream.thread_type = ThreadType.AUTO
            yield cls(container, stream, stream.time_base, span, max_side_px)

    @property
    def rate(self) -> Fraction:
        """Frames a second, on average."""
        return self.stream.average_rate or self.stream.guessed_rate or Fraction(25)

    @property
    def pictures_end_s(self) -> float | None:
        """When the last picture ends, where the file says it of the pictures by themselves."""
        if self.stream.duration is not None:
            begins = self.stream.start_time or 0
            return float((begins + self.stream.duration) * self.time_base)
        # As Matroska has it: 00:01:02.345000000.
        if written := _CLOCK.fullmatch(self.stream.metadata.get("DURATION", "")):
            hours, minutes, seconds = written.groups()
            return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
        return None

    @property
    def end_s(self) -> float | None:
        """When the clip ends, as far as the file says it."""
        if self.pictures_end_s is not None or self.container.duration is None:
            return self.pictures_end_s
        return self.container.duration / 1e6

    @property
    def expected_frames(self) -> int | None:
        """About how many frames there will be, where that can be known."""
        if self.span.is_whole and self.stream.frames:
            return self.stream.frames
        if self.end_s is None:
            return None
        end_s = self.end_s if self.span.end_s is None else float(self.span.end_s)
        length_s = min(end_s, self.end_s) - float(self.span.offset_s)
        return max(round(length_s * self.rate), 0)

    def frames(self, skip: int) -> Iterator[Frame]:
        """Give the frames of the span from the one before number ``skip`` on.

        All before are decoded as well, which is little beside painting them: a decoder that starts
        anywhere else gives what it likes.

        Raises:
            ClipError: there is none at all.
        """
        number, last_pts, duration = 0, None, 0
        for decoded in self._decoded():
            pts = decoded.pts
            if pts is None:
                pts = 0 if last_pts is None else last_pts + duration
            duration = decoded.duration or max(round(1 / self.rate / self.time_base), 1)
            if last_pts is not None and pts <= last_pts:
                self.faults.late_frames += 1
                continue
            last_pts = pts
            at_s = pts * self.time_base
            if self.span.ends_before(at_s):
                break
            if not self.span.begins_after(at_s):
                number += 1
                if number >= skip:
                    yield self._frame(decoded, pts, duration)
        else:
            self._compare_length(None if last_pts is None else last_pts + duration)
        if not number:
            raise ClipError("there is no picture that can be read, or none in that part")

    def _frame(self, decoded: VideoFrame, pts: int, duration: int) -> Frame:
        if self._size is None:  # those that follow may have another
            self._size = fitting_size(decoded.width, decoded.height, self.max_side_px)
        shift = round(self.span.offset_s / self.time_base)
        aspect = self.stream.sample_aspect_ratio or None
        if aspect and decoded.rotation % 180:
            aspect = 1 / aspect
        at_s = float(pts * self.time_base)
        return Frame(to_pixels(decoded, *self._size), pts - shift, duration, at_s, aspect)

    def _decoded(self) -> Iterator[VideoFrame]:
        packets = self.container.demux(self.stream)
        while True:
            try:
                packet = next(packets, None)
            except FFmpegError as error:
                self.faults.broke_off = f"it breaks off: {error.strerror}"
                packet = None
            try:
                # Without a packet: what the decoder holds back.
                yield from self.stream.codec_context.decode(packet)
            except EOFError:
                return  # the last packet had said so already
            except FFmpegError:
                self.faults.damaged_packets += 1
            if packet is None:
                return

    def _compare_length(self, end_pts: int | None) -> None:
        """A file that was cut short may end without an error."""
        if end_pts is None or self.pictures_end_s is None or self.faults.broke_off:
            return
        ends_s = float(end_pts * self.time_base)
        if self.pictures_end_s - ends_s > _SHORTER_BY_S:
            self.faults.broke_off = (
                f"it ends after {ends_s:.1f} s of the {self.pictures_end_s:.1f} s that it promises"
            )


def painted_stream(container: Container) -> VideoStream | None:
    """The stream that is painted: the first that is no picture of a cover."""
    for stream in container.streams.video:
        if Disposition.attached_pic not in stream.disposition:
            return stream
    return None
