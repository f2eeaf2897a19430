"""The real Prometheus scrapes two real replicas, and answers what dashboard and rules ask it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
import yaml

from benchmarks.balancer import two_cores
from benchmarks.generators import write_zoo
from benchmarks.nginx import free_port
from tests.deploy.replicas import Replica, fetch, held, picture, post, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
CONFIGURATION = ROOT / "deploy/prometheus/prometheus.yml"
RULES = ROOT / "deploy/prometheus/alerts.yml"
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy/grafana/atelier.json").read_text())

PANELS = [
    pytest.param(target["expr"], id=f"{panel['title']} {target['refId']}")
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
]
ALERTS = [
    pytest.param(rule, id=rule["alert"])
    for group in yaml.safe_load(RULES.read_text())["groups"]
    for rule in group["rules"]
]
# Where the device is the processor, what it holds is the process's own memory.
NOT_ON_A_CPU = {"atelier_device_memory_bytes"}
INTERVAL_S = 1
GOOD = picture("fast", 128)
# As Grafana has it: at least four scrapes.
RATE_INTERVAL = f"{4 * INTERVAL_S}s"
METRIC = re.compile(r"\b(?:atelier|process)_\w+|\bup\b")


class Prometheus:
    """A running Prometheus, asked by its HTTP API."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, path: str, **parameters: str) -> Any:
        answer = fetch(self.url, f"/api/v1/{path}?{urlencode(parameters)}")
        said = json.loads(answer.body)
        assert said["status"] == "success", said
        assert not said.get("warnings"), said
        return said["data"]

    def series(self, expression: str) -> list[dict[str, Any]]:
        """What an expression gives now."""
        found: list[dict[str, Any]] = self.ask("query", query=expression)["result"]
        return found

    def drawn(self, expression: str) -> list[dict[str, Any]]:
        """What a panel draws of the last half minute, numbers only."""
        now = time.time()
        span = {"start": f"{now - 30}", "end": f"{now}", "step": "1"}
        found = self.ask("query_range", query=expression, **span)["result"]
        return [one for one in found if any(value != "NaN" for _, value in one["values"])]


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Replica]]:
    folder = tmp_path_factory.mktemp("replicas")
    write_zoo(folder, {"fast": "fast"})
    replicas = [
        Replica(folder, folder / f"{number}.log", core, ATELIER_MAX_IN_FLIGHT="1")
        for number, core in enumerate((two_cores() * 2)[:2])
    ]
    with ExitStack() as stack:
        for replica in replicas:
            replica.start()
            stack.callback(lambda it: it.is_running and it.end(signal.SIGKILL), replica)
        for replica in replicas:
            wait_until(replica.is_ready)
        yield replicas


@pytest.fixture(scope="module")
def prometheus(
    find_tool: Callable[[str, str], str],
    replicas: list[Replica],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Prometheus]:
    """With the committed configuration and rules; only addresses and intervals are others."""
    program = find_tool("prometheus", "prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    address = f"127.0.0.1:{free_port()}"
    addresses = {f"atelier-{n}:8000": it.address for n, it in enumerate(replicas, start=1)}
    text = CONFIGURATION.read_text()
    for old, new in (*addresses.items(), ("localhost:9090", address)):
        assert text.count(f'"{old}"') == 1, f"{old} is scraped no more, or twice"
        text = text.replace(old, new)
    text, found = re.subn(r"(_interval|_timeout): \d+s", rf"\1: {INTERVAL_S}s", text)
    assert found == 3, "the intervals of scrapes and rules, and the time for a scrape"
    (folder / "prometheus.yml").write_text(text)
    (folder / RULES.name).write_text(RULES.read_text())
    command = [
        program,
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address={address}",
        "--log.level=warn",
    ]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            started = Prometheus(f"http://{address}")
            wait_until(lambda: _is_ready(started, process, folder / "log"), within_s=30)
            _make_traffic(replicas)
            # Rates need two scrapes with traffic between them.
            wait_until(lambda: _rates_of_both(started), within_s=30)
            yield started
        finally:
            process.terminate()


def _is_ready(prometheus: Prometheus, process: subprocess.Popen[bytes], log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    try:
        return fetch(prometheus.url, "/-/ready").status == 200
    except ConnectionError:
        return False


def _make_traffic(replicas: list[Replica]) -> None:
    """Good pictures for some scrapes, and between two of those what seldom becomes of one."""
    _paint(replicas, scrapes=3)
    for replica in replicas:
        with held(picture("fast", 1536), replica):
            assert post(replica.url, picture("fast", 32)).status == 429
        assert post(replica.url, GOOD, X_Request_Timeout_Seconds="0.001").status == 504
        assert post(replica.url, picture("missing", 32)).status == 404
    _paint(replicas, scrapes=3)


def _paint(replicas: list[Replica], *, scrapes: int) -> None:
    ends_s = time.monotonic() + scrapes * INTERVAL_S
    while time.monotonic() < ends_s:
        assert [post(replica.url, GOOD).status for replica in replicas] == [200, 200]


def _rates_of_both(prometheus: Prometheus) -> bool:
    painted = f"rate(atelier_stage_seconds_count[{10 * INTERVAL_S}s]) > 0"
    return len({one["metric"]["instance"] for one in prometheus.series(painted)}) == 2


def _metrics_of(expression: str) -> set[str]:
    return set(METRIC.findall(re.sub(r'"[^"]*"', "", expression)))


def test_both_replicas_and_itself_are_scraped(
    prometheus: Prometheus, replicas: list[Replica]
) -> None:
    up = {one["metric"]["instance"]: one["value"][1] for one in prometheus.series("up")}
    own = prometheus.url.removeprefix("http://")
    assert up == dict.fromkeys([*(replica.address for replica in replicas), own], "1")
    targets = prometheus.ask("targets")["activeTargets"]
    assert {target["lastError"] for target in targets} == {""}


@pytest.mark.parametrize("expression", PANELS)
def test_a_panel_has_something_to_draw(prometheus: Prometheus, expression: str) -> None:
    drawn = prometheus.drawn(expression.replace("$__rate_interval", RATE_INTERVAL))
    if _metrics_of(expression) <= NOT_ON_A_CPU:
        assert not drawn, "it is there after all: take it off the list"
    else:
        assert drawn


@pytest.mark.parametrize("rule", ALERTS)
def test_a_rule_is_evaluated_from_series_that_are_there(
    prometheus: Prometheus, rule: dict[str, Any]
) -> None:
    loaded = [it for group in prometheus.ask("rules")["groups"] for it in group["rules"]]
    (own,) = (it for it in loaded if it["name"] == rule["alert"])
    assert (own["health"], own.get("lastError")) == ("ok", None)
    assert own["state"] == "inactive", "two replicas in good health wake nobody"
    for name in _metrics_of(rule["expr"]) - NOT_ON_A_CPU:
        assert prometheus.series(name), name
    # Without its bound it has a value, which is a healthy one.
    bounded = re.fullmatch(r"(.*\S) (?:[<>]|==) [^<>=]+", rule["expr"].strip(), re.DOTALL)
    assert bounded
    value_is_there = bool(prometheus.series(bounded[1]))
    assert value_is_there != bool(_metrics_of(bounded[1]) & NOT_ON_A_CPU)


def test_every_metric_that_is_asked_for_is_exported_by_both_replicas(
    replicas: list[Replica],
) -> None:
    rules = [parameters.values[0]["expr"] for parameters in ALERTS]  # type: ignore[index]
    panels = [str(parameters.values[0]) for parameters in PANELS]
    asked = set().union(*map(_metrics_of, (*rules, *panels))) - {"up"}
    for replica in replicas:
        exported = fetch(replica.url, "/metrics").body.decode()
        names = set(re.findall(r"^([a-z_]+)", exported, re.MULTILINE))
        assert asked - names == NOT_ON_A_CPU


def test_a_replica_that_dies_is_down_and_its_alert_pending(
    prometheus: Prometheus, replicas: list[Replica]
) -> None:
    """The last test: the replica does not come back."""
    victim = replicas[1]
    victim.end(signal.SIGKILL)

    def alerts() -> list[tuple[str, str, str]]:
        found = prometheus.ask("alerts")["alerts"]
        return [(a["labels"]["alertname"], a["labels"]["instance"], a["state"]) for a in found]

    wait_until(lambda: ("AtelierDown", victim.address, "pending") in alerts(), within_s=20)
    down = [one["metric"]["instance"] for one in prometheus.series("up == 0")]
    assert down == [victim.address]


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "deploy/prometheus/prometheus.yml"),
        ("check", "rules", "deploy/prometheus/alerts.yml"),
        ("test", "rules", "deploy/prometheus/alerts_test.yml"),
    ],
    ids=" ".join,
)
def test_promtool_finds_no_fault(
    find_tool: Callable[[str, str], str], arguments: tuple[str, ...]
) -> None:
    command = [find_tool("promtool", "prometheus"), *arguments]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
