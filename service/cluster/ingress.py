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
    from starlette.types import ASGIApp, Receive, Scope, Send

    from service.cluster.options import ClusterOptions
    from service.settings import Settings


_HEADER = b"x-request-timeout-seconds"
# Of the time that a client allows: what a request takes between Ray's proxy and this.
_SHARE = 0.9


class EarlierDeadline:
    """Shortens the time that a client allows a little.

    Ray's proxy reads the same header, and at that time answers 408 in words of its own; before it
    the application answers with its problem document.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] == "http":
            headers = [
                (name, _shorten(value) if name == _HEADER else value)
                for name, value in scope["headers"]
            ]
            scope = {**scope, "headers": headers}
        await self.app(scope, receive, send)


def _shorten(value: bytes) -> bytes:
    try:
        return b"%g" % (float(value) * _SHARE)
    except ValueError:
        return value  # for the application to refuse


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
        app.add_middleware(EarlierDeadline)
        return app
