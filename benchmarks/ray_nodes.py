"""A real Ray cluster of several nodes on this machine, for benchmarks and tests; no benchmark."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SERVE_CONFIG = Path(__file__).parents[1] / "deploy/ray/serve.yaml"
_HOST = "127.0.0.1"
_START_WITHIN_S = 90.0


class ClusterError(Exception):
    """The cluster did not come to the state that was asked for."""


@dataclass(slots=True)
class Node:
    """One node: ``ray start --block`` and all that it has started, in a session of its own."""

    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """End every process of the node at once, as a loss of power would."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@dataclass(slots=True)
class Cluster:
    """A head and other nodes; ``folder`` has their logs."""

    folder: Path
    port: int
    dashboard_port: int
    http_port: int
    nodes: list[Node] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Of the service, without a path."""
        return f"http://{_HOST}:{self.http_port}"

    def add_node(self, cores: int = 1) -> Node:
        """Start one more node, with so many cores by Ray's account."""
        node = _start_node([f"--address={_HOST}:{self.port}", f"--num-cpus={cores}"])
        self.nodes.append(node)
        return node

    def deploy(self, variables: dict[str, str], **options: float) -> None:
        """Deploy deploy/ray/serve.yaml with other options; returns once it runs.

        Args:
            variables: environment of the service.
            options: of service.cluster.options.

        Raises:
            ClusterError: it does not.
        """
        config = yaml.safe_load(SERVE_CONFIG.read_text(encoding="utf-8"))
        config["http_options"]["port"] = self.http_port
        (application,) = config["applications"]
        application["args"] = options
        application["runtime_env"]["env_vars"] |= variables
        self._ask("PUT", config)
        self.wait_for(lambda: self.application_status == "RUNNING", "a running application")

    @property
    def application_status(self) -> str:
        """As Serve names it."""
        status = str(self._application().get("status", "NOT_STARTED"))
        if status in {"DEPLOY_FAILED", "UNHEALTHY"}:
            raise ClusterError(f"{status}: {self._application().get('message')}")
        return status

    @property
    def engines(self) -> int:
        """Engines that run."""
        replicas = self._application()["deployments"]["Engine"]["replicas"]
        return sum(replica["state"] == "RUNNING" for replica in replicas)

    @property
    def resident_bytes(self) -> int:
        """Memory that all processes of all nodes hold; what they share is counted for each."""
        sessions = {node.process.pid for node in self.nodes}
        return sum(
            _resident_bytes(int(path.name))
            for path in Path("/proc").glob("[0-9]*")
            if _session_of(int(path.name)) in sessions
        )

    def log_events(self, event: str) -> list[dict[str, Any]]:
        """Every event of that name which any process of the service has logged so far, in order."""
        lines = (
            line
            for path in self.folder.glob(
                "session_[0-9]*/logs/worker-*.err"
            )  # not session_latest, a link
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
        )
        marked = f'"event": "{event}"'
        events = [json.loads(line) for line in lines if line.startswith("{") and marked in line]
        return sorted(events, key=lambda logged: str(logged["time"]))

    def metrics(self) -> str:
        """What every node exports to Prometheus, in one."""
        (listing,) = self.folder.glob("prom_metrics_service_discovery.json")
        (found,) = json.loads(listing.read_text(encoding="utf-8"))
        return "".join(_read(f"http://{target}/metrics").decode() for target in found["targets"])

    def wait_for(self, holds: Callable[[], bool], what: str) -> None:
        """Look again and again until ``holds``.

        Raises:
            ClusterError: it takes too long.
        """
        ends_s = time.monotonic() + _START_WITHIN_S
        while not holds():
            if time.monotonic() > ends_s:
                raise ClusterError(f"no {what} within {_START_WITHIN_S:.0f} s")
            time.sleep(0.5)

    def _application(self) -> dict[str, Any]:
        applications: dict[str, Any] = self._ask("GET")["applications"]
        return applications.get("atelier", {})

    def _ask(self, method: str, body: Any = None) -> Any:
        url = f"http://{_HOST}:{self.dashboard_port}/api/serve/applications/"
        answer = _read(url, method, None if body is None else json.dumps(body).encode())
        return json.loads(answer) if answer else {}


@contextmanager
def run_cluster(cores: int = 1) -> Iterator[Cluster]:
    """Run a cluster of one node, to which others can be added; all end with the block."""
    # A short path: sockets in it may not exceed 107 characters.
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder:
        cluster = Cluster(Path(folder), *_free_ports(3))
        try:
            cluster.nodes.append(
                _start_node(
                    [
                        "--head",
                        f"--port={cluster.port}",
                        f"--dashboard-port={cluster.dashboard_port}",
                        f"--dashboard-host={_HOST}",
                        f"--temp-dir={folder}",
                        f"--num-cpus={cores}",
                    ]
                )
            )
            cluster.wait_for(cluster_answers(cluster), "cluster")
            yield cluster
        finally:
            for node in cluster.nodes:
                if node.process.poll() is None:
                    node.kill()


def cluster_answers(cluster: Cluster) -> Callable[[], bool]:
    """Whether its dashboard answers."""

    def answers() -> bool:
        if cluster.nodes[0].process.poll() is not None:
            raise ClusterError(f"ray start ended with {cluster.nodes[0].process.returncode}")
        try:
            cluster.application_status  # noqa: B018
        except OSError:
            return False
        return True

    return answers


def _start_node(arguments: list[str]) -> Node:
    own = {name: value for name, value in os.environ.items() if not name.startswith("ATELIER_")}
    # Usage is not reported, and nothing is asked of whoever has no token: all is on this machine.
    own |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
    process = subprocess.Popen(
        [*ray, f"--node-ip-address={_HOST}", *arguments],
        env=own,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    return Node(process)


def _session_of(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return -1


def _resident_bytes(pid: int) -> int:
    try:
        pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    except OSError:  # it has just ended
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _read(url: str, method: str = "GET", body: bytes | None = None) -> bytes:
    request = urllib.request.Request(url, body, method=method)  # noqa: S310
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        data: bytes = answer.read()
        return data


def _free_ports(count: int) -> list[int]:
    held = [socket.create_server((_HOST, 0)) for _ in range(count)]
    try:
        return [listener.getsockname()[1] for listener in held]
    finally:
        for listener in held:
            listener.close()
