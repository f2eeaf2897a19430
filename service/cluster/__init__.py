"""The service on a Ray cluster.

    serve run service.cluster:app [engines_max=8 ...]

The application is that of ``python -m service``; its requests cross to engines, which are replicas
of a deployment, each with a batcher and a stylizer of its own. docs/deployment.md says when that
pays.
"""

import os

# Before Ray is imported, which else reports its use to its makers.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

from ray import serve
from ray.serve import Application

from service.cluster.engine import Engine
from service.cluster.ingress import Ingress
from service.cluster.options import ClusterOptions
from service.settings import Settings, SettingsError

__all__ = ["app"]

# Longest that a replica goes on with what it was given once it is to go.
_LAST_REQUESTS_S = 30.0
# Requests that an ingress takes in beyond those it admits, and as many again that wait at its door;
# then Ray refuses, in its own words.
_BEYOND = 128
# The application logs each request itself.
_LOGGING = {"enable_access_log": False}


# No postponed annotations here: Serve reads that of ``options``.
def app(options: ClusterOptions) -> Application:
    """Build the application, with the settings of the environment that this runs in.

    Every replica has those settings, whatever the environment of its node.

    Raises:
        SettingsError: the environment or ``options`` do not make valid settings.
    """
    settings = Settings.from_environment()
    if options.ongoing_max > settings.max_in_flight:
        problem = (
            f"ongoing_max={options.ongoing_max} exceeds the {settings.max_in_flight} requests that "
            "an engine admits (ATELIER_MAX_IN_FLIGHT)"
        )
        raise SettingsError([problem])
    engine = serve.deployment(
        name="Engine",
        ray_actor_options={"num_cpus": options.engine_cpus, "num_gpus": options.engine_gpus},
        max_ongoing_requests=options.ongoing_max,
        max_queued_requests=options.queued_max,
        autoscaling_config=options.autoscaling(),
        health_check_period_s=options.health_check_s,
        logging_config=_LOGGING,
        graceful_shutdown_timeout_s=_LAST_REQUESTS_S,
    )(Engine)
    ingress = serve.deployment(
        name="Ingress",
        num_replicas=options.ingresses,
        ray_actor_options={"num_cpus": options.ingress_cpus},
        # The application refuses what it does not admit itself, with a problem document.
        max_ongoing_requests=options.admitted_max + _BEYOND,
        max_queued_requests=_BEYOND,
        backpressure_config={"status_code": 429, "retry_after_s": 1},
        logging_config=_LOGGING,
        graceful_shutdown_timeout_s=_LAST_REQUESTS_S,
    )(serve.ingress()(Ingress))
    return ingress.bind(settings, options, engine.bind(settings, options))
