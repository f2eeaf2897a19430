"""What stands in for programs that no test can run, why, and what is checked in their place."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from service.command_line import _parser as command_line_parser
from service.settings import ENV_PREFIX, Settings
from tests.documentation.pages import ROOT
from trainer.__main__ import _parser as trainer_parser
from trainer.recipe import find_recipe

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a program that was not run."""

    arguments: tuple[str, ...]
    environment: dict[str, str]


@dataclass(frozen=True, slots=True)
class StandIn:
    """``pattern`` is the case pattern, of a shell, of the arguments that are not run."""

    program: str
    pattern: str
    reason: str
    check: Callable[[Call, pytest.MonkeyPatch], None]

    def claims(self, program: str) -> bool:
        return program == self.program


def check_make(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Makefile has the targets, and the service would take its settings."""
    declared = re.findall(r"^([\w-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    targets = {word for word in call.arguments if not re.match(r"-|\w+=", word)}
    assert targets <= set(declared)
    make = shutil.which("make")
    if make is not None:
        dry = [make, "--dry-run", f"--directory={ROOT}", *call.arguments]
        finished = subprocess.run(dry, capture_output=True, text=True, check=False)
        assert finished.returncode == 0, finished.stderr
    _check_settings(call, monkeypatch)


def _check_settings(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in call.environment.items():
        if name.startswith(ENV_PREFIX):
            monkeypatch.setenv(name, value)
    Settings.from_environment()


def check_pip(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    """The extras are there, and so is the file of constraints."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert call.arguments[0] == "install"
    wanted = [re.fullmatch(r"(?:\.|atelier)\[([\w,]+)\]", word) for word in call.arguments]
    (extras,) = (match[1] for match in wanted if match)
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    for option, value in zip(call.arguments, call.arguments[1:], strict=False):
        if option == "-c":
            assert (ROOT / value).is_file()


def check_trainer(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trainer's own parser takes the arguments, and the recipe is there."""
    monkeypatch.chdir(ROOT)
    options = trainer_parser().parse_args(call.arguments[2:])
    if hasattr(options, "recipe"):
        find_recipe(options.recipe)


def check_module(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    """The module is there."""
    assert importlib.util.find_spec(call.arguments[1]) is not None


def check_serving(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line takes the arguments, and the service its settings."""
    command_line_parser().parse_args(call.arguments)
    _check_settings(call, monkeypatch)


def check_docker(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    """What a build is told of, the Dockerfile knows; what compose starts, is described."""
    if call.arguments[0] == "compose":
        assert (ROOT / "docker-compose.yml").is_file()
        assert call.arguments[1:] in {("up", "--build", "--wait"), ("stop",), ("down",)}
        return
    assert call.arguments[0] == "build"
    assert call.arguments[-1] == "."
    known = set(re.findall(r"^ARG (\w+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    options = dict(zip(call.arguments[1:-1:2], call.arguments[2:-1:2], strict=True))
    assert set(options) <= {"-t", "--build-arg"}
    assert {v.partition("=")[0] for o, v in options.items() if o == "--build-arg"} <= known


def check_kubectl(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """It understands what it is asked to do, and fails only since nobody listens."""
    kubectl = shutil.which("kubectl", path=str(Path(sys.executable).parent))
    if kubectl is None:
        return  # there is none for this system
    monkeypatch.setenv("KUBECONFIG", "/dev/null")
    nobody = ["--server=http://127.0.0.1:1", "--request-timeout=1s"]
    finished = subprocess.run(
        [kubectl, *nobody, *call.arguments],
        cwd=call.environment["PWD"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    of_the_reader = (
        "--cert=tls.crt" in call.arguments and "open tls.crt: no such" in finished.stderr
    )
    assert of_the_reader or re.search(r"refused", finished.stderr), finished.stderr


STAND_INS = (
    StandIn("make", "*", "installs, serves without end or runs everything", check_make),
    StandIn("pip", "*", "installs", check_pip),
    StandIn("python", "-m\\ trainer\\ *", "takes minutes and wants 548 MB of VGG", check_trainer),
    StandIn("python", "-m\\ benchmarks.*", "takes minutes", check_module),
    StandIn("atelier", "serve\\ *", "serves without end", check_serving),
    StandIn("docker", "*", "wants an engine of containers", check_docker),
    StandIn("kubectl", "*", "wants a cluster", check_kubectl),
)
"""Everything that stands in a block and is not run, with the reason."""

# Runs until its settings are read; a zoo that is not there ends it with exit code 1.
_SERVICE = """\
if [ "$*" = "-m service" ]; then
    ATELIER_ZOO=/nowhere {python} -m service 2>"$RECORDS/stderr" && exit 0
    status=$?
    [ "$status" = 1 ] && exit 0
    cat "$RECORDS/stderr" >&2
    exit "$status"
fi
"""


def write_stand_ins(folder: Path) -> None:
    """Put a program of each name into ``folder``: it records a call, or passes it on."""
    folder.mkdir(parents=True)
    for program in dict.fromkeys(entry.program for entry in STAND_INS):
        patterns = "|".join(entry.pattern for entry in STAND_INS if entry.claims(program))
        lines = ["#!/usr/bin/env bash", f'case "$* " in {patterns})']
        lines += ['    record=$(mktemp "$RECORDS/call.XXXXXX")']
        lines += [f'    printf \'%s\\0\' {program} "$@" >"$record"', '    env -0 >"$record.env"']
        lines += ["    exit 0;;", "esac"]
        python = shlex.quote(sys.executable)
        if program == "python":
            lines += [_SERVICE.format(python=python), f'exec {python} "$@"']
        elif program == "atelier":
            lines += [f'exec {python} -m service.command_line "$@"']
        script = folder / program
        script.write_text("\n".join(lines) + "\n", encoding="utf-8")
        script.chmod(0o755)


def read_calls(records: Path) -> list[tuple[StandIn, Call]]:
    """Every call that was recorded, with the entry of the list that it falls under."""
    found = []
    for record in sorted(records.glob("call.??????")):
        program, *arguments = record.read_text(encoding="utf-8").split("\0")[:-1]
        variables = record.with_name(f"{record.name}.env").read_text(encoding="utf-8").split("\0")
        environment = dict(line.split("=", 1) for line in variables if "=" in line)
        call = Call(tuple(arguments), environment)
        found.append((_entry_of(program, call), call))
    return found


def _entry_of(program: str, call: Call) -> StandIn:
    """The first whose pattern fits, as bash takes it."""
    words = " ".join(call.arguments) + " "
    for entry in STAND_INS:
        prefix = entry.pattern.replace("\\", "").rstrip("*")
        if entry.claims(program) and words.startswith(prefix):
            return entry
    raise AssertionError(f"{program} {words}: recorded, and on no list")
