"""Pods, as the service, the kubelet and a restricted namespace want them."""

from __future__ import annotations

import asyncio
import re
import tomllib
from typing import TYPE_CHECKING, Any

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from model_zoo.cards import SHIPPED_ZOO
from service.lifecycle import CLOSE_WITHIN_S
from service.settings import ENV_PREFIX
from tests.kubernetes.manifests import (
    FOLDER,
    ROOT,
    SERVICES,
    Document,
    amount,
    container_of,
    settings_of,
    templates,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest


def test_pods_are_what_a_restricted_namespace_admits_and_write_only_to_tmp_and_the_zoo(
    documents: list[Document],
) -> None:
    pods = [template["spec"] for document in documents for template in templates(document)]
    assert pods
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 10001
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert all({"emptyDir", "persistentVolumeClaim"} & set(v) for v in pod["volumes"])
        for container in [*pod.get("initContainers", ()), *pod["containers"]]:
            assert container["securityContext"] == {
                "readOnlyRootFilesystem": True,
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
            written = {m["mountPath"] for m in container["volumeMounts"] if "readOnly" not in m}
            allowed = {"seed-zoo": {"/zoo"}, "zoo-editor": {"/zoo"}}
            assert written == allowed.get(container["name"], {"/tmp"})  # noqa: S108
            assert (
                container["resources"]["requests"].keys() == container["resources"]["limits"].keys()
            )


def test_pods_of_the_service_have_no_token_and_no_variables_of_services(
    service: dict[str, Document],
) -> None:
    pod = service["Deployment"]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert service["Service"]["metadata"]["name"].upper() + "_" == ENV_PREFIX


def test_the_service_starts_with_the_environment_of_its_container(
    service: dict[str, Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every name is a setting, and every value one that it may have."""
    settings = settings_of(container_of(service), monkeypatch)
    assert settings.host == "0.0.0.0"  # noqa: S104
    mounts = {mount["mountPath"] for mount in container_of(service)["volumeMounts"]}
    assert settings.zoo == SHIPPED_ZOO or str(settings.zoo) in mounts


def test_the_kubelet_waits_for_the_drain_and_the_requests_in_flight(
    service: dict[str, Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    container = container_of(service)
    settings = settings_of(container, monkeypatch)
    before_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    bound_s = before_s + settings.drain_s + settings.shutdown_timeout_s + CLOSE_WITHIN_S
    pod = service["Deployment"]["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > bound_s
    readiness = container["readinessProbe"]
    assert settings.drain_s > readiness["periodSeconds"] * readiness["failureThreshold"]


def test_probes_ask_the_service_what_each_is_for(service: dict[str, Document]) -> None:
    container = container_of(service)
    asked = {name: container[name]["httpGet"] for name in container if name.endswith("Probe")}
    assert asked == {
        "startupProbe": {"path": "/readyz", "port": "http"},
        "readinessProbe": {"path": "/readyz", "port": "http"},
        "livenessProbe": {"path": "/livez", "port": "http"},
    }
    for name in asked:
        assert container[name]["timeoutSeconds"] <= container[name]["periodSeconds"]
    roll_out_s = service["Deployment"]["spec"]["progressDeadlineSeconds"]
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] < roll_out_s


def test_memory_holds_all_that_is_bounded(
    service: dict[str, Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 25 bytes a pixel, as in docker-compose.yml; passes on a GPU have memory of their own."""
    container = container_of(service)
    settings = settings_of(container, monkeypatch)
    passes = settings.memory_budget_mib * 2**20 if settings.device == "cpu" else 0
    pictures = 25 * settings.max_in_flight_pixels
    libraries = 512 * 2**20
    needed = passes + pictures + settings.max_body_memory_bytes + libraries
    assert needed <= amount(container["resources"]["limits"]["memory"])


def test_threads_are_as_many_as_the_cores_that_are_requested_and_may_be_used(
    service: dict[str, Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    container = container_of(service)
    settings = settings_of(container, monkeypatch)
    assert container["resources"]["requests"] == container["resources"]["limits"]
    cores = amount(container["resources"]["limits"]["cpu"])
    assert settings.model_threads == settings.codec_threads == cores


def test_the_overlays_differ_by_device_image_and_resources(
    render: Callable[..., list[Document]], monkeypatch: pytest.MonkeyPatch
) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for overlay, device, tag in (("cpu", "cpu", version), ("gpu", "cuda", f"{version}-cuda")):
        service = {document["kind"]: document for document in render(*SERVICES[overlay])}
        container = container_of(service)
        assert container["image"] == f"atelier:{tag}"
        assert settings_of(container, monkeypatch).device == device
        pod = service["Deployment"]["spec"]["template"]["spec"]
        assert (container["resources"]["limits"].get("nvidia.com/gpu") == "1") == (device == "cuda")
        keys = {toleration["key"] for toleration in pod.get("tolerations", ())}
        assert keys == ({"nvidia.com/gpu"} if device == "cuda" else set())


def test_keys_come_from_a_secret_that_need_not_be_there_and_is_not_here(
    service: dict[str, Document],
) -> None:
    (source,) = container_of(service)["envFrom"]
    assert source == {"secretRef": {"name": "atelier-keys", "optional": True}}
    assert "Secret" not in service
    for path in FOLDER.rglob("*.yaml"):
        assert not re.search(r"\b[0-9a-f]{64}\b", path.read_text()), path


def test_a_client_cannot_pass_for_another_by_writing_a_header(
    service: dict[str, Document],
) -> None:
    """The controller adds the address that it sees to the list that it was sent."""
    trusted = {e["name"]: e.get("value") for e in container_of(service)["env"]}
    seen: list[str] = []

    async def application(scope: Any, _receive: Any, _send: Any) -> None:
        seen.append(scope["client"][0])

    middleware = ProxyHeadersMiddleware(application, trusted["FORWARDED_ALLOW_IPS"])
    for forwarded in (b"198.51.100.7, 203.0.113.9", b"203.0.113.9, 10.9.9.9"):
        headers = [(b"x-forwarded-for", forwarded), (b"x-forwarded-proto", b"https")]
        scope = {"type": "http", "scheme": "http", "headers": headers, "client": ("10.1.2.3", 1)}
        asyncio.run(middleware(scope, None, None))  # type: ignore[arg-type]
    assert seen == ["203.0.113.9", "203.0.113.9"]
