from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from service.settings import Settings, SettingsError, available_cores, variable_name

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("ATELIER_"):
            monkeypatch.delenv(name)


def test_settings_when_nothing_is_set_then_are_the_documented_defaults() -> None:
    settings = Settings.from_environment()
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert settings.max_body_bytes == 20 * 2**20
    assert settings.max_source_pixels == 50_000_000
    assert (settings.default_max_side_px, settings.max_side_px) == (1024, 4096)
    assert settings.request_timeout_s == 30
    assert settings.model_threads == settings.codec_threads == available_cores()


def test_settings_are_read_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ATELIER_PORT", "9000")
    monkeypatch.setenv("ATELIER_ZOO", str(tmp_path))
    monkeypatch.setenv("ATELIER_HOST", "")
    settings = Settings.from_environment()
    assert (settings.port, settings.zoo, settings.host) == (9000, tmp_path, "127.0.0.1")


@pytest.mark.parametrize(
    ("variables", "problems"),
    [
        ({"ATELIER_PROT": "1"}, ["ATELIER_PROT is not a setting .* did you mean ATELIER_PORT"]),
        ({"ATELIER_XYZZY": "1"}, ["ATELIER_XYZZY is not a setting of this service$"]),
        ({"ATELIER_PORT": "http"}, ["ATELIER_PORT=http: .* integer"]),
        (
            {"ATELIER_PORT": "70000", "ATELIER_DEVICE": "tpu", "ATELIER_HOTS": "x"},
            ["ATELIER_HOTS", "ATELIER_PORT=70000", "ATELIER_DEVICE=tpu"],
        ),
        ({"ATELIER_MAX_SIDE_PX": "512"}, ["ATELIER_DEFAULT_MAX_SIDE_PX=1024 exceeds .*=512"]),
    ],
)
def test_settings_when_the_environment_is_wrong_then_each_problem_names_its_variable(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], problems: list[str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment()
    assert len(caught.value.problems) == len(problems)
    for problem, expected in zip(caught.value.problems, problems, strict=True):
        assert re.search(expected, problem)


def test_settings_are_frozen_and_refuse_unknown_names() -> None:
    settings = Settings()
    with pytest.raises(ValidationError):
        settings.port = 1  # type: ignore[misc]
    unknown: dict[str, Any] = {"prot": 1}
    with pytest.raises(ValidationError):
        Settings(**unknown)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_has_a_reason_and_a_variable(name: str) -> None:
    assert Settings.model_fields[name].description
    assert variable_name(name) == f"ATELIER_{name.upper()}"
