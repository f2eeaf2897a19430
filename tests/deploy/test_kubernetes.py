"""What the Kubernetes manifests say to Prometheus and to Ray, read by these themselves."""

from __future__ import annotations

import subprocess
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from service.cluster.options import ClusterOptions
from tests.kubernetes.manifests import FOLDER

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MINUTES = 10
# By pod: how many of ten pictures a second wait up to half a second; the others wait up to one.
WAITS = {"a": 10, "b": 6}
BUSY = {"a": 0.9, "b": 0.5}


def queries(namespace: str) -> dict[str, str]:
    """Give what the Prometheus adapter asks where an autoscaler of ``namespace`` asks it."""
    text = (FOLDER / "components/hpa/prometheus-adapter.yaml").read_text(encoding="utf-8")
    return {
        rule["name"]["as"]: rule["metricsQuery"].replace(
            "<<.LabelMatchers>>", f'namespace="{namespace}"'
        )
        for rule in yaml.safe_load(text)["rules"]["external"]
    }


def series(namespace: str, pod: str, rates: dict[str, float]) -> list[dict[str, str]]:
    """Write counters that rise by so much a second."""
    labels = f'namespace="{namespace}", pod="{pod}"'
    return [
        {
            "series": name.replace("}", f", {labels}}}") if "{" in name else f"{name}{{{labels}}}",
            "values": f"0+{60 * rate:g}x{MINUTES}",
        }
        for name, rate in rates.items()
    ]


def pod_series(
    namespace: str, pod: str, soon: float, all_of_them: float, busy: float
) -> list[dict[str, str]]:
    stage = 'atelier_stage_seconds_{}{{stage="queue"{}}}'
    return series(
        namespace,
        pod,
        {
            stage.format("bucket", ', le="0.5"'): soon,
            stage.format("bucket", ', le="1.0"'): all_of_them,
            stage.format("bucket", ', le="+Inf"'): all_of_them,
            stage.format("count", ""): all_of_them,
            # Another stage, as slow as can be, which is none of the autoscaler's business.
            'atelier_stage_seconds_bucket{stage="stylize", le="+Inf"}': 50,
            "atelier_model_busy_seconds_total": busy,
        },
    )


@pytest.mark.parametrize(
    ("case", "metric", "expected"),
    [
        # 16 of 20 within half a second, all within one: nine in ten within three quarters.
        ("loaded", "atelier_queue_seconds", 0.75),
        ("loaded", "atelier_busy_share", 0.7),
        ("idle", "atelier_queue_seconds", 0),
        ("idle", "atelier_busy_share", 0),
        ("not scraped", "atelier_queue_seconds", None),
        ("not scraped", "atelier_busy_share", None),
    ],
)
def test_the_autoscaler_learns_the_wait_and_the_busy_share_of_its_own_namespace(
    find_tool: Callable[[str, str], str],
    tmp_path: Path,
    case: str,
    metric: str,
    expected: float | None,
) -> None:
    """By promtool, which computes the queries on series that are known."""
    promtool = find_tool("promtool", "prometheus")
    written = pod_series("elsewhere", "c", 0, 10, 1)
    for pod in WAITS if case != "not scraped" else ():
        load = (WAITS[pod], 10, BUSY[pod]) if case == "loaded" else (0, 0, 0)
        written += pod_series("atelier", pod, *load)
    check = {
        "expr": f"round(({queries('atelier')[metric]}), 0.0001)",
        "eval_time": f"{MINUTES}m",
        "exp_samples": [] if expected is None else [{"labels": "{}", "value": expected}],
    }
    file = tmp_path / "queries.yml"
    test = {"interval": "1m", "input_series": written, "promql_expr_test": [check]}
    file.write_text(yaml.safe_dump({"rule_files": [], "tests": [test]}), encoding="utf-8")

    finished = subprocess.run(
        [promtool, "test", "rules", str(file)], capture_output=True, text=True, check=False
    )

    assert finished.returncode == 0, finished.stdout + finished.stderr


@pytest.fixture(scope="module")
def serve_config() -> dict[str, Any]:
    manifest = yaml.safe_load((FOLDER / "ray/rayservice.yaml").read_text(encoding="utf-8"))
    loaded: dict[str, Any] = yaml.safe_load(manifest["spec"]["serveConfigV2"])
    return loaded


def test_serve_knows_every_field_of_its_configuration(serve_config: dict[str, Any]) -> None:
    read = ServeDeploySchema.model_validate(serve_config)

    assert read.model_dump(mode="json", exclude_unset=True) == serve_config


def test_serve_finds_the_application_and_it_its_arguments(serve_config: dict[str, Any]) -> None:
    (application,) = serve_config["applications"]
    module, _, name = application["import_path"].partition(":")

    assert callable(getattr(import_module(module), name))
    options = ClusterOptions(**application["args"])
    assert options.engines_min >= 2
