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
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from service.cluster.options import ClusterOptions
    from service.settings import Settings


_ID = b"x-request-id"
_TIMEOUT = b"x-request-timeout-seconds"
# Of the time that a client allows: what a request takes between Ray's proxy and this.
_SHARE = 0.9


class BehindRaysProxy:
    """Gives way where Ray's proxy does what the application does.

    The proxy, too, reads how long a client waits, and then answers 408 in words of its own: a
    little earlier the application answers with its problem document. And it names the request in
    the answer: a second time would be once too often.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = [
            (name, _shorten(value) if name == _TIMEOUT else value)
            for name, value in scope["headers"]
        ]
        without_id = partial(_send_without, dict(headers).get(_ID), send)
        await self.app({**scope, "headers": headers}, receive, without_id)


async def _send_without(request_id: bytes | None, send: Send, message: Message) -> None:
    if message["type"] == "http.response.start":
        headers = [pair for pair in message["headers"] if tuple(pair) != (_ID, request_id)]
        message = {**message, "headers": headers}
    await send(message)


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
        app.add_middleware(BehindRaysProxy)
        return app
