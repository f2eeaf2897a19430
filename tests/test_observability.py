"""Metrics, their documentation, the dashboard and the alert rules name the same things."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.errors import error_kinds
from service.logs import RequestRecord
from service.metrics import CUTS, FAULTS, GAUGES, LIVE_FRAMES, RELOADS, STAGES, Metrics

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/observability.md").read_text(encoding="utf-8")
METRIC_ROW = re.compile(r"^\| `([a-z_]+)` \| (\w+) \|(.*?)\| (.+?) \|(.*?)\|$", re.MULTILINE)


@pytest.fixture(scope="module")
def declared() -> dict[str, tuple[str, set[str]]]:
    """Kind and labels of every metric, under the name that one queries, without _bucket."""
    metrics = Metrics()
    metrics.watch(**dict.fromkeys(GAUGES, float))
    metrics.count_request("/stylize", "ink", 200, 0.1)
    metrics.count_problem("busy")
    metrics.observe_stages(dict.fromkeys(STAGES, 0.1))
    metrics.describe_build(version="1", device="cpu", runtime="stub")
    metrics.describe_zoo("0")
    found = {}
    for family in metrics.registry.collect():
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        found[family.name + suffix] = (family.type, labels)
    return found


@pytest.fixture(scope="module")
def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((ROOT / "deploy/grafana/atelier.json").read_text())
    return loaded


def expressions(rules: list[dict[str, Any]], dashboard: dict[str, Any]) -> list[str]:
    targets = [target for panel in dashboard["panels"] for target in panel["targets"]]
    return [part["expr"] for part in (*rules, *targets)]


def test_page_lists_exactly_the_metrics_there_are(
    declared: dict[str, tuple[str, set[str]]],
) -> None:
    rows = {row[1]: row for row in METRIC_ROW.finditer(PAGE)}
    own = {name for name in declared if name.startswith("atelier_")}
    assert {name for name in rows if name.startswith("atelier_")} == own
    assert set(rows) <= set(declared)
    for name, row in rows.items():
        kind, labels = declared[name]
        assert (row[2], set(re.findall(r"`(\w+)`", row[3]))) == (kind, labels), name


def test_page_names_the_values_of_labels_and_the_fields_of_a_log_line() -> None:
    named = set(re.findall(r"`([\w-]+)`", PAGE))
    assert {*STAGES, *FAULTS, *RELOADS, *CUTS, *LIVE_FRAMES} <= named
    example = PAGE.partition("```json\n")[2].partition("```")[0]
    ids = {"time", "level", "logger", "event", "request_id", "trace_id", "span_id"}
    fields = RequestRecord("", "GET").as_fields()
    assert set(json.loads(example)) == ids | set(fields)


def test_dashboard_and_rules_ask_only_for_metrics_there_are(
    declared: dict[str, tuple[str, set[str]]], rules: Any, dashboard: Any
) -> None:
    known = set(declared) | {"up"}
    for name, (kind, _) in declared.items():
        if kind == "histogram":
            known |= {f"{name}_{part}" for part in ("bucket", "sum", "count")}
    for expression in expressions(rules, dashboard):
        without_strings = re.sub(r'"[^"]*"', "", expression)
        named = set(re.findall(r"\b(?:atelier|process)_\w+|\bup\b", without_strings))
        assert named, expression
        assert named <= known, expression


def test_dashboard_and_rules_ask_only_for_labels_and_values_there_are(
    declared: dict[str, tuple[str, set[str]]], rules: Any, dashboard: Any
) -> None:
    values = {"stage": set(STAGES), "fault": set(FAULTS), "outcome": set(RELOADS)}
    values["reason"] = set(CUTS)
    values["problem"] = {kind.slug for kind in error_kinds()}
    for expression in expressions(rules, dashboard):
        for name, selector in re.findall(r"\b((?:atelier|process)_\w+)\{([^}]*)\}", expression):
            base = re.sub(r"_(bucket|sum|count)$", "", name)
            for label, value in re.findall(r'(\w+)[!=~]+"([^"]*)"', selector):
                assert label in declared[base][1] | {"job", "instance"}, expression
                assert value in values.get(label, {value}), expression


def test_every_alert_says_what_to_do_and_every_runbook_has_its_alert(rules: Any) -> None:
    runbook = PAGE.partition("## Dashboard and alerts")[2]
    headings = re.findall(r"^### (\w+)$", runbook, re.MULTILINE)
    assert headings == [rule["alert"] for rule in rules]
    for rule in rules:
        anchor = rule["alert"].lower()
        assert rule["annotations"]["runbook"] == f"docs/observability.md#{anchor}"
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in {"critical", "warning"}


def test_every_alert_is_shown_to_fire(rules: Any) -> None:
    tests = (ROOT / "deploy/prometheus/alerts_test.yml").read_text()
    fired = set(re.findall(r'alertname="(\w+)"', tests))
    assert fired == {rule["alert"] for rule in rules}


def test_panels_do_not_overlap_and_name_no_data_source_of_their_own(dashboard: Any) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        position = panel["gridPos"]
        cells = {
            (position["x"] + x, position["y"] + y)
            for x in range(position["w"])
            for y in range(position["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        assert panel["datasource"]["uid"] == "${datasource}"


def services() -> dict[str, Any]:
    """The containers of compose."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    return found


def mounts_of(service: str) -> dict[str, Path]:
    """Paths inside a container of compose, and what of the repository stands there."""
    volumes = [volume.split(":") for volume in services()[service]["volumes"]]
    return {inside: ROOT / own for own, inside, *_ in volumes if own.startswith("./")}


def provisioned(kind: str) -> dict[str, Any]:
    """The one data source, or provider of dashboards, that Grafana's files declare."""
    folder = mounts_of("grafana")["/etc/grafana/provisioning"] / kind
    (file,) = folder.iterdir()
    declared = yaml.safe_load(file.read_text())
    assert declared.pop("apiVersion") == 1
    ((entry,),) = declared.values()
    return dict(entry)


def test_grafana_asks_the_prometheus_of_compose_at_the_interval_of_its_scrapes() -> None:
    source, containers = provisioned("datasources"), services()
    host, _, port = source["url"].removeprefix("http://").partition(":")
    assert containers[host]["ports"][0].endswith(f":{port}")
    assert set(containers[host]["networks"]) & set(containers["grafana"]["networks"])
    assert (source["type"], source["isDefault"]) == ("prometheus", True)
    scraping = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    assert source["jsonData"]["timeInterval"] == scraping["global"]["scrape_interval"]


def test_grafana_finds_the_dashboard_where_compose_mounts_it(dashboard: Any) -> None:
    provider = provisioned("dashboards")
    folder = Path(provider["options"]["path"])
    mounted = mounts_of("grafana").items()
    (found,) = (own for inside, own in mounted if Path(inside).parent == folder)
    assert json.loads(found.read_text()) == dashboard
    assert (provider["type"], provider["allowUiUpdates"]) == ("file", False)


def test_dashboard_can_be_linked_to_and_takes_the_source_that_there_is(dashboard: Any) -> None:
    assert (dashboard["uid"], dashboard["title"]) == ("atelier", "Atelier")
    assert f"/d/{dashboard['uid']}" in (ROOT / "docker-compose.yml").read_text()
    assert dashboard["schemaVersion"] >= 36  # since when panels name data sources by uid
    (variable,) = dashboard["templating"]["list"]
    used = {panel["datasource"]["type"] for panel in dashboard["panels"]}
    assert variable["type"] == "datasource"
    assert used == {variable["query"]} == {provisioned("datasources")["type"]}


def test_prometheus_finds_its_rules_where_compose_mounts_them() -> None:
    mounts = mounts_of("prometheus")
    (configuration,) = (it for it in mounts if it.endswith("/prometheus.yml"))
    assert f"--config.file={configuration}" in services()["prometheus"]["command"]
    (rules,) = yaml.safe_load(mounts[configuration].read_text())["rule_files"]
    assert f"{Path(configuration).parent / rules}" in mounts


def test_prometheus_reads_the_rules_and_finds_them_true() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    for arguments in (
        ("check", "config", "deploy/prometheus/prometheus.yml"),
        ("test", "rules", "deploy/prometheus/alerts_test.yml"),
    ):
        finished = subprocess.run(
            [promtool, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert finished.returncode == 0, finished.stdout + finished.stderr
