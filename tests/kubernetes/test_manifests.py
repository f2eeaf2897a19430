"""What is there, and that each document fits its schema."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import kubernetes_validate
import pytest
import yaml

from tests.kubernetes.manifests import FOLDER, OTHERS, SERVICES, Document, check_schema

if TYPE_CHECKING:
    from collections.abc import Callable


def test_every_file_is_named_by_a_kustomization() -> None:
    named = {FOLDER / "components/hpa/prometheus-adapter.yaml"}  # for Helm; tested below
    for path in FOLDER.rglob("kustomization.yaml"):
        content = yaml.safe_load(path.read_text())
        patches = [patch["path"] for patch in content.get("patches", ()) if "path" in patch]
        named |= {path} | {(path.parent / name) for name in [*content["resources"], *patches]}
    files = {path for path in FOLDER.rglob("*") if path.is_file()}
    assert files - named == set()


def test_every_folder_is_rendered_here() -> None:
    kustomizations = {
        path.parent.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("kustomization.yaml")
    }
    rendered = {folder for folder, _ in (SERVICES | OTHERS).values()} | {"base", "namespace"}
    rendered |= {f"components/{name}" for _, names in SERVICES.values() for name in names}
    assert kustomizations == rendered


def test_every_document_fits_the_schema_of_its_kind(documents: list[Document]) -> None:
    for document in documents:
        check_schema(document)


@pytest.mark.parametrize(
    ("installation", "kind", "path"),
    [
        ("cpu", "Deployment", "spec.template.spec.containers.0"),
        ("cpu", "PodDisruptionBudget", "spec"),
        ("cpu, hpa", "HorizontalPodAutoscaler", "spec.metrics.0.external.target"),
        ("cpu, hpa", "ServiceMonitor", "spec.endpoints.0"),
        ("gpu, keda", "ScaledObject", "spec.triggers.0"),
        ("ray", "RayService", "spec.rayClusterConfig.workerGroupSpecs.0"),
        ("ray", "RayService", "spec.rayClusterConfig.headGroupSpec.template.spec"),
    ],
)
def test_a_field_that_no_schema_knows_is_found(
    render: Callable[..., list[Document]], installation: str, kind: str, path: str
) -> None:
    (document,) = (
        copy.deepcopy(d) for d in render(*(SERVICES | OTHERS)[installation]) if d["kind"] == kind
    )
    check_schema(document)
    place = document
    for step in path.split("."):
        place = place[int(step) if step.isdecimal() else step]
    place["replicaz"] = 3
    with pytest.raises((AssertionError, kubernetes_validate.ValidationError)):
        check_schema(document)


def test_everything_is_in_the_namespace_that_refuses_privileges(documents: list[Document]) -> None:
    for document in documents:
        if document["kind"] == "Namespace":
            name = document["metadata"]["name"]
            labels = document["metadata"]["labels"]
            assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
        else:
            name = document["metadata"]["namespace"]
        assert name == "atelier", document["kind"]
