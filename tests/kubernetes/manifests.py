"""What the tests read in a manifest, and the schemas that they hold it to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudcoil.models.keda.v1alpha1 as keda
import cloudcoil.models.prometheus_operator.v1 as prometheus_operator
import kubernetes_validate

from service.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/kubernetes"
# preStop.sleep came with 1.30; the newest is the newest that the schemas know.
VERSIONS = ("1.30", "1.37")
CUSTOM = {
    "ScaledObject": keda.ScaledObject,
    "ServiceMonitor": prometheus_operator.ServiceMonitor,
}
# From KubeRay's types, which no package ships; what is inside a pod template has a schema.
RAY_FIELDS = {
    "spec": {"serveConfigV2", "rayClusterConfig"},
    "cluster": {
        "rayVersion",
        "enableInTreeAutoscaling",
        "autoscalerOptions",
        "headGroupSpec",
        "workerGroupSpecs",
    },
    "autoscaler": {"idleTimeoutSeconds", "resources", "securityContext"},
    "head": {"rayStartParams", "template"},
    "worker": {
        "groupName",
        "replicas",
        "minReplicas",
        "maxReplicas",
        "rayStartParams",
        "template",
    },
}
AROUND = ("zoo-volume", "ingress", "monitoring")
# What is rendered: a folder, and the components beside it.
SERVICES = {
    "cpu": ("cpu", ()),
    "gpu": ("gpu", ()),
    "cpu, hpa": ("cpu", (*AROUND, "hpa")),
    "gpu, keda": ("gpu", (*AROUND, "keda")),
    "example": ("example", ()),
}
OTHERS = {"ray": ("ray", ()), "zoo-editor": ("zoo-editor", ())}
_BYTES = {"": 1, "Mi": 2**20, "Gi": 2**30}

Document = dict[str, Any]


def amount(quantity: str) -> float:
    """Read 2, 500m or 4Gi, as Kubernetes does: ``m`` is a thousandth."""
    number, unit = re.fullmatch(r"([\d.]+)(\D*)", quantity).groups()
    return float(number) / 1000 if unit == "m" else float(number) * _BYTES[unit]


def container_of(service: dict[str, Document]) -> Document:
    (container,) = service["Deployment"]["spec"]["template"]["spec"]["containers"]
    return container


def templates(document: Document) -> Iterator[Document]:
    """Give every pod template of a document, as ``{"metadata": ..., "spec": ...}``."""
    if document["kind"] == "Pod":
        yield {"metadata": document["metadata"], "spec": document["spec"]}
    elif document["kind"] == "Deployment":
        yield document["spec"]["template"]
    elif document["kind"] == "RayService":
        cluster = document["spec"]["rayClusterConfig"]
        yield cluster["headGroupSpec"]["template"]
        yield from (group["template"] for group in cluster["workerGroupSpecs"])


def settings_of(container: Document, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Read the environment of a container as the service in it would."""
    for entry in container["env"]:
        if "value" in entry:
            value = entry["value"]
        else:
            part, name = entry["valueFrom"]["resourceFieldRef"]["resource"].split(".")
            value = container["resources"][part][name]
        monkeypatch.setenv(entry["name"], value)
    return Settings.from_environment()


def check_schema(document: Document) -> None:
    """Hold a document to the schema of its kind, in which no other field may be.

    Raises:
        AssertionError: it does not fit, by our own comparison.
        kubernetes_validate.ValidationError: it does not fit a schema of Kubernetes.
    """
    kind = document["kind"]
    if kind in CUSTOM:
        read = CUSTOM[kind].model_validate(document)
        # The models drop what they do not know.
        assert read.model_dump(mode="json", by_alias=True, exclude_unset=True) == document
    elif kind == "RayService":
        _check_ray_service(document)
    else:
        for version in VERSIONS:
            kubernetes_validate.validate(document, version, strict=True)


def _check_ray_service(document: Document) -> None:
    cluster = document["spec"]["rayClusterConfig"]
    assert document["apiVersion"] == "ray.io/v1"
    assert set(document) == {"apiVersion", "kind", "metadata", "spec"}
    assert set(document["spec"]) == RAY_FIELDS["spec"]
    assert set(cluster) == RAY_FIELDS["cluster"]
    assert set(cluster["autoscalerOptions"]) == RAY_FIELDS["autoscaler"]
    assert set(cluster["headGroupSpec"]) == RAY_FIELDS["head"]
    for group in cluster["workerGroupSpecs"]:
        assert set(group) == RAY_FIELDS["worker"]
    for template in templates(document):
        check_schema({"apiVersion": "v1", "kind": "PodTemplate", "template": template})
