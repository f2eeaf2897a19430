"""Runs an image as docker-compose.yml runs a replica, and asks things of the container."""

from __future__ import annotations

import contextlib
import http.client
import re
import shutil
import socket
import subprocess
import threading
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import yaml

from tests.conftest import ServerProcess
from tests.deploy.images import ROOT, Store, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.load import Call

# Lower than anybody's own: to raise them, as Podman would, takes CAP_SYS_RESOURCE.
_ULIMITS = ("--ulimit=nofile=4096:4096", "--ulimit=nproc=4096:4096")
# crun knows no mixture of both versions of control groups.
_RUNTIMES = ("crun", "runc")


def hardening(replica: dict[str, Any]) -> list[str]:
    """What docker-compose.yml says of a replica, as options of Podman."""
    limits = replica["deploy"]["resources"]["limits"]
    return [
        f"--read-only={str(replica['read_only']).lower()}",
        "--read-only-tmpfs=false",  # Podman's own addition, which Docker does not have
        *(f"--cap-drop={name}" for name in replica["cap_drop"]),
        *(f"--security-opt={option.partition(':')[0]}" for option in replica["security_opt"]),
        *(f"--tmpfs={mount}" for mount in replica["tmpfs"]),
        f"--cpus={limits['cpus']}",
        f"--memory={limits['memory']}",
        f"--pids-limit={limits['pids']}",
    ]


@dataclass
class Container(ServerProcess):
    """A container whose service has said that it is ready."""

    name: str
    podman: tuple[str, ...]

    def run(self, *command: str) -> str:
        """Run a program inside, as the container's user."""
        return _run(*self.podman, "exec", self.name, *command)

    def is_healthy(self) -> bool:
        """Run the image's own HEALTHCHECK, as Docker does every few seconds."""
        check = [*self.podman, "healthcheck", "run", self.name]
        result = subprocess.run(check, capture_output=True, text=True, check=False)
        assert result.returncode in {0, 1}, result.stderr  # others are Podman's own faults
        return result.returncode == 0

    def end(self) -> int:
        """Send the image's STOPSIGNAL; give the exit status.

        Docker does the same to stop it; `podman stop` would answer no health checks meanwhile.
        """
        number = _run(*self.podman, "inspect", "--format={{.Config.StopSignal}}", self.name)
        _run(*self.podman, "kill", f"--signal={number.strip()}", self.name)
        return self.process.wait(60)


@dataclass(frozen=True, slots=True)
class Host:
    """What runs containers on this machine."""

    podman: tuple[str, ...]
    options: tuple[str, ...]
    environment: dict[str, str]

    @classmethod
    def find(cls, store: Store, image: str) -> Host:
        """Try the runtimes that are installed with all of the hardening.

        Raises:
            UnavailableError: with what each of them said.
        """
        compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
        replica = compose["services"]["atelier-1"]
        options = (*_ULIMITS, *hardening(replica))
        # As compose would fill them in, where nothing is set.
        environment = {
            name: re.sub(r"\$\{\w+:-(.*?)\}", r"\1", value)
            for name, value in replica["environment"].items()
        }
        tried = {}
        for runtime in filter(shutil.which, _RUNTIMES):
            podman = (store.podman_path, *store.options, f"--runtime={runtime}")
            try:
                _run(*podman, "run", "--rm", "--network=none", *options, image, "true")
            except subprocess.CalledProcessError as error:
                tried[runtime] = error.stderr.strip()
            else:
                return cls(podman, options, environment)
        raise UnavailableError(f"of {' and '.join(_RUNTIMES)}, none runs a container here: {tried}")

    def command(
        self, image: str, *arguments: str, network: str = "host", **variables: str
    ) -> list[str]:
        """``podman run``; in the network of this machine the service takes a free port of it."""
        at = (
            {"ATELIER_HOST": "127.0.0.1", "ATELIER_PORT": _free_port()} if network == "host" else {}
        )
        settings = self.environment | at | variables
        return [
            *(*self.podman, "run", "--rm", f"--network={network}", "--log-driver=none"),
            *self.options,
            *(f"--env={name}={value}" for name, value in settings.items()),
            *arguments,
            image,
        ]

    @contextlib.contextmanager
    def start(
        self, image: str, zoo: Path | None = None, network: str = "host", **variables: str
    ) -> Iterator[Container]:
        """Start the image's command, with a zoo of one's own mounted or the shipped one."""
        name = f"atelier-{uuid.uuid4().hex[:8]}"
        mounted = (f"--volume={zoo}:/zoo:ro",) if zoo else ()
        variables |= {"ATELIER_ZOO": "/zoo"} if zoo else {}
        variables = {"ATELIER_LOG_LEVEL": "warning"} | variables
        options = (f"--name={name}", *mounted)
        command = self.command(image, *options, network=network, **variables)
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                yield Container(process, process.stdout.readline(), name, self.podman)
            finally:
                if process.poll() is None:
                    _run(*self.podman, "rm", "--force", "--time=0", name)


@dataclass
class Load:
    """Clients that each open a connection, send one request and go on, until none is accepted."""

    address: str
    call: Call
    outcomes: Counter[str] = field(default_factory=Counter)

    @contextlib.contextmanager
    def running(self, clients: int) -> Iterator[None]:
        threads = [threading.Thread(target=self._work) for _ in range(clients)]
        for thread in threads:
            thread.start()
        yield
        for thread in threads:
            thread.join(60)

    def _work(self) -> None:
        while True:
            connection = http.client.HTTPConnection(urlsplit(self.address).netloc, timeout=60)
            try:
                connection.connect()
            except OSError:
                return
            with contextlib.closing(connection):
                self.outcomes[self._send(connection)] += 1

    def _send(self, connection: http.client.HTTPConnection) -> str:
        try:
            connection.request("POST", self.call.path, self.call.body, self.call.headers)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__
        return str(answer.status)


def _free_port() -> str:
    """A number, because a health check could not know which one the service took for 0."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return str(listener.getsockname()[1])


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
