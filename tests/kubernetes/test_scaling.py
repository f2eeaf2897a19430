"""The autoscaler, by HPA or KEDA."""

from __future__ import annotations

import re

from service.metrics import Metrics
from tests.kubernetes.manifests import Document, amount


def test_hpa_and_keda_ask_the_same_and_do_the_same(
    whole: dict[str, Document], scaled: dict[str, Document], adapter: dict[str, Document]
) -> None:
    hpa, scaled_object = whole["HorizontalPodAutoscaler"]["spec"], scaled["ScaledObject"]["spec"]
    assert (hpa["minReplicas"], hpa["maxReplicas"]) == (
        scaled_object["minReplicaCount"],
        scaled_object["maxReplicaCount"],
    )
    behavior = scaled_object["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert hpa["behavior"] == behavior
    assert len(hpa["metrics"]) == len(scaled_object["triggers"]) == 2
    for metric, trigger in zip(hpa["metrics"], scaled_object["triggers"], strict=True):
        external, asked = metric["external"], trigger["metadata"]
        assert external["target"]["type"] == trigger["metricType"] == "Value"
        assert amount(external["target"]["value"]) == float(asked["threshold"])
        query = adapter[external["metric"]["name"]]["metricsQuery"]
        assert query.replace("<<.LabelMatchers>>", 'namespace="atelier"') == asked["query"]
        assert asked["ignoreNullValues"] == "false"


def test_an_autoscaler_alone_says_how_many_pods_there_are(
    service: dict[str, Document],
) -> None:
    autoscaler = service.get("HorizontalPodAutoscaler") or service.get("ScaledObject")
    deployment = service["Deployment"]
    assert ("replicas" in deployment["spec"]) == (autoscaler is None)
    if autoscaler:
        assert autoscaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]


def test_rules_of_the_adapter_ask_for_metrics_and_labels_that_the_service_has(
    adapter: dict[str, Document],
) -> None:
    samples = {s.name: s for f in Metrics().registry.collect() for s in f.samples}
    stages = {s.labels.get("stage") for f in Metrics().registry.collect() for s in f.samples}
    assert set(adapter) == {"atelier_queue_seconds", "atelier_busy_share"}
    for rule in adapter.values():
        series = re.fullmatch(r"(\w+)\{.*namespace!=\"\"\}", rule["seriesQuery"])
        assert series
        named = set(re.findall(r"\batelier_\w+", rule["metricsQuery"]))
        assert series[1] in named
        assert named <= set(samples)
        assert set(re.findall(r'stage="(\w+)"', rule["metricsQuery"])) <= stages
        assert rule["resources"] == {"overrides": {"namespace": {"resource": "namespace"}}}
