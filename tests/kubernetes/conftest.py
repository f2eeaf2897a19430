"""Manifests as kustomize renders them: ``kubectl apply -k`` would send these."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.kubernetes.manifests import FOLDER, OTHERS, SERVICES, Document

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(scope="session")
def kubectl() -> str:
    beside = Path(sys.executable).parent
    found = shutil.which("kubectl", path=f"{beside}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        pytest.skip("there is no kubectl for this system on PyPI, and none is installed")
    return found


@pytest.fixture(scope="session")
def render(kubectl: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[Document]]:
    """Give the documents of a folder with components, as ``kubectl apply -k`` would send them."""

    @cache
    def rendered(folder: str, components: tuple[str, ...]) -> str:
        place = FOLDER / folder
        if components:
            place = tmp_path_factory.mktemp("installation")
            relative = {
                "resources": [FOLDER / folder],
                "components": [FOLDER / "components" / name for name in components],
            }
            kustomization = {
                field: [os.path.relpath(path.resolve(), place.resolve()) for path in paths]
                for field, paths in relative.items()
            }
            (place / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        finished = subprocess.run(
            [kubectl, "kustomize", str(place)], capture_output=True, text=True, check=False
        )
        assert finished.returncode == 0, finished.stderr
        assert finished.stderr == ""  # deprecated fields are warned of
        return finished.stdout

    return lambda folder, components: list(yaml.safe_load_all(rendered(folder, components)))


@pytest.fixture(params=[*SERVICES.values(), *OTHERS.values()], ids=[*SERVICES, *OTHERS])
def documents(
    request: pytest.FixtureRequest, render: Callable[..., list[Document]]
) -> list[Document]:
    return render(*request.param)


@pytest.fixture(params=SERVICES.values(), ids=[*SERVICES])
def service(
    request: pytest.FixtureRequest, render: Callable[..., list[Document]]
) -> dict[str, Document]:
    return {document["kind"]: document for document in render(*request.param)}


@pytest.fixture
def whole(render: Callable[..., list[Document]]) -> dict[str, Document]:
    """An installation with every component but KEDA's."""
    return {document["kind"]: document for document in render(*SERVICES["cpu, hpa"])}


@pytest.fixture
def scaled(render: Callable[..., list[Document]]) -> dict[str, Document]:
    """The same with KEDA."""
    return {document["kind"]: document for document in render(*SERVICES["gpu, keda"])}


@pytest.fixture
def ray(render: Callable[..., list[Document]]) -> dict[str, Document]:
    return {document["kind"]: document for document in render(*OTHERS["ray"])}


@pytest.fixture(scope="module")
def adapter() -> dict[str, Document]:
    """The rules of the Prometheus adapter, by the metric that each makes."""
    values = yaml.safe_load((FOLDER / "components/hpa/prometheus-adapter.yaml").read_text())
    return {rule["name"]["as"]: rule for rule in values["rules"]["external"]}
