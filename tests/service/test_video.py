"""Clips: what of them stays, what is painted, and how work goes on that broke off."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from skimage import data as skimage_data

from model_zoo.cards import SHIPPED_ZOO
from service.command_line import main
from service.errors import StylizationError
from service.stylizer import Stylizer
from tests.conftest import service_environment

av = pytest.importorskip("av", reason="the extra video is not installed")

from av.video.reformatter import Interpolation  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

TICKS = 12_800
SAMPLES = 48_000
STEADY = tuple(range(0, 30 * 512, 512))
"""25 frames a second, in ticks."""
UNEVEN = (0, 426, 1066, 1919, 2345, 2985, 3838, 9000, 9100, 9612)
QUICK = {"ATELIER_RUNTIME": "torch"}
"""Which is ready sooner."""
SCENES = ("astronaut", "coffee")


@cache
def scene(name: str) -> Image.Image:
    return Image.fromarray(getattr(skimage_data, name)()).crop((0, 0, 512, 400))


def pictures(count: int, size: tuple[int, int], cut: int | None = None) -> Iterator[NDArray[Any]]:
    """A camera that moves over a photograph, and from picture ``cut`` on over another."""
    photos = [scene(name) for name in SCENES]
    for number in range(count):
        photo = photos[cut is not None and number >= cut]
        left = 2 * (number % 50)
        yield np.asarray(photo.crop((left, 0, left + 412, 400 - left // 2)).resize(size))


def make_clip(
    path: Path,
    pts: Sequence[int] = STEADY,
    size: tuple[int, int] = (96, 64),
    *,
    codec: str = "libx264",
    sound: str | None = "aac",
    pix_fmt: str = "yuv420p",
    rotation: int = 0,
    cut: int | None = None,
    frames: Sequence[Any] | None = None,
    tags: dict[str, int] | None = None,
) -> Path:
    """A clip of photographs and a tone of 440 Hz."""
    with av.open(str(path), "w") as out:
        out.metadata["title"] = "A test"
        # With B-frames, x265 gives the packet of a clip of one frame no time, now and then.
        options = {"libx264": {"crf": "12"}, "libx265": {"x265-params": "log-level=none:bframes=0"}}
        stream = out.add_stream(codec, rate=25, options=options.get(codec, {}))
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        stream.time_base = stream.codec_context.time_base = Fraction(1, TICKS)
        for name, value in (tags or {}).items():
            setattr(stream.codec_context, name, value)
        if rotation:
            stream.set_display_rotation(rotation)
        if sound:
            tone = out.add_stream(sound, rate=SAMPLES, layout="mono")
            tone.metadata["language"] = "eng"
        given = frames if frames is not None else pictures(len(pts), size, cut)
        for time_, picture in zip(pts, given, strict=True):
            frame = picture
            if not isinstance(picture, av.VideoFrame):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = time_, Fraction(1, TICKS)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
        if sound:
            length = (pts[-1] + 512) * SAMPLES // TICKS
            wave = np.sin(np.arange(length) * 2 * np.pi * 440 / SAMPLES) * 0.3
            step = tone.codec_context.frame_size or 1024
            for begin in range(0, length, step):
                samples = wave[begin : begin + step].astype(np.float32)[None]
                sample = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
                sample.sample_rate, sample.pts = SAMPLES, begin
                sample.time_base = Fraction(1, SAMPLES)
                out.mux(tone.encode(sample))
            out.mux(tone.encode())
    return path


@dataclass
class Played:
    """What a player makes of a file: times in seconds."""

    times: list[Fraction]
    frames: list[NDArray[Any]]
    last_duration: Fraction
    rate: Fraction
    sound_times: list[Fraction]
    sound: NDArray[Any]
    metadata: dict[str, str]
    codecs: list[str]
    language: str | None

    @property
    def end(self) -> Fraction:
        return self.times[-1] + self.last_duration


def play(path: Path) -> Played:
    """Decode a file from its first to its last frame."""
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        frames = [frame for packet in container.demux(video) for frame in packet.decode()]
        metadata = dict(container.metadata)
        codecs = [stream.codec_context.name for stream in container.streams]
        rate = video.average_rate
    sounds: list[Any] = []
    language = None
    with av.open(str(path)) as container:
        if container.streams.audio:
            tone = container.streams.audio[0]
            language = tone.language
            sounds = [frame for packet in container.demux(tone) for frame in packet.decode()]
    return Played(
        times=[frame.pts * frame.time_base for frame in frames],
        frames=[frame.to_ndarray(format="rgb24") for frame in frames],
        last_duration=frames[-1].duration * frames[-1].time_base,
        rate=rate,
        sound_times=[frame.pts * frame.time_base for frame in sounds],
        sound=np.concatenate([frame.to_ndarray() for frame in sounds], axis=1)
        if sounds
        else np.empty((0, 0)),
        metadata=metadata,
        codecs=codecs,
        language=language,
    )


@dataclass
class Answer:
    code: int
    line: dict[str, Any]
    err: str


@pytest.fixture
def video(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tiny_zoo: Path
) -> Callable[..., Answer]:
    """Run ``atelier video`` in this process, with the tiny zoo and --json."""
    for name, value in service_environment(tiny_zoo, **QUICK).items():
        if name.startswith("ATELIER_"):
            monkeypatch.setenv(name, value)

    def run(clip: Path, out: Path, *options: str) -> Answer:
        try:
            code = main(["video", str(clip), "-s", "ink", "-o", str(out), "--json", *options])
        except SystemExit as end:  # argparse's
            code = int(str(end.code))
        captured = capfd.readouterr()
        return Answer(code, json.loads(captured.out) if captured.out else {}, captured.err)

    return run


def likeness_db(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Peak signal-to-noise ratio."""
    error = np.mean((one.astype(float) - other.astype(float)) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


# --- what stays


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
@pytest.mark.parametrize(
    "pts",
    [STEADY, UNEVEN, tuple(3000 + time_ for time_ in UNEVEN)],
    ids=["steady", "uneven", "late"],
)
def test_clip_keeps_the_time_of_each_frame_its_length_and_every_sample_of_its_sound(
    video: Callable[..., Answer], tmp_path: Path, pts: tuple[int, ...], suffix: str
) -> None:
    clip = make_clip(tmp_path / f"clip{suffix}", pts)
    answer = video(clip, tmp_path / f"out{suffix}")
    assert (answer.code, answer.line["notes"], answer.line["faults"]) == (0, [], [])
    assert answer.line["frames"] == len(pts)
    before, after = play(clip), play(tmp_path / f"out{suffix}")
    assert after.times == before.times
    assert before.times[0] == pytest.approx(pts[0] / TICKS, abs=0.001)
    assert abs(after.end - before.end) <= Fraction(1, 1000)
    assert float(after.rate) == pytest.approx(float(before.rate), rel=0.05)
    assert after.sound_times == before.sound_times
    np.testing.assert_array_equal(after.sound, before.sound)
    assert after.codecs == before.codecs == ["h264", "aac"]
    assert after.metadata["title"] == "A test"
    assert after.language == "eng"
    assert likeness_db(after.frames[3], before.frames[3]) < 25, "it is painted"
    assert [path.name for path in sorted(tmp_path.iterdir())] == [f"clip{suffix}", f"out{suffix}"]


def test_sound_that_the_container_cannot_hold_is_encoded_anew_and_that_is_said(
    video: Callable[..., Answer], tmp_path: Path
) -> None:
    clip = make_clip(tmp_path / "clip.mkv", sound="pcm_s16le")
    answer = video(clip, tmp_path / "out.webm", "--strength", "0")
    assert answer.code == 0, answer.err
    assert answer.line["notes"] == ["stream 1, sound as pcm_s16le, is now libopus: .webm takes it"]
    before, after = play(clip), play(tmp_path / "out.webm")
    assert after.codecs == ["vp9", "opus"]
    assert after.times == before.times
    assert abs(after.sound.shape[1] - before.sound.shape[1]) < SAMPLES // 25
    middle = after.sound[0, 10_000:34_000].astype(float)
    heard_hz = np.argmax(np.abs(np.fft.rfft(middle))) * SAMPLES / len(middle)
    assert heard_hz == pytest.approx(440, abs=2)
    assert min(map(likeness_db, after.frames, before.frames)) > 28


def test_sound_that_a_muxer_refuses_only_as_it_begins_is_encoded_anew(
    video: Callable[..., Answer], tmp_path: Path
) -> None:
    clip = make_clip(tmp_path / "clip.mkv", STEADY[:5], sound="libopus")
    answer = video(clip, tmp_path / "out.mov")
    assert answer.code == 0, answer.err
    assert answer.line["notes"] == ["stream 1, sound as opus, is now aac: .mov takes it"]
    assert play(tmp_path / "out.mov").codecs == ["h264", "aac"]


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_sound_that_goes_on_after_the_pictures_and_a_long_last_picture_are_no_faults(
    video: Callable[..., Answer], tmp_path: Path, suffix: str
) -> None:
    whole = make_clip(tmp_path / "whole.mkv", (0, 512, 50 * 512))
    clip = tmp_path / f"clip{suffix}"
    with av.open(str(whole)) as source, av.open(str(clip), "w") as target:
        streams = [target.add_stream_from_template(stream) for stream in source.streams]
        for packet in source.demux():
            if packet.size and (packet.stream.index or packet.pts < 1000):
                if not packet.stream.index and packet.pts:
                    packet.duration = 1500
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    answer = video(clip, tmp_path / f"out{suffix}")
    assert (answer.code, answer.line["faults"]) == (0, [])
    before, after = play(clip), play(tmp_path / f"out{suffix}")
    assert len(before.times) == len(after.times) == 2
    assert after.sound.shape == before.sound.shape
    assert after.sound.shape[1] > 2 * SAMPLES


def test_name_that_looks_like_a_protocol_is_a_file(
    video: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_clip(tmp_path / "clip.mp4", STEADY[:2]).rename("12:30.mp4")
    answer = video(Path("12:30.mp4"), Path("take:2.mp4"))
    assert answer.code == 0, answer.err
    assert len(play(tmp_path / "take:2.mp4").times) == 2


def test_clip_is_never_painted_over(video: Callable[..., Answer], tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", STEADY[:2])
    (tmp_path / "link.mp4").symlink_to(clip)
    before = clip.read_bytes()
    for out in (clip, tmp_path / "link.mp4"):
        answer = video(clip, out, "--overwrite")
        assert answer.code == 1
        assert "is the clip itself" in answer.err
    assert clip.read_bytes() == before


def test_subtitles_stay_where_the_container_has_such_and_are_missed_aloud_where_not(
    video: Callable[..., Answer], tmp_path: Path
) -> None:
    clip = add_subtitles(make_clip(tmp_path / "silent.mkv"), tmp_path / "clip.mkv")
    kept = video(clip, tmp_path / "out.mkv")
    assert (kept.code, kept.line["notes"]) == (0, [])
    assert subtitles(tmp_path / "out.mkv") == subtitles(clip) == [(200, b"One"), (700, b"Two")]
    lost = video(clip, tmp_path / "out.mp4")
    assert lost.line["notes"] == ["stream 2, subtitles as srt, is left out: .mp4 has none such"]


def add_subtitles(clip: Path, out: Path) -> Path:
    with av.open(str(clip)) as source, av.open(str(out), "w") as target:
        streams = [target.add_stream_from_template(stream) for stream in source.streams]
        words = target.add_mux_stream("subrip")
        for packet in source.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
        for at_ms, text in ((200, b"One"), (700, b"Two")):
            packet = av.Packet(text)
            packet.stream, packet.time_base = words, Fraction(1, 1000)
            packet.pts = packet.dts = at_ms
            packet.duration = 400
            target.mux(packet)
    return out


def subtitles(path: Path) -> list[tuple[int, bytes]]:
    with av.open(str(path)) as container:
        packets = container.demux(container.streams.subtitles[0])
        return [(packet.pts, bytes(packet)) for packet in packets if packet.pts is not None]


@pytest.mark.parametrize(("width", "height"), [(95, 63), (96, 63), (95, 64)])
def test_odd_side_gains_one_row_that_repeats_the_last(
    video: Callable[..., Answer], tmp_path: Path, width: int, height: int
) -> None:
    clip = make_clip(
        tmp_path / "clip.mkv", STEADY[:5], (width, height), codec="ffv1", pix_fmt="yuv444p"
    )
    assert video(clip, tmp_path / "out.mp4", "--strength", "0", "--quality", "1").code == 0
    before, after = play(clip), play(tmp_path / "out.mp4")
    assert after.frames[0].shape == (64, 96, 3)
    assert likeness_db(after.frames[0][:height, :width], before.frames[0]) > 28
    assert likeness_db(after.frames[0][-1], after.frames[0][-2]) > 20


def test_size_is_bounded_with_even_sides_and_never_grows(
    video: Callable[..., Answer], tmp_path: Path
) -> None:
    clip = make_clip(tmp_path / "clip.mp4", STEADY[:3], (150, 100))
    assert video(clip, tmp_path / "small.mp4", "--max-side", "67").code == 0
    assert play(tmp_path / "small.mp4").frames[0].shape == (44, 68, 3)
    assert video(clip, tmp_path / "same.mp4", "--max-side", "1000").code == 0
    assert play(tmp_path / "same.mp4").frames[0].shape == (100, 150, 3)


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_clip_of_a_turned_camera_is_painted_upright(
    video: Callable[..., Answer], tmp_path: Path, rotation: int
) -> None:
    clip = make_clip(tmp_path / "clip.mp4", STEADY[:3], rotation=rotation)
    assert video(clip, tmp_path / "out.mp4", "--strength", "0").code == 0
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert next(container.decode(video=0)).rotation == 0
    # A player turns it by the same angle, counterclockwise.
    shown = np.rot90(play(clip).frames[1], rotation // 90)
    assert likeness_db(play(tmp_path / "out.mp4").frames[1], shown) > 28


EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
BT601, BT709, BT2020 = 6, 1, 9
PQ, HLG = 16, 18
FULL = 2


@pytest.mark.parametrize(
    ("pix_fmt", "matrix", "tags"),
    [
        ("yuv420p", BT601, {}),
        ("yuv420p", BT709, {"colorspace": BT709}),
        ("yuv420p", BT601, {"color_range": FULL}),
        ("yuvj420p", BT601, {"color_range": FULL}),
        ("yuv420p10le", BT709, {"colorspace": BT709}),
        ("yuv444p", BT709, {"colorspace": BT709}),
    ],
)
def test_colours_stay_whatever_matrix_range_and_depth_they_come_in(
    video: Callable[..., Answer], tmp_path: Path, pix_fmt: str, matrix: int, tags: dict[str, int]
) -> None:
    true = list(pictures(4, (96, 64)))
    frames = [
        av.VideoFrame.from_ndarray(np.ascontiguousarray(each), format="rgb24").reformat(
            format=pix_fmt,
            dst_colorspace=matrix,
            dst_color_range=tags.get("color_range", 1),
            interpolation=EXACT,
        )
        for each in true
    ]
    clip = make_clip(
        tmp_path / "clip.mkv",
        STEADY[:4],
        codec="libx264" if pix_fmt == "yuvj420p" else "ffv1",
        pix_fmt=pix_fmt,
        frames=frames,
        tags=tags,
    )
    assert video(clip, tmp_path / "out.mp4", "--strength", "0", "--quality", "1").code == 0
    with av.open(str(tmp_path / "out.mp4")) as container:
        frame = next(container.decode(video=0))
        assert (frame.format.name, frame.colorspace, frame.color_range) == ("yuv420p", BT709, 1)
        shown = frame.to_ndarray(format="rgb24", src_colorspace=BT709, interpolation=EXACT)
    assert np.abs(shown.astype(int) - true[0]).mean() < 4, "finer colours are lost in 4:2:0"
    assert np.abs(shown.mean(axis=(0, 1)) - true[0].mean(axis=(0, 1))).max() < 1


@pytest.mark.parametrize(("transfer", "white", "grey"), [(PQ, 0.581, 0.43), (HLG, 0.75, 0.45)])
def test_hdr_becomes_a_picture_whose_paper_is_white_and_whose_lamps_are_not_all_of_it(
    tmp_path: Path, video: Callable[..., Answer], transfer: int, white: float, grey: float
) -> None:
    """Codes of BT.2408: paper of 203 cd/m2, and grey of about a seventh of that."""
    picture = np.full((64, 96, 3), round(white * 65535), np.uint16)
    picture[:, :32] = round(grey * 65535)
    picture[:, 64:] = 65535
    frame = av.VideoFrame.from_ndarray(picture, format="rgb48le").reformat(
        format="yuv420p10le", dst_colorspace=BT2020, dst_color_range=1
    )
    tags = {"colorspace": BT2020, "color_trc": transfer, "color_primaries": 9}
    clip = make_clip(
        tmp_path / "clip.mkv",
        (0,),
        codec="libx265",
        pix_fmt="yuv420p10le",
        frames=[frame],
        tags=tags,
    )
    assert video(clip, tmp_path / "out.mp4", "--strength", "0", "--quality", "1").code == 0
    shown = play(tmp_path / "out.mp4").frames[0][32].astype(int)
    dark, paper, lamp = shown[16], shown[48], shown[80]
    assert np.ptp(shown[[16, 48, 80]], axis=1).max() <= 4, "grey stays grey"
    assert 90 <= dark.mean() <= 130
    assert 220 <= paper.mean() <= 240
    assert 245 <= lamp.mean() <= 255


# --- what is painted


def test_frames_are_steady_over_time_but_not_over_a_cut(
    video: Callable[..., Answer], tmp_path: Path
) -> None:
    clip = make_clip(tmp_path / "clip.mkv", STEADY[:12], codec="ffv1", cut=6)
    painted = {}
    for steadiness in ("0", "1"):
        out = tmp_path / f"{steadiness}.mkv"
        assert video(clip, out, "--steadiness", steadiness, "--quality", "0").code == 0
        painted[steadiness] = play(out).frames
    differs = [not np.array_equal(*pair) for pair in zip(*painted.values(), strict=True)]
    assert differs == [False, *[True] * 5, False, *[True] * 5]


def test_options_of_painting_are_heeded(video: Callable[..., Answer], tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mkv", STEADY[:2], codec="ffv1", sound=None)
    source = play(clip).frames[1].astype(float)
    shown = {}
    for name, options in (
        ("whole", ()),
        ("half", ("--strength", "0.5")),
        ("colors", ("--keep-colors",)),
    ):
        assert video(clip, tmp_path / f"{name}.mkv", "--quality", "0", *options).code == 0
        shown[name] = play(tmp_path / f"{name}.mkv").frames[1].astype(float)
    assert likeness_db(shown["half"], (source + shown["whole"]) / 2) > 30
    chroma = {
        name: picture - picture.mean(axis=2, keepdims=True)
        for name, picture in (shown | {"source": source}).items()
    }
    kept, lost = (np.abs(chroma[name] - chroma["source"]).mean() for name in ("colors", "whole"))
    assert kept < lost / 2


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_part_of_a_clip_begins_at_nought_with_the_sound_of_that_part(
    video: Callable[..., Answer], tmp_path: Path, suffix: str
) -> None:
    clip = make_clip(tmp_path / "clip.mp4")
    out = tmp_path / f"out{suffix}"
    assert video(clip, out, "--start", "0.4", "--end", "0.8", "--strength", "0").code == 0
    before, after = play(clip), play(out)
    assert [float(at) for at in after.times] == pytest.approx(
        [n / 25 for n in range(10)], abs=0.001
    )
    assert min(map(likeness_db, after.frames, before.frames[10:20])) > 28
    assert after.sound.shape[1] / SAMPLES == pytest.approx(0.4, abs=0.05)


# --- goes on


def start(zoo: Path, *arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "service.command_line", "video", *map(str, arguments)],
        env=service_environment(zoo, **QUICK),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    ends = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < ends
        time.sleep(0.002)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_clip_that_was_interrupted_goes_on_and_becomes_the_same_file(
    video: Callable[..., Answer], tiny_zoo: Path, tmp_path: Path, number: signal.Signals
) -> None:
    pts = tuple(range(0, 120 * 512, 512))
    clip = make_clip(tmp_path / "clip.mp4", pts, cut=70)
    options = ("--segment-frames", "9", "--steadiness", "0.9")
    assert video(clip, tmp_path / "whole.mp4", *options).line["resumed_frames"] == 0
    out, partial = tmp_path / "out.mp4", tmp_path / "out.mp4.partial"
    with start(tiny_zoo, clip, "-s", "ink", "-o", out, *options) as process:
        wait_for(partial / "000002.json", process)
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    if number == signal.SIGKILL:
        assert process.returncode == -number
    else:
        assert process.returncode == 128 + number
        assert "the same command goes on from there" in errors
    assert not out.exists()
    (partial / "000009.mkv").write_bytes(b"half")  # as if killed while it was written
    resumed = video(clip, out, *options)
    assert resumed.code == 0, resumed.err
    assert 27 <= resumed.line["resumed_frames"] <= 99
    assert resumed.line["resumed_frames"] % 9 == 0
    assert resumed.line["frames"] == 120
    assert out.read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert not partial.exists()


def test_segments_of_other_options_are_neither_mixed_nor_thrown_away_unless_that_is_said(
    video: Callable[..., Answer], tiny_zoo: Path, tmp_path: Path
) -> None:
    clip = make_clip(tmp_path / "clip.mp4", tuple(range(0, 120 * 512, 512)), sound=None)
    out, partial = tmp_path / "out.mp4", tmp_path / "out.mp4.partial"
    with start(tiny_zoo, clip, "-s", "ink", "-o", out, "--segment-frames", "5") as process:
        wait_for(partial / "000001.json", process)
        process.kill()
    begun = sorted(path.name for path in partial.glob("*.json"))
    other = video(clip, out, "--segment-frames", "5", "--strength", "0")
    assert other.code == 1
    assert "holds a start with other options" in other.err
    assert sorted(path.name for path in partial.glob("*.json")) == begun
    assert not out.exists()
    anew = video(clip, out, "--segment-frames", "5", "--strength", "0", "--overwrite")
    assert (anew.code, anew.line["resumed_frames"]) == (0, 0)
    assert min(map(likeness_db, play(out).frames, play(clip).frames)) > 28

    before = out.read_bytes()
    again = video(clip, out)
    assert again.code == 1
    assert "is there already" in again.err
    assert out.read_bytes() == before


# --- what cannot be read


def test_clip_with_a_hole_is_painted_around_it_and_the_hole_is_told(
    video: Callable[..., Answer], tmp_path: Path
) -> None:
    clip = make_clip(tmp_path / "clip.mp4", sound=None)
    with av.open(str(clip)) as container:
        video_stream = container.streams.video[0]
        places = [
            (packet.pos, packet.size) for packet in container.demux(video_stream) if packet.size
        ]
    data = bytearray(clip.read_bytes())
    for place, size in places[9:12]:
        data[place : place + size] = b"\xff" * size
    clip.write_bytes(data)
    answer = video(clip, tmp_path / "out.mp4")
    assert answer.code == 1
    assert answer.line["state"] == "painted"
    assert "damaged" in answer.line["faults"][0]
    played = play(tmp_path / "out.mp4")
    assert 20 <= answer.line["frames"] == len(played.times) < 30
    assert played.times[-1] == Fraction(STEADY[-1], TICKS)


def test_clip_that_is_cut_short_is_painted_up_to_there(
    video: Callable[..., Answer], tmp_path: Path
) -> None:
    pts = tuple(range(0, 100 * 512, 512))
    clip = make_clip(tmp_path / "clip.mkv", pts)
    data = clip.read_bytes()
    clip.write_bytes(data[: len(data) // 2])
    answer = video(clip, tmp_path / "out.mkv")
    assert answer.code == 1
    assert any("ends after" in fault or "breaks off" in fault for fault in answer.line["faults"])
    played = play(tmp_path / "out.mkv")
    assert 20 <= len(played.times) == answer.line["frames"] <= 80
    assert played.sound.shape[1] > SAMPLES // 2


def test_file_that_is_no_clip_is_refused_in_one_line(
    video: Callable[..., Answer], tmp_path: Path
) -> None:
    (tmp_path / "words.mp4").write_text("no clip at all")
    (tmp_path / "empty.mp4").write_bytes(b"")
    with av.open(str(tmp_path / "tone.mp4"), "w") as out:
        tone = out.add_stream("aac", rate=SAMPLES, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = SAMPLES
        out.mux(tone.encode(frame))
        out.mux(tone.encode())
    for name, words in (
        ("words.mp4", "cannot be read as a clip: Invalid data"),
        ("empty.mp4", "cannot be read as a clip"),
        ("gone.mp4", "cannot be read as a clip: No such file or directory"),
        ("tone.mp4", "has no moving pictures"),
    ):
        answer = video(tmp_path / name, tmp_path / "out.mp4")
        assert answer.code == 1
        assert answer.line["state"] == "failed"
        assert words in answer.err
        assert len(answer.err.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.glob("out*")) == []


def test_usage_that_makes_no_sense_is_said_before_anything_is_made(
    video: Callable[..., Answer], tmp_path: Path
) -> None:
    clip = make_clip(tmp_path / "clip.mp4", STEADY[:2])
    for out, options, words in (
        ("out.avi", (), "none of .mp4"),
        (".", (), "none of .mp4"),
        ("out.mp4", ("--start", "1/0"), "1/0 is no number"),
        ("out.mp4", ("--start", "2", "--end", "1"), "does not come after"),
        ("out.mp4", ("--max-side", "5000"), "exceeds 4096"),
        ("out.mp4", ("--quality", "52"), "invalid choice"),
        ("out.mp4", ("-s", "oil"), "no style 'oil'"),
    ):
        answer = video(clip, tmp_path / out, *options)
        assert answer.code == 2
        assert words in answer.err
    nothing = video(clip, tmp_path / "out.mp4", "--start", "50")
    assert nothing.code == 1
    assert "none in that part" in nothing.err
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_missing_package_is_named_with_the_extra_that_brings_it(
    video: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [name for name in sys.modules if name.startswith("service.video")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.delattr("service.video", raising=False)
    monkeypatch.setitem(sys.modules, "av", None)
    answer = video(tmp_path / "clip.mp4", tmp_path / "out.mp4")
    assert answer.code == 3
    assert "this needs av, which is not installed; pip install 'atelier[video]'" in answer.err


def test_frame_that_cannot_be_painted_is_a_fault_of_the_clip_and_keeps_what_is_done(
    video: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = make_clip(tmp_path / "clip.mp4", STEADY[:9], sound=None)
    run, painted = Stylizer.run, 0

    def fail(stylizer: Stylizer, jobs: Sequence[Any]) -> list[Any]:
        nonlocal painted
        painted += 1
        return [StylizationError("no paint left")] if painted == 6 else run(stylizer, jobs)

    monkeypatch.setattr(Stylizer, "run", fail)
    answer = video(clip, tmp_path / "out.mp4", "--segment-frames", "3")
    assert (answer.code, answer.line["state"]) == (1, "failed")
    assert "clip.mp4: no paint left" in answer.err
    again = video(clip, tmp_path / "out.mp4", "--segment-frames", "3")
    assert (again.code, again.line["resumed_frames"]) == (0, 3)


@pytest.mark.slow
def test_ten_seconds_of_360p_keep_length_rate_and_sound(
    video: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ATELIER_RUNTIME")
    monkeypatch.delenv("ATELIER_MODEL_THREADS")
    pts = tuple(range(0, 250 * 512, 512))
    clip = make_clip(tmp_path / "clip.mp4", pts, (640, 360), cut=125)
    shipped = ("--zoo", str(SHIPPED_ZOO), "-s", "starry-night")
    answer = video(clip, tmp_path / "out.mp4", *shipped)
    assert answer.code == 0, answer.err
    before, after = play(clip), play(tmp_path / "out.mp4")
    assert after.frames[0].shape == (360, 640, 3)
    assert after.times == before.times
    assert after.end == before.end == 10
    assert after.rate == before.rate == 25
    assert after.sound_times == before.sound_times
    np.testing.assert_array_equal(after.sound, before.sound)
