"""Settings: every knob of the service, read from ATELIER_* environment variables."""

import difflib
import os
import re
from pathlib import Path
from typing import Any, Literal, Self

import limits
from pydantic import Field, ValidationError, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from model_zoo.cards import SHIPPED_ZOO
from service.keys import KeyRing

ENV_PREFIX = "ATELIER_"

_ORIGIN = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]+)?|https?://\[[0-9A-Fa-f:]+\](:[0-9]+)?")
# Who sets a key in place of its hash should not find it in a log.
_SECRETS = frozenset({"api_keys", "admin_keys"})
# What may not exceed another setting.
_AT_MOST = {
    "default_max_side_px": "max_side_px",
    "live_frame_rate": "live_max_frame_rate",
    "live_min_side_px": "live_max_side_px",
}


class SettingsError(Exception):
    """The environment does not make valid settings; ``problems`` holds one sentence for each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def available_cores() -> int:
    """Count the cores this process may run on, which in a container is not all of the machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Settings(BaseSettings):
    """Every knob, with its unit in its name and its reason in its description."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_ignore_empty=True, extra="forbid", frozen=True
    )

    host: str = Field(
        default="127.0.0.1", description="address to listen on; 0.0.0.0 opens every one"
    )
    port: int = Field(default=8000, ge=0, le=65535, description="TCP port; 0 takes a free one")
    root_path: str = Field(
        default="", description="path prefix that a reverse proxy strips before it forwards"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="least severe event to log; probes are logged at debug"
    )

    zoo: Path = Field(
        default=SHIPPED_ZOO, description="folder that holds manifest.toml; shipped by default"
    )
    zoo_poll_seconds: float = Field(
        default=0.0, ge=0, description="how often to look for another manifest; 0 is never"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="where generators run; auto takes CUDA where there is one"
    )
    runtime: Literal["auto", "torch", "openvino"] = Field(
        default="auto", description="what computes; auto takes OpenVINO on a CPU if installed"
    )
    model_threads: int = Field(
        default_factory=available_cores,
        ge=1,
        description="threads inside one forward pass on a CPU; all available cores by default",
    )
    codec_threads: int = Field(
        default_factory=available_cores,
        ge=1,
        description="pictures decoded or encoded at once; all available cores by default",
    )
    memory_budget_mib: int = Field(
        default=2048,
        ge=256,
        description="memory for passes; a picture that needs more is painted in tiles",
    )
    warm_up_side_px: int = Field(
        default=256,
        ge=16,
        le=4096,
        description="side of the picture each style paints before readiness",
    )

    max_body_bytes: int = Field(
        default=20 * 2**20, ge=1024, description="largest request body, counted while it arrives"
    )
    max_source_pixels: int = Field(
        default=50_000_000,
        ge=1,
        description="largest picture, judged by its header before it is decoded",
    )
    min_side_px: int = Field(
        default=16, ge=1, description="shortest side worth painting; strokes are wider than less"
    )
    default_max_side_px: int = Field(
        default=1024, ge=1, description="longer side of the answer where a request does not say"
    )
    max_side_px: int = Field(
        default=4096,
        ge=1,
        le=16384,
        description="largest max_side a request may ask; bounds its time and memory",
    )
    default_quality: int = Field(
        default=90, ge=1, le=100, description="JPEG and WebP quality where a request does not say"
    )

    request_timeout_s: float = Field(
        default=30.0, gt=0, le=3600, description="longest a request may take from arrival; then 504"
    )
    max_in_flight: int = Field(
        default=32, ge=1, description="requests admitted at once; one more is answered 429"
    )
    max_in_flight_pixels: int = Field(
        default=64 * 1024 * 1024,
        ge=1,
        description="pixels of all pictures in flight, of which each takes 7 to 31 bytes of "
        "memory; a larger one is served alone",
    )
    max_body_memory_bytes: int = Field(
        default=256 * 2**20,
        ge=1024,
        description="all bodies and answers in memory; what does not fit is refused unread",
    )
    max_batch_jobs: int | None = Field(
        default=None,
        ge=1,
        description="most pictures in a pass; 8 on CUDA, 1 on a CPU, where more only wait",
    )
    max_batch_pixels: int = Field(
        default=4 * 1024 * 1024, ge=1, description="most pixels in one pass of several pictures"
    )
    stall_timeout_s: float = Field(
        default=60.0,
        gt=0,
        description="a forward pass longer than this for each megapixel, or this if it has less, "
        "means a hung device",
    )
    exit_when_lost: bool = Field(
        default=True,
        description="end with exit code 3 when the device hangs or breaks down, to be restarted",
    )

    head_timeout_s: float = Field(
        default=10.0,
        gt=0,
        description="time for the head of a request, and for the rest of a body already answered",
    )
    body_timeout_s: float = Field(
        default=10.0,
        gt=0,
        description="time for a body, and a second more for each 16 KiB that came; then 408",
    )
    send_timeout_s: float = Field(
        default=20.0,
        gt=0,
        description="time for a client to take 256 KiB of an answer; then it is cut off",
    )
    keep_alive_s: int = Field(
        default=75, ge=1, description="idle connection time; longer than a load balancer's 60 s"
    )
    max_connections: int = Field(
        default=1000,
        ge=1,
        description="connections at once; more are cut off, before open files run out",
    )
    drain_s: float = Field(
        default=0.0, ge=0, description="time after SIGTERM to serve on while readiness answers 503"
    )
    shutdown_timeout_s: int = Field(
        default=30,
        ge=1,
        description="longest wait for requests in flight once the socket is closed",
    )

    live_sessions: int = Field(
        default=4, ge=0, description="live sessions at once; 0 switches /live off"
    )
    live_sessions_per_client: int = Field(
        default=2, ge=1, description="those of one key, or address if there are no keys"
    )
    live_frame_rate: float = Field(
        default=15.0,
        gt=0,
        le=120,
        description="frames a second that a live session aims at where it does not say",
    )
    live_max_frame_rate: float = Field(
        default=30.0, gt=0, le=120, description="most that it may ask for"
    )
    live_max_side_px: int = Field(
        default=640, ge=16, le=4096, description="longer side of live frames while there is time"
    )
    live_min_side_px: int = Field(
        default=160, ge=16, le=4096, description="what it may shrink to where there is none"
    )
    live_max_frame_bytes: int = Field(
        default=2 * 2**20, ge=1024, description="largest frame; a session holds up to three"
    )
    live_idle_timeout_s: float = Field(
        default=60.0, gt=0, description="time for the next message of a live session, of any kind"
    )
    live_session_s: float = Field(
        default=3600.0, gt=0, description="longest live session; its client may begin another"
    )

    api_keys: str = Field(
        default="",
        repr=False,
        description="hashes of keys, as NAME=HASH,NAME=HASH; without any, everyone may paint",
    )
    admin_keys: str = Field(
        default="", repr=False, description="the same for /admin, which is not there without any"
    )
    rate_limit: str = Field(
        default="",
        description="most POST /stylize of one key, or address if there are no keys: 60/minute",
    )
    metrics_need_key: bool = Field(
        default=False, description="whether /metrics asks for a key, of either kind"
    )
    page: bool = Field(
        default=True, description="whether there is a page at / for people, in a browser"
    )
    cors_origins: str = Field(
        default="", description="origins whose pages may call from browsers, by comma, or *"
    )

    @field_validator("api_keys", "admin_keys")
    @classmethod
    def _check_keys(cls, value: str) -> str:
        KeyRing.parse(value)
        return value

    @field_validator("rate_limit")
    @classmethod
    def _check_rate_limit(cls, value: str) -> str:
        try:
            usable = not value or limits.parse(value).amount > 0
        except ValueError:
            usable = False
        if not usable:
            raise ValueError("write a number and a time, as 60/minute or 500 per 1 hour")
        return value

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, value: str) -> str:
        for origin in value.split(",") if value not in {"", "*"} else ():
            if not _ORIGIN.fullmatch(origin.strip()):
                raise ValueError(
                    f"{origin.strip()!r} is no origin; write https://HOST or https://HOST:PORT, "
                    "several by comma, or * alone"
                )
        return value

    @property
    def origins(self) -> list[str]:
        """``cors_origins``, one by one."""
        return [origin.strip() for origin in self.cors_origins.split(",") if origin.strip()]

    @classmethod
    def from_environment(cls, **overrides: Any) -> Self:
        """Read the environment, refusing variables that no setting reads.

        Args:
            overrides: settings that win over it.

        Raises:
            SettingsError: one problem for each value that is not valid and each name unknown.
        """
        problems = [
            _unknown_variable(name)
            for name in sorted(os.environ)
            if name.upper().startswith(ENV_PREFIX)
            and name.upper().removeprefix(ENV_PREFIX).lower() not in cls.model_fields
        ]
        settings = None
        try:
            settings = cls(**overrides)
        except ValidationError as error:
            problems += [_invalid_value(fault) for fault in error.errors()]
        for name, limit in _AT_MOST.items() if settings else ():
            value, most = getattr(settings, name), getattr(settings, limit)
            if value > most:
                problems.append(
                    f"{variable_name(name)}={value} exceeds {variable_name(limit)}={most}"
                )
        if settings and settings.metrics_need_key and not settings.api_keys + settings.admin_keys:
            problems.append(
                f"{variable_name('metrics_need_key')} needs {variable_name('api_keys')} or "
                f"{variable_name('admin_keys')}; without keys nobody could read them"
            )
        if settings is None or problems:
            raise SettingsError(problems)
        return settings


def variable_name(field: str) -> str:
    """Name of the environment variable that sets ``field``."""
    return ENV_PREFIX + field.upper()


def _invalid_value(fault: ErrorDetails) -> str:
    field = str(fault["loc"][0])
    value = "..." if field in _SECRETS else fault["input"]
    return f"{variable_name(field)}={value}: {fault['msg'].removeprefix('Value error, ')}"


def _unknown_variable(name: str) -> str:
    wanted = name.upper().removeprefix(ENV_PREFIX).lower()
    close = difflib.get_close_matches(wanted, Settings.model_fields, n=1)
    hint = f"; did you mean {variable_name(close[0])}?" if close else ""
    return f"{name} is not a setting of this service{hint}"
