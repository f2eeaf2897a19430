"""The Ray cluster."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

import yaml

from service.settings import Settings
from tests.kubernetes.manifests import ROOT, Document, amount, templates

if TYPE_CHECKING:
    import pytest


def test_the_ray_cluster_is_of_the_pinned_version_and_reports_to_nobody(
    ray: dict[str, Document],
) -> None:
    cluster = ray["RayService"]["spec"]["rayClusterConfig"]
    pins = (ROOT / "constraints.txt").read_text()
    assert f"\nray=={cluster['rayVersion']}\n" in pins
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for template in templates(ray["RayService"]):
        (container,) = template["spec"]["containers"]
        assert container["image"] == f"atelier-ray:{version}"
        assert {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"} in container["env"]
        assert template["spec"]["enableServiceLinks"] is False


def test_every_engine_on_ray_has_a_worker_with_its_cores_and_settings_that_exist(
    ray: dict[str, Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = ray["RayService"]["spec"]
    (application,) = yaml.safe_load(spec["serveConfigV2"])["applications"]
    arguments = application["args"]
    (group,) = spec["rayClusterConfig"]["workerGroupSpecs"]
    (container,) = group["template"]["spec"]["containers"]
    assert amount(container["resources"]["limits"]["cpu"]) == arguments["engine_cpus"]
    assert group["minReplicas"] == group["replicas"] == arguments["engines_min"]
    assert group["maxReplicas"] == arguments["engines_max"]
    for name, value in application["runtime_env"]["env_vars"].items():
        monkeypatch.setenv(name, value)
    assert Settings.from_environment().memory_budget_mib == 1536


def test_ray_waits_longer_than_the_service_does_and_keeps_connections_as_long(
    ray: dict[str, Document],
) -> None:
    http = yaml.safe_load(ray["RayService"]["spec"]["serveConfigV2"])["http_options"]
    assert http["request_timeout_s"] > Settings().request_timeout_s
    assert http["keep_alive_timeout_s"] == Settings().keep_alive_s


def test_the_ports_of_ray_itself_are_open_to_its_pods_and_the_operator_alone(
    ray: dict[str, Document],
) -> None:
    policy = ray["NetworkPolicy"]["spec"]
    assert policy["podSelector"]["matchLabels"] == {"ray.io/is-ray-node": "yes"}
    named = {
        source.get("namespaceSelector", {"matchLabels": {}})["matchLabels"].get(
            "kubernetes.io/metadata.name", "its own pods"
        ): [port["port"] for port in rule.get("ports", ())]
        for rule in policy["ingress"]
        for source in rule["from"]
    }
    (head,) = (t for t in templates(ray["RayService"]) if "dashboard" in str(t))
    ports = {p["name"]: p["containerPort"] for p in head["spec"]["containers"][0]["ports"]}
    assert named == {
        "its own pods": [],
        "kuberay-operator": [],
        "nginx-ingress": [ports["serve"]],
        "monitoring": [ports["metrics"]],
    }
