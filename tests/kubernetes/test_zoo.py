"""The zoo on a volume."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from model_zoo.cards import SHIPPED_ZOO
from service.zoos import Zoo
from tests.kubernetes.manifests import OTHERS, ROOT, Document, container_of, settings_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest


def test_an_empty_volume_is_given_the_shipped_zoo_and_a_zoo_of_ones_own_is_left_alone(
    whole: dict[str, Document], tmp_path: Path
) -> None:
    (seed,) = whole["Deployment"]["spec"]["template"]["spec"]["initContainers"]
    script = [sys.executable, *seed["command"][1:], *seed["args"]]
    environment = os.environ | {"ATELIER_ZOO": str(tmp_path)}

    subprocess.run(script, env=environment, check=True, cwd=ROOT)
    zoo, shipped = Zoo.read(tmp_path), Zoo.read(SHIPPED_ZOO)
    manifest = tmp_path / "manifest.toml"
    manifest.write_text("# mine\n" + manifest.read_text())
    subprocess.run(script, env=environment, check=True, cwd=ROOT)

    assert (zoo.digest, zoo.previews) == (shipped.digest, shipped.previews)
    assert manifest.read_text().startswith("# mine\n")
    assert not list(tmp_path.rglob(".*"))


def test_replicas_look_for_a_new_zoo_themselves_and_cannot_write_to_it(
    whole: dict[str, Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    container = container_of(whole)
    assert settings_of(container, monkeypatch).zoo_poll_seconds > 0
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert mounts["/zoo"]["readOnly"] is True
    (claim,) = (
        volume["persistentVolumeClaim"]["claimName"]
        for volume in whole["Deployment"]["spec"]["template"]["spec"]["volumes"]
        if "persistentVolumeClaim" in volume
    )
    assert claim == whole["PersistentVolumeClaim"]["metadata"]["name"]


def test_the_editor_of_the_zoo_mounts_the_same_volume_and_ends_by_itself(
    render: Callable[..., list[Document]], whole: dict[str, Document]
) -> None:
    (pod,) = render(*OTHERS["zoo-editor"])
    (volume,) = pod["spec"]["volumes"]
    claim = whole["PersistentVolumeClaim"]["metadata"]["name"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim
    assert pod["spec"]["activeDeadlineSeconds"] <= 3600
    selector = whole["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"].items()
    assert not selector <= pod["metadata"]["labels"].items()
