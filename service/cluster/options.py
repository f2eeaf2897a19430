"""ClusterOptions: what a cluster has beyond the settings of a single service."""

import math
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class ClusterOptions(BaseModel):
    """Arguments of ``serve run service.cluster:app``, or ``args`` in a Serve configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    engines_min: int = Field(default=1, ge=1, description="fewest engines")
    engines_max: int = Field(default=8, ge=1, description="most engines")
    engine_cpus: float = Field(default=1.0, gt=0, description="cores of an engine")
    engine_gpus: float = Field(
        default=0.0, ge=0, description="GPUs of an engine; a fraction where several share one"
    )
    networks_max: int = Field(
        default=8, ge=1, description="networks that an engine keeps; styles may share one"
    )
    ongoing_target: float = Field(
        default=4.0, gt=0, description="requests an engine should have; more, and engines are added"
    )
    ongoing_max: int = Field(default=8, ge=1, description="most requests an engine has")
    queued_max: int = Field(
        default=64,
        ge=1,
        description="requests that wait for an engine, for each ingress; one more is answered 429",
    )
    upscale_delay_s: float = Field(
        default=10.0, ge=0, description="how long there must be more before engines are added"
    )
    downscale_delay_s: float = Field(
        default=300.0, ge=0, description="how long there must be fewer before engines are let go"
    )
    health_check_s: float = Field(
        default=5.0, gt=0, description="how often an engine is asked whether its device answers"
    )
    ingresses: int = Field(default=1, ge=1, description="processes that take requests")
    ingress_cpus: float = Field(
        default=0.0, ge=0, description="cores reserved for one; it reads and writes, no more"
    )

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.engines_min > self.engines_max:
            raise ValueError(
                f"engines_min={self.engines_min} exceeds engines_max={self.engines_max}"
            )
        return self

    @property
    def admitted_max(self) -> int:
        """Requests that one ingress holds at once: those that engines have, and those that wait."""
        return self.engines_max * self.ongoing_max + self.queued_max

    @property
    def threads(self) -> int:
        """Threads of an engine: as many as it has cores, and one where it has a part of one."""
        return max(1, math.floor(self.engine_cpus))

    def autoscaling(self) -> dict[str, Any]:
        """What Serve calls it."""
        return {
            "min_replicas": self.engines_min,
            "max_replicas": self.engines_max,
            "target_ongoing_requests": self.ongoing_target,
            "upscale_delay_s": self.upscale_delay_s,
            "downscale_delay_s": self.downscale_delay_s,
        }
