"""nginx with the committed configuration, on this machine, for what needs one; no benchmark itself.

Debian's nginx is older than `resolve`, and here replicas, ports and folders are others. All else is
read as it stands.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CONFIGURATION = Path(__file__).parents[1] / "deploy/nginx/nginx.conf"
_SEARCHED = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin"])
_STARTS_WITHIN_S = 10.0
_ENDS_WITHIN_S = 50.0


class NginxError(Exception):
    """nginx is not there, or did not start; or its configuration is not what is expected here."""


class Balancer:
    """A running nginx; ``url`` has no path."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"
        self._log = log

    def read_log(self) -> list[dict[str, Any]]:
        """Lines of the access log until now."""
        return [json.loads(line) for line in self._log.read_text(encoding="utf-8").splitlines()]


def find_nginx() -> str:
    """Path of the program.

    Raises:
        NginxError: there is none.
    """
    if path := shutil.which("nginx", path=_SEARCHED):
        return path
    raise NginxError("nginx is not installed: apt-get install nginx-light")


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def adapt(replicas: Sequence[str], folder: Path, *, port: int, health_port: int) -> str:
    """Give the configuration for ``replicas``, each HOST:PORT, with its files in ``folder``.

    Raises:
        NginxError: something that is to be replaced is not there as often as expected.
    """
    text = CONFIGURATION.read_text(encoding="utf-8")
    addresses = iter(replicas)

    def replica(line: re.Match[str]) -> str:
        address = next(addresses, None)
        return f"server {address}{line[1]};" if address else ""

    for pattern, replacement, times in (
        (r"server atelier-\d:8000(.*) resolve;", replica, 2),
        (r"listen 8080;", f"listen 127.0.0.1:{port};", 1),
        (r"listen 127\.0\.0\.1:8081;", f"listen 127.0.0.1:{health_port};", 1),
        (r"(?<= )/tmp/(?=\S+;)", f"{folder}/", 6),
    ):
        text, found = re.subn(pattern, replacement, text)
        if found != times:
            raise NginxError(f"{pattern!r} stands {found} times in nginx.conf, not {times}")
    return text


@contextmanager
def run_nginx(replicas: Sequence[str], folder: Path) -> Iterator[Balancer]:
    """Run nginx in front of one or two ``replicas``, each HOST:PORT; it ends with the block.

    Args:
        replicas: their addresses.
        folder: empty, for configuration, logs and temporary files.

    Raises:
        NginxError: with what it wrote.
    """
    port, health_port = free_port(), free_port()
    configuration, log, errors = folder / "nginx.conf", folder / "access.log", folder / "error.log"
    configuration.write_text(
        adapt(replicas, folder, port=port, health_port=health_port), encoding="utf-8"
    )
    # Workers of a master that is root would become `nobody`, who may not enter private folders.
    directives = "daemon off;" + (" user root;" if os.geteuid() == 0 else "")
    command = [find_nginx(), "-p", str(folder), "-c", str(configuration), "-g", directives]
    with (
        log.open("ab") as output,
        errors.open("ab") as complaints,
        subprocess.Popen(command, stdout=output, stderr=complaints) as process,
    ):
        try:
            _wait(process, f"http://127.0.0.1:{health_port}/healthz", errors)
            yield Balancer(process, port, log)
        finally:
            process.send_signal(signal.SIGQUIT)
            try:
                process.wait(_ENDS_WITHIN_S)
            finally:
                process.kill()


def _wait(process: subprocess.Popen[bytes], health_url: str, errors: Path) -> None:
    ends_s = time.monotonic() + _STARTS_WITHIN_S
    while process.poll() is None and time.monotonic() < ends_s:
        try:
            urllib.request.urlopen(health_url, timeout=2).close()  # noqa: S310
        except urllib.error.URLError:
            time.sleep(0.02)
        else:
            return
    raise NginxError(errors.read_text(encoding="utf-8") or f"nginx does not answer {health_url}")
