"""The command line: `main` in this process, and real ones where signals or a socket matter."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from PIL import Image
from skimage import data as skimage_data

import service.command_line
from service.bulk import Errand, paint_all
from service.command_line import main
from service.commands import stylize, video
from service.folders import Photograph, find_photographs, stems_of
from service.ledger import FOLDER, Ledger, write_whole
from service.schemas import StylizeParameters
from service.workshops import CannotPaintError, Painting
from tests.conftest import PHOTOGRAPHS, service_environment

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Iterator

    from tests.conftest import ServerProcess

MANY = 200
QUICK = {"ATELIER_MODEL_THREADS": "1", "ATELIER_RUNTIME": "torch"}
"""What is ready sooner."""
BROKEN = ("broken.jpg", "empty.png", "words.jpg")


@dataclass
class Answer:
    code: int
    out: bytes
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def summary(self) -> dict[str, Any]:
        return self.lines[-1]["summary"]


@pytest.fixture
def atelier(
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
    tiny_zoo: Path,
) -> Callable[..., Answer]:
    """Run a command in this process, as if alone; ``stdin`` and variables by name."""

    def run(*arguments: str | Path, stdin: bytes = b"", **variables: str) -> Answer:
        with monkeypatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("ATELIER")]:
                patch.delenv(name)
            for name, value in (QUICK | {"ATELIER_ZOO": str(tiny_zoo)}).items():
                patch.setenv(name, value)
            for name, value in variables.items():
                patch.setenv(name, value)
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
            try:
                code = main([str(argument) for argument in arguments])
            except SystemExit as end:  # argparse's
                code = int(str(end.code))
        captured = capfdbinary.readouterr()
        return Answer(code, captured.out, captured.err.decode())

    return run


@cache
def photograph(name: str) -> Any:
    return getattr(skimage_data, name)()


def crop(number: int, width: int = 48, height: int = 32) -> Image.Image:
    """A small photograph, another one for each number."""
    picture = photograph(PHOTOGRAPHS[number % 3])
    top, left = (17 * number) % 200, (29 * number) % 300
    return Image.fromarray(picture[top : top + height, left : left + width])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with six photographs, in two folders, and what is none."""
    folder = tmp_path / "photos"
    (folder / "so né" / "deep").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    crop(0).save(folder / "one.jpg")
    crop(1).save(folder / "a b.PNG")
    crop(2).save(folder / "so né" / "two.webp")
    crop(3).save(folder / "so né" / "same.jpg")
    crop(4).save(folder / "so né" / "same.png")
    crop(5).save(folder / "so né" / "deep" / "three.gif")
    crop(6).save(folder / ".hidden" / "four.jpg")
    crop(6).save(folder / ".five.jpg")
    (folder / "notes.txt").write_text("no picture")
    return folder


def spoil(folder: Path) -> None:
    whole = (folder / "one.jpg").read_bytes()
    (folder / "broken.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "words.jpg").write_text("no picture at all")


def paintings(folder: Path) -> dict[str, bytes]:
    """Every file below but those that the command keeps for itself."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0] != FOLDER
    }


# --- what is painted


@pytest.mark.parametrize("where", ["here", "server"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_side": "40", "format": "png"},
        {"strength": "0.4", "keep_colors": "true", "quality": "55"},
        {"format": "webp", "quality": "70", "seed": "3"},
    ],
    ids=["plain", "small", "faint", "webp"],
)
def test_stylize_gives_the_same_bytes_as_the_service(
    atelier: Callable[..., Answer],
    server: ServerProcess,
    photo_jpeg: bytes,
    tmp_path: Path,
    options: dict[str, str],
    where: str,
) -> None:
    answer = httpx.post(
        f"{server.url}/stylize",
        params={"style": "ink"} | options,
        content=photo_jpeg,
        headers={"Content-Type": "image/jpeg"},
    )
    assert answer.status_code == 200
    (tmp_path / "photo.jpg").write_bytes(photo_jpeg)
    words = [
        word
        for name, value in options.items()
        for word in (f"--{name.replace('_', '-')}", *(() if value == "true" else (value,)))
    ]
    service = ("--server", server.url) if where == "server" else ()
    painted = atelier(
        "stylize",
        tmp_path / "photo.jpg",
        "-s",
        "ink",
        "-o",
        f"{tmp_path}/",
        *words,
        *service,
        ATELIER_RUNTIME="auto",
    )
    suffix = answer.headers["content-type"].removeprefix("image/").replace("jpeg", "jpg")
    if suffix == "jpg":  # photo.jpg itself is in the way, and stays
        assert (painted.code, (tmp_path / "photo.jpg").read_bytes()) == (1, photo_jpeg)
        painted = atelier(
            "stylize",
            tmp_path / "photo.jpg",
            "-s",
            "ink",
            "-o",
            tmp_path / "out",
            *words,
            *service,
            ATELIER_RUNTIME="auto",
        )
        assert (tmp_path / "out" / "photo.jpg").read_bytes() == answer.content
    else:
        assert (tmp_path / f"photo.{suffix}").read_bytes() == answer.content
    assert painted.code == 0, painted.err


def test_folder_is_mirrored_and_no_painting_takes_the_place_of_another(
    atelier: Callable[..., Answer], photos: Path, tmp_path: Path
) -> None:
    answer = atelier("stylize", photos, "-s", "ink", "-o", tmp_path / "out", "--json")
    assert answer.code == 0, answer.err
    made = {
        "one.jpg": "one.jpg",
        "a b.PNG": "a b.png",
        "so né/two.webp": "so né/two.webp",
        "so né/same.jpg": "so né/same.jpg.jpg",
        "so né/same.png": "so né/same.png.png",
        "so né/deep/three.gif": "so né/deep/three.jpg",
    }
    assert set(paintings(tmp_path / "out")) == set(made.values())
    lines = {line["photo"]: line for line in answer.lines[:-1]}
    assert lines == {
        str(photos / photo): {
            "photo": str(photos / photo),
            "style": "ink",
            "state": "painted",
            "out": str(tmp_path / "out" / out),
        }
        for photo, out in made.items()
    }
    assert answer.summary.items() >= {"painted": 6, "present": 0, "failed": 0}.items()


@pytest.mark.parametrize(
    ("names", "stems"),
    [
        (["a.jpg", "b.png"], {"a.jpg": "a", "b.png": "b"}),
        (["a.jpg", "A.png"], {"a.jpg": "a.jpg", "A.png": "A.png"}),
        (
            ["b.jpg", "b.png", "b.jpg.gif"],
            {"b.jpg": "b.jpg", "b.png": "b.png", "b.jpg.gif": "b.jpg.gif"},
        ),
        (["plain", "a.tar.jpg"], {"plain": "plain", "a.tar.jpg": "a.tar"}),
    ],
)
def test_paintings_are_called_like_their_photographs_unless_two_would_be_called_the_same(
    names: list[str], stems: dict[str, str]
) -> None:
    assert stems_of(names) == stems


def test_several_paths_keep_their_names_and_several_styles_have_a_folder_each(
    atelier: Callable[..., Answer], photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    answer = atelier(
        "stylize", photos / "so né", photos / "one.jpg", "--all-styles", "-o", out, "--format=webp"
    )
    assert answer.code == 0, answer.err
    names = ["one", "so né/two", "so né/same.jpg", "so né/same.png", "so né/deep/three"]
    painted = paintings(out)
    assert set(painted) == {f"{style}/{name}.webp" for style in ("ink", "wash") for name in names}
    assert painted["ink/one.webp"] != painted["wash/one.webp"]


def test_standard_input_becomes_standard_output_and_nothing_else_is_written_there(
    atelier: Callable[..., Answer], photo_jpeg: bytes, tmp_path: Path
) -> None:
    (tmp_path / "photo.jpg").write_bytes(photo_jpeg)
    painted = atelier("stylize", "-", "-s", "ink", "-o", "-", stdin=photo_jpeg)
    assert (painted.code, painted.err) == (0, "")
    assert Image.open(io.BytesIO(painted.out)).size == (96, 64)
    to_file = atelier("stylize", "-", "-s", "ink", "-o", tmp_path / "o.jpg", stdin=photo_jpeg)
    assert (to_file.code, to_file.out) == (0, b"")
    assert (tmp_path / "o.jpg").read_bytes() == painted.out
    from_file = atelier("stylize", tmp_path / "photo.jpg", "-s", "ink", "-o", "-")
    assert from_file.out == painted.out
    nothing = atelier("stylize", "-", "-s", "ink", "-o", "-")
    assert (nothing.code, nothing.out) == (1, b"")
    assert nothing.err == "-: image: is empty\n"


def test_file_is_written_in_the_format_that_it_is_named_for(
    atelier: Callable[..., Answer], photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "painted.PNG"
    assert atelier("stylize", photos / "one.jpg", "-s", "ink", "-o", out).code == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["painted.PNG", "photos"]


def test_pictures_that_do_not_fit_beside_each_other_wait_for_their_turn(
    atelier: Callable[..., Answer], photos: Path, tmp_path: Path
) -> None:
    answer = atelier(
        "stylize", photos, "-s", "ink", "-o", tmp_path / "out", ATELIER_MAX_IN_FLIGHT_PIXELS="1600"
    )
    assert answer.code == 0, answer.err


# --- what cannot be painted


@pytest.mark.parametrize("where", ["here", "server"])
def test_what_cannot_be_read_is_named_with_the_service_s_own_words_and_the_rest_is_painted(
    atelier: Callable[..., Answer],
    photos: Path,
    tmp_path: Path,
    server: ServerProcess,
    where: str,
) -> None:
    spoil(photos)
    (photos / "gone.jpg").symlink_to("nowhere")
    service = ("--server", server.url) if where == "server" else ()
    arguments = ("stylize", photos, "-s", "ink", "-o", tmp_path / "out", *service)
    answer = atelier(*arguments, "--json")
    assert answer.code == 1
    assert len(paintings(tmp_path / "out")) == 6
    failures = {
        Path(line["photo"]).name: line["error"]
        for line in answer.lines[:-1]
        if line["state"] == "failed"
    }
    kinds = {
        "broken.jpg": ("urn:atelier:error:corrupt-image", 422),
        "empty.png": ("urn:atelier:error:invalid-parameter", 422),
        "words.jpg": ("urn:atelier:error:unsupported-media-type", 415),
        "gone.jpg": ("urn:atelier:command-line:unreadable", None),
    }
    assert {name: (each["type"], each["status"]) for name, each in failures.items()} == kinds
    assert failures["empty.png"]["detail"] == "image: is empty"
    words = answer.err.splitlines()
    assert f"{photos / 'gone.jpg'}: cannot be read: No such file or directory" in words
    assert words[-1].startswith("6 painted, 0 there already, 4 failed, in ")
    again = atelier(*arguments, "--json")
    assert again.summary.items() >= {"painted": 0, "present": 6, "failed": 4}.items()


def test_failure_that_each_style_meets_is_said_once(
    atelier: Callable[..., Answer], tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "words.jpg").write_text("no picture")
    answer = atelier("stylize", tmp_path / "photos", "--all-styles", "-o", tmp_path / "out")
    assert answer.code == 1
    words, summary = answer.err.splitlines()
    assert "words.jpg: the bytes are not a picture" in words
    assert summary.startswith("0 painted, 0 there already, 2 failed")


def test_pipe_in_a_folder_is_not_waited_for(photos: Path, tmp_path: Path) -> None:
    os.mkfifo(photos / "pipe.jpg")
    (photos / "gone.jpg").symlink_to("nowhere")
    found = find_photographs([photos], tmp_path / "out", pytest.fail)
    names = {each.path.name for each in found}
    assert "pipe.jpg" not in names
    assert names >= {"one.jpg", "gone.jpg"}


def test_name_that_is_too_long_is_said_like_other_faults(
    atelier: Callable[..., Answer], photos: Path, tmp_path: Path
) -> None:
    name = "x" * 300 + ".jpg"
    for photo, out, words in (
        (photos / name, tmp_path / "o.jpg", "cannot be read: File name too long"),
        (photos / "one.jpg", tmp_path / name, "cannot be written: File name too long"),
    ):
        answer = atelier("stylize", photo, "-s", "ink", "-o", out)
        assert answer.code == 1
        assert words in answer.err


def test_photograph_larger_than_a_body_may_be_is_refused_without_being_painted(
    atelier: Callable[..., Answer], photos: Path, tmp_path: Path
) -> None:
    (photos / "one.jpg").write_bytes((photos / "one.jpg").read_bytes() + bytes(5000))
    answer = atelier(
        "stylize", photos / "one.jpg", "-s", "ink", "-o", tmp_path, ATELIER_MAX_BODY_BYTES="4096"
    )
    assert answer.code == 1
    assert "one.jpg: it is larger than the limit of 0.0 MiB" in answer.err


def test_fault_nobody_thought_of_costs_one_picture_and_not_the_run(tmp_path: Path) -> None:
    class Workshop(StubWorkshop):
        async def paint(self, image: bytes, parameters: StylizeParameters) -> Painting:
            if image == b"1":
                raise RuntimeError("unheard of")
            return await super().paint(image, parameters)

    report = StubReport()
    with Ledger.open(tmp_path / "out") as ledger:
        work = paint_all(errands(tmp_path, 3), Workshop(), ledger, report, overwrite=False)
        asyncio.run(work)
    assert report.states == {"0": "painted", "1": "failed", "2": "painted"}
    assert report.details == ["RuntimeError: unheard of"]


# --- started again


def make_many(folder: Path) -> None:
    for number in range(MANY):
        place = folder / ("häuser am see" if number % 4 else ".") / f"photo {number}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        crop(number, 40, 28).save(place)
    crop(0).save(folder / "one.jpg")
    spoil(folder)


def start(
    zoo: Path, *arguments: str | Path, **options: Any
) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    return subprocess.Popen(
        [sys.executable, "-m", "service.command_line", *map(str, arguments)],
        env=service_environment(zoo, **QUICK),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_run_that_was_killed_does_only_what_is_missing_and_gives_the_same_bytes(
    atelier: Callable[..., Answer], tiny_zoo: Path, tmp_path: Path
) -> None:
    photos, whole, out = tmp_path / "photos", tmp_path / "whole", tmp_path / "out"
    make_many(photos)
    command = ("stylize", photos, "-s", "ink", "--json", "-o")
    assert atelier(*command, whole).summary["painted"] == MANY + 1
    with start(tiny_zoo, *command, out, "--jobs", "2") as process:
        assert process.stdout is not None
        for _ in range(40):
            process.stdout.readline()
        process.kill()
    assert process.returncode == -signal.SIGKILL
    before = paintings(out)
    assert 30 <= len(before) <= MANY - 20
    assert before.items() <= paintings(whole).items(), "no half file"
    touched = {name: (out / name).stat().st_mtime_ns for name in before}

    (out / FOLDER / "977.part").write_bytes(b"half")  # as if killed while it was written
    with (out / FOLDER / "ledger").open("a") as ledger:
        ledger.write("0123")
    again = atelier(*command, out)
    assert again.code == 1, "three of them cannot be read"
    # One may have been noted by then, and not been in its place.
    assert again.summary["present"] == len(before)
    assert again.summary["painted"] == MANY + 1 - len(before)
    assert paintings(out) == paintings(whole)
    assert {name: (out / name).stat().st_mtime_ns for name in before} == touched
    assert sorted(path.name for path in (out / FOLDER).iterdir()) == ["ledger"]
    assert atelier(*command, out).summary["present"] == MANY + 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_the_run_in_an_orderly_way_and_says_how_to_go_on(
    atelier: Callable[..., Answer], tiny_zoo: Path, tmp_path: Path, number: signal.Signals
) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    make_many(photos)
    command = ("stylize", photos, "-s", "ink", "--json", "-o", out)
    with start(tiny_zoo, *command, "--jobs", "2") as process:
        assert process.stdout is not None
        for _ in range(20):
            process.stdout.readline()
        process.send_signal(number)
        lines, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + number, errors
    assert errors.splitlines()[-1].endswith("; the same command goes on from here")
    summary = json.loads(lines.splitlines()[-1])["summary"]
    assert 10 <= summary["painted"] <= MANY - 20
    done = paintings(out)
    assert not [name for name in (out / FOLDER).iterdir() if name.name != "ledger"]
    again = atelier(*command)
    assert again.summary["present"] == len(done)
    assert again.summary["painted"] == MANY + 1 - len(done)


def test_what_is_there_is_replaced_only_when_that_is_said(
    atelier: Callable[..., Answer], photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = ("stylize", photos, "-o", out, "--json")
    assert atelier(*command, "-s", "ink").code == 0
    ink = paintings(out)
    other = atelier(*command, "-s", "wash")
    assert other.code == 1
    kinds = {line["error"]["type"] for line in other.lines[:-1]}
    assert kinds == {"urn:atelier:command-line:in-the-way"}
    assert paintings(out) == ink
    assert atelier(*command, "-s", "wash", "--overwrite").summary["painted"] == 6
    wash = paintings(out)
    assert not set(wash.values()) & set(ink.values())
    assert atelier(*command, "-s", "wash", "--overwrite").summary["present"] == 6
    assert atelier(*command, "-s", "ink").summary["failed"] == 6, "ink is no longer there"

    crop(9).save(photos / "one.jpg")
    assert atelier(*command, "-s", "wash").summary.items() >= {"present": 5, "failed": 1}.items()
    assert paintings(out) == wash
    assert atelier(*command, "-s", "wash", "--overwrite").summary["painted"] == 1
    assert {name for name, data in paintings(out).items() if data != wash[name]} == {"one.jpg"}


def test_photograph_is_never_painted_over(atelier: Callable[..., Answer], photos: Path) -> None:
    before = (photos / "one.jpg").read_bytes()
    for out in (photos / "one.jpg", f"{photos}/"):
        answer = atelier("stylize", photos / "one.jpg", "-s", "ink", "-o", out, "--overwrite")
        assert answer.code == 1
        assert "one.jpg is the photograph itself" in answer.err
    assert (photos / "one.jpg").read_bytes() == before
    below = atelier("stylize", photos, "-s", "ink", "-o", photos / "out", "--json")
    again = atelier("stylize", photos, "-s", "ink", "-o", photos / "out", "--json")
    assert below.summary.items() >= {"painted": 6, "failed": 0}.items()
    assert again.summary.items() >= {"painted": 0, "present": 6, "failed": 0}.items()


def test_file_is_replaced_only_when_that_is_said(
    atelier: Callable[..., Answer], photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "o.png"
    out.write_bytes(b"mine")
    command = ("stylize", photos / "one.jpg", "-s", "ink", "-o", out)
    assert atelier(*command).code == 1
    assert out.read_bytes() == b"mine"
    assert atelier(*command, "--overwrite").code == 0
    assert out.read_bytes().startswith(b"\x89PNG")


def test_folders_that_a_file_lies_in_are_made(
    atelier: Callable[..., Answer], photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "not" / "yet" / "o.png"
    assert atelier("stylize", photos / "one.jpg", "-s", "ink", "-o", out).code == 0
    assert out.read_bytes().startswith(b"\x89PNG")


def test_folder_that_cannot_be_written_is_named_before_anything_is_painted(
    atelier: Callable[..., Answer], photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "stuck" / FOLDER / "0.part").mkdir(parents=True)
    for name, words in (("loop", "Too many levels"), ("stuck", "Is a directory")):
        answer = atelier("stylize", photos, "-s", "ink", "-o", tmp_path / name)
        assert answer.code == 3
        assert answer.err.startswith(f"atelier: {tmp_path / name / FOLDER}: {words}")


def test_half_a_line_in_the_ledger_is_a_full_disk(tmp_path: Path) -> None:
    class Full(io.FileIO):
        def write(self, data: Any) -> int:
            return super().write(data[: len(data) - 1])

    with Full(tmp_path / "ledger", "a+") as lines, pytest.raises(OSError, match="No space left"):
        Ledger(tmp_path, lines)


def test_full_disk_ends_the_run_and_leaves_nothing_half(
    atelier: Callable[..., Answer], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    write_bytes = Path.write_bytes

    def write(path: Path, content: bytes) -> int:
        if path.name == "2.part":
            write_bytes(path, content[:10])
            return os.write(full, content)
        return write_bytes(path, content)

    monkeypatch.setattr(Path, "write_bytes", write)
    answer = atelier("stylize", photos, "-s", "ink", "-o", tmp_path / "out", "--jobs", "1")
    os.close(full)
    assert answer.code == 3
    assert "No space left on device" in answer.err
    assert len(paintings(tmp_path / "out")) == 2
    assert [path.name for path in (tmp_path / "out" / FOLDER).iterdir()] == ["ledger"]


def test_painting_is_not_there_before_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def replace(part: Path, path: Path) -> None:
        seen.append((part.read_bytes(), path.exists()))
        raise InterruptedError

    monkeypatch.setattr(Path, "replace", replace)
    with Ledger.open(tmp_path / "out") as ledger, pytest.raises(InterruptedError):
        ledger.place(ledger.path("a/b", "jpg"), b"claim", b"whole")
    with pytest.raises(InterruptedError):
        write_whole(tmp_path / "c.jpg", b"whole")
    assert seen == [(b"whole", False)] * 2
    assert not list(tmp_path.rglob("*.jpg"))


# --- how much at once


def errands(folder: Path, count: int | None) -> Iterator[Errand]:
    for number in itertools.count() if count is None else range(count):
        photo = folder / f"{number}.jpg"
        photo.write_bytes(b"%d" % number)
        yield Errand(Photograph(photo, str(number)), StylizeParameters(style="ink"), str(number))


class StubWorkshop:
    jobs = 3
    max_bytes = 100

    def __init__(self) -> None:
        self.at_work = 0
        self.most = 0
        self.gate = asyncio.Event()
        self.gate.set()

    def describe(self, parameters: StylizeParameters) -> dict[str, object]:
        return parameters.model_dump()

    async def paint(self, image: bytes, parameters: StylizeParameters) -> Painting:  # noqa: ARG002
        self.at_work += 1
        self.most = max(self.most, self.at_work)
        await self.gate.wait()
        self.at_work -= 1
        return Painting(image, "jpg")

    async def __aenter__(self) -> StubWorkshop:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


@dataclass
class StubReport:
    states: dict[str, str] = field(default_factory=dict)
    details: list[str] = field(default_factory=list)

    def painted(self, photo: Path, style: str, out: Path | None) -> None:  # noqa: ARG002
        self.states[photo.stem] = "painted"

    def present(self, photo: Path, style: str, out: Path) -> None:  # noqa: ARG002
        self.states[photo.stem] = "present"

    def failed(self, photo: Path, style: str, error: CannotPaintError) -> None:  # noqa: ARG002
        self.states[photo.stem] = "failed"
        self.details.append(error.detail)


@pytest.mark.anyio
async def test_photographs_are_looked_for_no_faster_than_they_are_painted(
    tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    taken = 0

    def endless() -> Iterator[Errand]:
        nonlocal taken
        for errand in errands(tmp_path, None):
            taken += 1
            yield errand

    workshop, report = StubWorkshop(), StubReport()
    workshop.gate.clear()
    with Ledger.open(tmp_path / "out") as ledger:
        run = asyncio.create_task(paint_all(endless(), workshop, ledger, report, overwrite=False))
        await wait_until(lambda: workshop.at_work == 3)
        await asyncio.sleep(0.05)
        assert taken == 4, "three at work and one that waits for its place"
        workshop.gate.set()
        await wait_until(lambda: len(report.states) > 50)
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
    assert workshop.most == 3


# --- services, exit codes


def test_exit_code_says_what_kind_of_thing_went_wrong(
    atelier: Callable[..., Answer], photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    one = photos / "one.jpg"
    (tmp_path / "empty").mkdir()
    nobody = "http://127.0.0.1:9"
    for code, words, arguments in (
        (2, "no style 'oil'; there are ink, wash", ("-s", "oil", one, "-o", out)),
        (2, "cannot be mixed", ("-s", "ink:0.5,wash:0.5", one, "-o", out)),
        (2, "exceeds the limit of 4096", ("-s", "ink", one, "-o", out, "--max-side", "5000")),
        (2, "must be from 0 to 1", ("-s", "ink", one, "-o", out, "--strength", "2")),
        (2, "no photographs in", ("-s", "ink", tmp_path / "empty", "-o", out)),
        (2, "let -o be another folder", ("-s", "ink", photos, "-o", photos)),
        (2, "is in the way; it is no folder", ("-s", "ink", photos, "-o", one)),
        (2, ".gif is none of .jpg, .png, .webp", ("-s", "ink", one, "-o", out / "a.gif")),
        (
            2,
            "named for png, and --format is jpeg",
            ("-s", "ink", one, "-o", "a.png", "--format=jpeg"),
        ),
        (2, "PHOTO: is empty", ("-s", "ink", "", "-o", out)),
        (2, "-o/--out: is empty", ("-s", "ink", photos, "-o", "")),
        (2, "127.0.0.1:9 is no address", ("-s=ink", one, "-o", out, "--server", "127.0.0.1:9")),
        (2, "2 styles want one each", ("--all-styles", one, "-o", out / "a.jpg")),
        (2, "called one.jpg; run them apart", ("-s", "ink", one, one, "-o", out)),
        (2, "are for one photograph", ("-s", "ink", "-", one, "-o", out)),
        (2, "write -o FILE", ("-s", "ink", "-", "-o", out)),
        (
            2,
            "--zoo is of this machine",
            ("-s", "ink", one, "-o", out, "--zoo=.", f"--server={nobody}"),
        ),
        (3, "manifest.toml: cannot be read", ("-s", "ink", one, "-o", out, "--zoo", tmp_path)),
        (
            3,
            "cannot be reached",
            ("-s", "ink", one, "-o", out, "--server", nobody, "--timeout", "1"),
        ),
    ):
        answer = atelier("stylize", *arguments)
        assert (answer.code, answer.out) == (code, b""), answer.err
        assert words in answer.err
        assert not out.exists()


@pytest.mark.parametrize("command", ["styles", "stylize"])
def test_output_that_nobody_reads_ends_the_command_in_one_line(
    photos: Path,
    tiny_zoo: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    command: str,
) -> None:
    monkeypatch.setenv("ATELIER_RUNTIME", "torch")
    reader, writer = os.pipe()
    os.close(reader)
    arguments = [] if command == "styles" else [str(photos / "one.jpg"), "-s=ink", "-o=-"]
    with os.fdopen(writer, "w") as output:
        monkeypatch.setattr(sys, "stdout", output)
        assert main([command, "--zoo", str(tiny_zoo), *arguments]) == 3
        output.write("what is left does not fail again")
    assert capfd.readouterr().err.splitlines()[-1].endswith("Broken pipe")


def test_standard_streams_that_are_closed_are_empty_or_for_nobody(
    tiny_zoo: Path, tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    zoo = ["--zoo", str(tiny_zoo), "-s", "ink"]
    assert main(["stylize", *zoo, "-", "-o", str(tmp_path / "o.jpg")]) == 1
    assert main(["stylize", *zoo, str(photos / "one.jpg"), "-o", "-"]) == 2
    sys.stdin.close()
    sys.stderr.close()


def test_photograph_is_not_waited_for_from_a_terminal(
    tiny_zoo: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    keyboard, terminal = os.openpty()
    with os.fdopen(terminal) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert main(["stylize", "-", "-s=ink", "--zoo", str(tiny_zoo), "-o", "o.jpg"]) == 2
    os.close(keyboard)
    assert "write <FILE, or its name" in capfd.readouterr().err


def test_settings_that_are_wrong_are_named(atelier: Callable[..., Answer], photos: Path) -> None:
    answer = atelier("stylize", photos, "-s", "ink", "-o", "out", ATELIER_PROT="1")
    assert answer.code == 2
    assert (
        answer.err
        == "atelier: ATELIER_PROT is not a setting of this service; did you mean ATELIER_PORT?\n"
    )


def test_one_process_at_a_time_paints_into_a_folder(
    atelier: Callable[..., Answer], photos: Path, tmp_path: Path
) -> None:
    with Ledger.open(tmp_path / "out"):
        answer = atelier("stylize", photos, "-s", "ink", "-o", tmp_path / "out")
    assert answer.code == 2
    assert answer.err.endswith("out: another process paints into it\n")


def test_service_that_wants_a_key_gets_it_from_option_or_environment(
    atelier: Callable[..., Answer],
    start_service: Callable[..., contextlib.AbstractContextManager[ServerProcess]],
    photos: Path,
    tmp_path: Path,
) -> None:
    key, entry = (
        "atelier_secret",
        "me=" + __import__("hashlib").sha256(b"atelier_secret").hexdigest(),
    )
    with start_service(ATELIER_API_KEYS=entry) as server:
        command = (
            "stylize",
            photos / "one.jpg",
            "-s",
            "ink",
            "-o",
            tmp_path,
            "--server",
            server.url,
        )
        refused = atelier(*command)
        assert refused.code == 3
        assert "key" in refused.err.lower()
        assert atelier(*command, "--key", key, "--format=png").code == 0
        assert atelier(*command, "--format=webp", ATELIERCLIENT_KEY=key).code == 0
        assert atelier("styles", "--server", server.url, "--key", key).code == 0


def test_service_that_goes_away_ends_the_run_rather_than_fail_every_picture(
    atelier: Callable[..., Answer],
    start_service: Callable[..., contextlib.AbstractContextManager[ServerProcess]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_many(tmp_path / "photos")
    monkeypatch.setattr("service.client_exchange._FIRST_PAUSE_S", 0.001)
    with start_service() as server:
        painted = 0
        put = Ledger.place

        def place(*arguments: Any) -> None:
            nonlocal painted
            painted += 1
            if painted == 20:
                server.process.kill()
            put(*arguments)

        monkeypatch.setattr(Ledger, "place", place)
        command = ("stylize", tmp_path / "photos", "-s", "ink", "-o", tmp_path / "out", "--json")
        answer = atelier(*command, "--server", server.url)
    assert answer.code == 3
    assert "cannot be reached" in answer.err
    assert "the same command goes on from here" in answer.err
    assert 20 <= answer.summary["painted"] <= 30


def test_many_requests_at_once_get_through_a_service_that_takes_few(
    atelier: Callable[..., Answer], server: ServerProcess, tmp_path: Path
) -> None:
    for number in range(24):
        (tmp_path / "photos").mkdir(exist_ok=True)
        crop(number, 200, 150).save(tmp_path / "photos" / f"{number}.jpg")
    answer = atelier(
        "stylize", tmp_path / "photos", "-s", "ink", "-o", tmp_path / "out", "--json",
        "--server", server.url, "--jobs", "8",
    )  # fmt: skip
    assert answer.summary.items() >= {"painted": 24, "failed": 0}.items(), answer.err


@pytest.mark.parametrize("where", ["here", "server"])
def test_styles_are_listed_for_people_and_for_scripts(
    atelier: Callable[..., Answer], server: ServerProcess, where: str
) -> None:
    service = ("--server", server.url) if where == "server" else ()
    table = atelier("styles", *service)
    assert table.code == 0
    lines = table.out.decode().splitlines()
    assert lines[0].split() == ["ID", "TITLE", "ARTIST", "YEAR", "GENERATOR", "MIXABLE"]
    assert lines[1].split() == ["ink", "Ink", "Nobody", "2016", "johnson_half", "no"]
    listed = json.loads(atelier("styles", "--json", *service).out)["styles"]
    entries = httpx.get(f"{server.url}/styles").json()["styles"]
    known = set(entries[0]) & set(listed[0])
    assert known >= {"id", "title", "artist", "year", "description", "generator", "mixable"}
    assert [{name: each[name] for name in known} for each in entries] == listed


@pytest.mark.parametrize("command", ["styles", "stylize"])
def test_missing_package_is_named_with_the_extra_that_brings_it(
    atelier: Callable[..., Answer], photos: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    for module in ("service.client", "service.remote_workshop"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "httpx", None)
    arguments = () if command == "styles" else (photos, "-s", "ink", "-o", "out")
    answer = atelier(command, *arguments, "--server", "http://127.0.0.1:9")
    assert answer.code == 3
    assert "this needs httpx, which is not installed; pip install 'atelier[client]'" in answer.err


def test_serve_takes_host_port_and_zoo_from_options_over_the_environment(tiny_zoo: Path) -> None:
    environment = service_environment(tiny_zoo, ATELIER_ZOO="nowhere", ATELIER_PORT="1")
    options = ("--host", "127.0.0.1", "--port", "0", "--zoo", str(tiny_zoo))
    process = subprocess.Popen(
        [sys.executable, "-m", "service.command_line", "serve", *options],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        greeting = process.stdout.readline()
        assert greeting.startswith("ready: "), process.stderr
        url = greeting.split()[-1].removesuffix("/stylize")
        ids = [style["id"] for style in httpx.get(f"{url}/styles").json()["styles"]]
        process.terminate()
        process.communicate(timeout=30)
    assert ids == ["ink", "wash"]
    assert process.returncode == 0


def test_serve_that_cannot_start_says_so_with_the_service_s_exit_code(
    atelier: Callable[..., Answer],
) -> None:
    answer = atelier("serve", "--port", "99999")
    assert answer.code == 2
    assert answer.err.startswith("atelier: ATELIER_PORT=99999: ")


def test_page_of_the_command_line_names_every_exit_code() -> None:
    page = (Path(__file__).parents[2] / "docs/command-line.md").read_text(encoding="utf-8")
    table = page.partition("| exit code |")[2].partition("\n\n")[0]
    named = {
        int(code) for row in re.findall(r"^\| ([\d, ]+) \|", table, re.M) for code in row.split(",")
    }
    codes = {
        value
        for module in (service.command_line, stylize, video)
        for name, value in vars(module).items()
        if name.startswith("EXIT_")
    }
    assert named == codes | {0, 128 + signal.SIGINT, 128 + signal.SIGTERM}
