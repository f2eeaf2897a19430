"""Selectors, ports, ways in, roll-outs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from service.app import create_app
from service.settings import Settings
from tests.kubernetes.manifests import ROOT, Document, container_of, settings_of

if TYPE_CHECKING:
    import pytest


def test_selectors_select_the_pods_of_the_service(service: dict[str, Document]) -> None:
    deployment = service["Deployment"]["spec"]
    labels = deployment["template"]["metadata"]["labels"].items()
    spread = deployment["template"]["spec"]["topologySpreadConstraints"]
    selectors = [
        deployment["selector"]["matchLabels"],
        service["Service"]["spec"]["selector"],
        service["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        service["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        *(constraint["labelSelector"]["matchLabels"] for constraint in spread),
    ]
    for selector in selectors:
        assert selector
        assert selector.items() <= labels
    monitor = service.get("ServiceMonitor")
    if monitor:
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        assert wanted <= service["Service"]["metadata"]["labels"].items()


def test_ports_are_known_by_one_name_that_leads_to_the_port_of_the_service(
    whole: dict[str, Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    container = container_of(whole)
    settings = settings_of(container, monkeypatch)
    assert container["ports"] == [{"name": "http", "containerPort": settings.port}]
    (port,) = whole["Service"]["spec"]["ports"]
    assert (port["name"], port["targetPort"]) == ("http", "http")
    (endpoint,) = whole["ServiceMonitor"]["spec"]["endpoints"]
    assert endpoint["port"] == port["name"]
    (rule,) = whole["NetworkPolicy"]["spec"]["ingress"]
    assert rule["ports"] == [{"port": "http", "protocol": "TCP"}]
    for path in whole["Ingress"]["spec"]["rules"][0]["http"]["paths"]:
        assert path["backend"]["service"] == {"name": "atelier", "port": {"name": port["name"]}}
    assert whole["Service"]["metadata"]["name"] == "atelier"  # also the job of the alert rules


def test_only_the_ingress_controller_and_prometheus_reach_the_pods_and_they_reach_nobody(
    service: dict[str, Document],
) -> None:
    policy = service["NetworkPolicy"]["spec"]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    assert policy["egress"] == []
    (rule,) = policy["ingress"]
    named = [source["namespaceSelector"]["matchLabels"] for source in rule["from"]]
    assert [labels["kubernetes.io/metadata.name"] for labels in named] == [
        "nginx-ingress",
        "monitoring",
    ]


def test_roll_outs_and_drained_nodes_leave_pods_that_serve(service: dict[str, Document]) -> None:
    deployment = service["Deployment"]["spec"]
    assert deployment["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    fewest = deployment.get("replicas")
    if "HorizontalPodAutoscaler" in service:
        fewest = service["HorizontalPodAutoscaler"]["spec"]["minReplicas"]
    if "ScaledObject" in service:
        fewest = service["ScaledObject"]["spec"]["minReplicaCount"]
    assert 1 <= service["PodDisruptionBudget"]["spec"]["maxUnavailable"] < fewest


def test_the_way_in_publishes_what_is_for_everyone_and_nothing_else(
    whole: dict[str, Document],
) -> None:
    application = create_app(Settings(admin_keys="0" * 64))
    of_people = {"/", "/static/main.js", "/openapi.json", "/docs"}
    served = {*application.openapi()["paths"], *of_people}
    (rule,) = whole["Ingress"]["spec"]["rules"]
    published = {
        path
        for path in served
        for entry in rule["http"]["paths"]
        if path == entry["path"]
        or (entry["pathType"] == "Prefix" and path.startswith(entry["path"] + "/"))
    }
    inside = {"/metrics", "/livez", "/readyz", "/admin/reload"}
    assert served - published == inside & served
    assert {"/metrics", "/admin/reload"} <= served


def test_the_way_in_has_the_limits_of_nginx_and_lets_the_service_speak_first(
    whole: dict[str, Document],
) -> None:
    annotations = {
        key.removeprefix("nginx.org/"): value
        for key, value in whole["Ingress"]["metadata"]["annotations"].items()
    }
    configuration = (ROOT / "deploy/nginx/nginx.conf").read_text()
    for name in (
        "client-max-body-size",
        "proxy-connect-timeout",
        "proxy-send-timeout",
        "proxy-read-timeout",
        "proxy-next-upstream",
        "proxy-next-upstream-tries",
        "proxy-next-upstream-timeout",
    ):
        directive = name.replace("-", "_")
        assert re.search(rf"^ *{directive} {annotations[name]};", configuration, re.MULTILINE), name
    assert f"{annotations['lb-method']};" in configuration
    assert f"max_fails={annotations['max-fails']}" in configuration
    megabytes = annotations["client-max-body-size"].removesuffix("m")
    assert int(megabytes) * 2**20 > Settings().max_body_bytes
    assert int(annotations["proxy-read-timeout"][:-1]) > Settings().request_timeout_s
