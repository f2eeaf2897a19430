"""Join: painted segments and all else of the clip become one file, without encoding again."""

from __future__ import annotations

import heapq
import io
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import av
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.error import FFmpegError
from av.subtitles.stream import SubtitleStream
from av.video.stream import VideoStream

from service.video_clip import painted_stream
from service.video_segments import Encoder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from fractions import Fraction
    from pathlib import Path

    from av.audio.frame import AudioFrame
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet
    from av.stream import Stream

    from service.video_clip import Clip, Span
    from service.video_segments import Segment


@dataclass(frozen=True, slots=True)
class Container:
    """What a file of one suffix holds: which codecs, the first that is there, and its options."""

    video_codecs: tuple[str, ...]
    audio_codec: str
    options: dict[str, str] = field(default_factory=dict)


# The index first, so that players on the web begin at once; and start times to a 90,000th of a
# second rather than to a thousandth.
_MOV = {"movflags": "+faststart", "movie_timescale": "90000"}
_H264 = ("libx264", "mpeg4")
CONTAINERS = {
    ".mp4": Container(_H264, "aac", _MOV),
    ".m4v": Container(_H264, "aac", _MOV),
    ".mov": Container(_H264, "aac", _MOV),
    ".mkv": Container(_H264, "aac"),
    ".webm": Container(("libvpx-vp9",), "libopus"),
}
"""By the suffix of the file to write."""

_FORMATS = {".mkv": "matroska", ".m4v": "mp4"}
_OPUS_RATE = 48_000


def choose_encoder(suffix: str, quality: int) -> Encoder:
    """The encoder of a container; ``quality`` is 0 (lossless, huge) to 51, as x264 counts it."""
    codec = next(name for name in CONTAINERS[suffix].video_codecs if name in av.codecs_available)
    if codec == "mpeg4":  # whose scale is another, from 1 to 31
        return Encoder(codec, {"qscale": str(max(quality // 5, 1)), "flags": "+qscale"})
    if codec == "libvpx-vp9":
        return Encoder(codec, {"crf": str(quality), "b": "0", "row-mt": "1", "cpu-used": "4"})
    return Encoder(codec, {"crf": str(quality), "preset": "medium"})


def join(segments: Sequence[Segment], clip: Clip, path: Path, out: Path, suffix: str) -> list[str]:
    """Write ``out`` of the segments, and of all else in the file: sound, subtitles, metadata.

    Args:
        segments: at least one.
        clip: what they were painted of.
        path: the file of that.
        out: the file to write, of whatever name.
        suffix: which of the ``CONTAINERS`` it is.

    Returns:
        A sentence for each stream that is not, or not quite, what it was.
    """
    notes: list[str] = []
    with (
        av.open(str(path), metadata_errors="replace") as source,
        av.open(str(segments[0].path)) as first,
        av.open(
            str(out),
            "w",
            format=_format(suffix),
            options=CONTAINERS[suffix].options,
        ) as target,
    ):
        target.metadata.update(source.metadata)
        video = target.add_stream_from_template(first.streams.video[0])
        video.time_base = clip.time_base
        video.codec_context.framerate = clip.rate
        tracks: dict[int, _Track] = {}
        for stream in source.streams:
            track = _track_of(stream, target, suffix, clip.span, notes)
            if track is not None:
                track.out.metadata.update(stream.metadata)
                tracks[stream.index] = track
        if clip.span.is_whole:
            target.set_chapters(source.chapters())
        painted = _painted_packets(segments, video, clip.time_base)
        others = _other_packets(source, tracks)
        for packet in heapq.merge(painted, others, key=_decoding_time):
            target.mux(packet)
    return notes


def _track_of(
    stream: Stream, target: OutputContainer, suffix: str, span: Span, notes: list[str]
) -> _Track | None:
    """What becomes of one stream of the clip; None where nothing does, which is noted."""
    if isinstance(stream, VideoStream):
        if stream is not painted_stream(stream.container):
            notes.append(f"stream {stream.index}, a second picture, is left out")
        return None
    if not isinstance(stream, AudioStream | SubtitleStream):
        notes.append(f"stream {stream.index}, of {stream.type}, is left out")
        return None
    name = stream.codec_context.name
    if _can_hold(suffix, stream):
        return _Track(target.add_stream_from_template(stream), span)
    if isinstance(stream, AudioStream):
        codec = CONTAINERS[suffix].audio_codec
        notes.append(f"stream {stream.index}, sound as {name}, is now {codec}: {suffix} takes it")
        return _EncodedTrack(stream, target, codec, span)
    notes.append(f"stream {stream.index}, subtitles as {name}, is left out: {suffix} has none such")
    return None


def _can_hold(suffix: str, stream: AudioStream | SubtitleStream) -> bool:
    """Whether such a file takes ``stream`` as it is; some muxers refuse only as they begin."""
    with av.open(io.BytesIO(), "w", format=_format(suffix)) as trial:
        try:
            trial.add_stream_from_template(stream)
            trial.start_encoding()
        except (ValueError, FFmpegError):
            return False
    return True


def _format(suffix: str) -> str:
    return _FORMATS.get(suffix, suffix[1:])


class _Track:
    """A stream whose packets are copied."""

    def __init__(self, out: Stream, span: Span) -> None:
        self.out = out
        self._span = span

    def take(self, packet: Packet[Any]) -> Iterator[Packet[Any]]:
        """Give what is to be written for ``packet``."""
        time = packet.dts if packet.pts is None else packet.pts
        if time is None or time * packet.time_base not in self._span:
            return
        shift = round(self._span.offset_s / packet.time_base)
        if packet.pts is not None:
            packet.pts -= shift
        if packet.dts is not None:
            packet.dts -= shift
        packet.stream = self.out
        yield packet


class _EncodedTrack(_Track):
    """Sound that is encoded anew."""

    def __init__(
        self, source: AudioStream, target: OutputContainer, codec: str, span: Span
    ) -> None:
        rate = _OPUS_RATE if codec == "libopus" else source.codec_context.sample_rate
        out = target.add_stream(codec, rate=rate)
        assert isinstance(out, AudioStream)  # noqa: S101  # what such a codec gives
        out.codec_context.layout = source.codec_context.layout
        super().__init__(out, span)
        self._encoder = out
        self._resampler: AudioResampler | None = None

    def take(self, packet: Packet[Any]) -> Iterator[Packet[Any]]:
        """Decode and encode; the empty packet at the end brings what was held back."""
        frames: list[AudioFrame | None] = []
        with suppress(FFmpegError):  # as a player would go on
            frames += cast("list[AudioFrame]", packet.decode())
        if is_last := not packet.size:
            frames.append(None)
        for frame in frames:
            if frame is not None:
                if frame.pts is None or frame.time_base is None:
                    continue
                if frame.pts * frame.time_base not in self._span:
                    continue
                frame.pts -= round(self._span.offset_s / frame.time_base)
            for ready in self._resample(frame):
                yield from self._encoder.encode(ready)
        if is_last:
            yield from self._encoder.encode(None)

    def _resample(self, frame: AudioFrame | None) -> list[AudioFrame]:
        if self._resampler is None:
            context = self._encoder.codec_context
            context.open()
            self._resampler = AudioResampler(
                context.format, context.layout, context.sample_rate, context.frame_size or None
            )
        return self._resampler.resample(frame)


def _painted_packets(
    segments: Sequence[Segment], video: VideoStream, time_base: Fraction
) -> Iterator[Packet[Any]]:
    for segment in segments:
        with av.open(str(segment.path)) as container:
            stream = container.streams.video[0]
            packets = (packet for packet in container.demux(stream) if packet.size)
            for packet, pts, duration in zip(packets, segment.pts, segment.durations, strict=True):
                packet.time_base = time_base
                packet.pts = packet.dts = pts
                packet.duration = duration
                packet.stream = video
                yield packet


def _other_packets(source: InputContainer, tracks: Mapping[int, _Track]) -> Iterator[Packet[Any]]:
    if not tracks:
        return
    with suppress(FFmpegError):  # where the clip breaks off, of which the pictures have told
        for packet in source.demux([source.streams[index] for index in tracks]):
            yield from tracks[packet.stream.index].take(packet)


def _decoding_time(packet: Packet[Any]) -> Fraction:
    time = packet.pts if packet.dts is None else packet.dts
    return (time or 0) * packet.time_base
