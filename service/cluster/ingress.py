"""Ingress: the application in a replica that takes requests and has engines paint them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from service.app import create_app
from service.cluster.exports import MetricsExport
from service.cluster.remote import RemoteStudio
from service.logs import configure_logging

if TYPE_CHECKING:
    from fastapi import FastAPI
    from ray.serve.handle import DeploymentHandle

    from service.cluster.options import ClusterOptions
    from service.settings import Settings


class Ingress:
    """What ``serve.ingress`` wraps."""

    def __init__(
        self, settings: Settings, options: ClusterOptions, engines: DeploymentHandle
    ) -> None:
        configure_logging(settings.log_level)
        self._settings = settings
        self._open_studio = partial(RemoteStudio, options=options, engines=engines)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Build the application; Serve calls this, in the replica."""
        app = create_app(self._settings, open_studio=self._open_studio)
        self._export = MetricsExport(app.state.metrics.registry)
        self._export.start()
        return app
