"""Builds the image by the Dockerfile, on a small Debian that takes the place of python:*-slim."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).parents[2]
BASE = "localhost/base"
# Its Python, 3.11, is the oldest that the project supports.
_SUITE = "bookworm"
_BASE_PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
# The wheels from which Debian's venv takes pip, and what apt leaves behind.
_NOT_IN_BASE = ("usr/share/python-wheels", "var/cache/apt", "var/lib/apt/lists")


class UnavailableError(Exception):
    """This machine cannot do it; the message says why."""


@dataclass(frozen=True, slots=True)
class Layer:
    """What one step of a Dockerfile adds to an image."""

    made_by: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Store:
    """Images and containers in a folder of their own, apart from the machine's."""

    folder: Path
    buildah_path: str
    podman_path: str

    def buildah(self, *arguments: str) -> str:
        return _run(self.buildah_path, *self.options, *arguments)

    def podman(self, *arguments: str) -> str:
        return _run(self.podman_path, *self.options, *arguments)

    @property
    def options(self) -> list[str]:
        return [f"--root={self.folder / 'images'}", f"--runroot={self.folder / 'run'}"]

    def layers(self, image: str) -> list[Layer]:
        """From the base's up, without the steps that add nothing."""
        history = json.loads(self.podman("history", "--format=json", image))
        layers = [Layer(step["CreatedBy"], step["size"]) for step in reversed(history)]
        return [layer for layer in layers if layer.size_bytes]

    def remove(self) -> None:
        self.podman("rm", "--all", "--force")
        self.buildah("rm", "--all")
        self.buildah("rmi", "--all", "--force")
        # The store mounts the folder of its layers onto itself.
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
        own = [m.split()[1] for m in mounts if m.split()[1].startswith(f"{self.folder}/")]
        for mount in reversed(own):
            _run("umount", mount)
        shutil.rmtree(self.folder)


@dataclass(frozen=True, slots=True)
class PipConfiguration:
    """Where this machine's pip finds packages: a file for the pip of a build, and what it names."""

    file: Path
    paths: tuple[str, ...]

    @classmethod
    def of_this_machine(cls, folder: Path) -> PipConfiguration:
        """Join files and variables as pip does, the stronger last, in one file in ``folder``."""
        options: dict[str, str] = {}
        for line in _run(sys.executable, "-m", "pip", "config", "list").splitlines():
            name, _, value = line.partition("=")
            options[name.rpartition(".")[2]] = ast.literal_eval(value)
        paths = set()
        for name, value in options.items():
            for word in value.split():
                path = Path(word.removeprefix("file://"))
                if path.is_absolute() and path.exists():
                    # An index of folders names files that lie beside it.
                    paths.add(str(path.parent if name.endswith("index-url") else path))
        file = folder / "pip.conf"
        lines = [f"{name} = {value}" for name, value in options.items()]
        file.write_text("\n".join(["[global]", *lines, ""]), encoding="utf-8")
        return cls(file, tuple(sorted(paths)))

    def volumes(self) -> list[str]:
        pairs = [(str(self.file), "/etc/pip.conf"), *((path, path) for path in self.paths)]
        return [f"--volume={source}:{target}:ro" for source, target in pairs]


def make_base(store: Store, debootstrap: str, mount_points: Iterable[str]) -> None:
    """Make a Debian with `python` and `pip` where the official image has them.

    Args:
        store: Keeps it under the name ``BASE``.
        debootstrap: The program's path.
        mount_points: What builds will mount, made here so that it does not look like their work.

    Raises:
        UnavailableError: if Debian's packages cannot be had or unpacked here.
    """
    try:
        container = store.buildah("from", "scratch").strip()
        root = Path(store.buildah("mount", container).strip())
        unsafe = root / "etc/dpkg/dpkg.cfg.d/unsafe-io"
        unsafe.parent.mkdir(parents=True)
        unsafe.write_text("force-unsafe-io\n", encoding="ascii")
        _run(debootstrap, "--variant=minbase", "--include=python3-venv", _SUITE, str(root))
    except subprocess.CalledProcessError as error:
        said = (error.stdout.strip() or error.stderr.strip()).splitlines()[-1:]
        raise UnavailableError(f"no base image can be made here: {error.cmd[0]}: {said}") from error
    in_container = ("run", "--isolation=chroot", container, "--")
    store.buildah(*in_container, "python3", "-m", "venv", "/usr/local")
    for path in _NOT_IN_BASE:
        shutil.rmtree(root / path)
    for path in mount_points:
        inside = root / path.lstrip("/")
        if Path(path).is_dir():
            inside.mkdir(parents=True, exist_ok=True)
        else:
            inside.parent.mkdir(parents=True, exist_ok=True)
            inside.touch()
    store.buildah("umount", container)
    store.buildah("config", f"--env=PATH={_BASE_PATH}", container)
    store.buildah("commit", "--quiet", "--rm", container, BASE)


def build(store: Store, pip: PipConfiguration, tag: str, **arguments: str) -> str:
    """Build the Dockerfile on ``BASE``; give the log. Steps that are known are not done again.

    Raises:
        subprocess.CalledProcessError: if a step fails; its ``stderr`` has what the step said.
    """
    pairs = {"BASE_IMAGE": BASE} | arguments
    return store.buildah(
        "build",
        "--isolation=chroot",
        "--format=docker",  # the other one has no HEALTHCHECK
        "--layers",
        *(f"--build-arg={name}={value}" for name, value in pairs.items()),
        *pip.volumes(),
        f"--tag={tag}",
        str(ROOT),
    )


def _run(*command: str) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return result.stdout
