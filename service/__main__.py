"""python -m service: runs the application under uvicorn, by its settings."""

from __future__ import annotations

import argparse
import errno
import os
import socket
import sys
from typing import TYPE_CHECKING, Any

import uvicorn

from model_zoo.cards import ZooError
from service.app import create_app, service_version
from service.connections import limited_connections
from service.live_connections import live_connections
from service.logs import configure_logging
from service.server import EXIT_UNFINISHED, Server
from service.settings import Settings, SettingsError, variable_name
from service.stylizer import DeviceUnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi import FastAPI

    from service.lifecycle import Lifecycle

EXIT_FAULT = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
_BACKLOG = 2048


class StartupError(Exception):
    """The service cannot start; the message says what to change."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal comes; give the exit status."""
    _build_parser().parse_args(arguments)
    return serve()


def serve(**overrides: Any) -> int:
    """Serve by the environment, over which ``overrides`` win; give the exit status."""
    try:
        settings = Settings.from_environment(**overrides)
    except SettingsError as error:
        _complain(*error.problems)
        return EXIT_USAGE
    configure_logging(settings.log_level)
    try:
        app = create_app(settings)
        listener = _listen(settings.host, settings.port)
    except DeviceUnavailableError as error:
        names = f"{variable_name('device')} and {variable_name('runtime')}"
        _complain(f"{error}; with {names} at auto it takes what is there")
        return EXIT_FAULT
    except (ZooError, StartupError) as error:
        _complain(str(error))
        return EXIT_FAULT
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return _serve(app, settings, listener)


def _serve(app: FastAPI, settings: Settings, listener: socket.socket) -> int:
    lifecycle: Lifecycle = app.state.lifecycle
    style = app.state.pipeline.manifest.cards[0].style_id
    host, port = listener.getsockname()[:2]
    config = uvicorn.Config(
        app,
        http=limited_connections(
            head_timeout_s=settings.head_timeout_s,
            send_timeout_s=settings.send_timeout_s,
            max_connections=settings.max_connections,
            on_cut=app.state.metrics.count_cut_connection,
            is_leaving=lambda: lifecycle.is_leaving,
        ),
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        ws=live_connections(
            send_timeout_s=settings.send_timeout_s,
            on_cut=app.state.metrics.count_cut_connection,
        )
        if settings.live_sessions
        else "none",
        ws_max_size=settings.live_max_frame_bytes,
        ws_per_message_deflate=False,  # pictures are compressed already
        root_path=settings.root_path,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=settings.shutdown_timeout_s,
    )
    greeting = (
        f"ready: curl -F image=@photo.jpg -F style={style} "
        f"-o out.jpg http://{_in_url(host)}:{port}/stylize\n"
    )
    server = Server(
        config,
        lifecycle,
        drain_s=settings.drain_s,
        exit_when_lost=settings.exit_when_lost,
        greeting=greeting,
    )
    server.run(sockets=[listener])
    if lifecycle.unfinished:
        # An ordinary exit would wait for a thread that hangs.
        os._exit(EXIT_UNFINISHED)
    if lifecycle.fault:
        _complain(lifecycle.fault)
        return EXIT_FAULT
    return 0


def _listen(host: str, port: int) -> socket.socket:
    """Bind before uvicorn does, to say plainly why it does not work.

    Raises:
        StartupError: naming the variable to change.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            message = f"port {port} on {host} is in use; stop what uses it or set"
            raise StartupError(f"{message} {variable_name('port')}") from error
        if error.errno == errno.EACCES:
            message = f"port {port} may not be opened by this user; set"
            raise StartupError(f"{message} {variable_name('port')} above 1023") from error
        message = f"cannot listen on {host} ({error.strerror or error}); set"
        raise StartupError(
            f"{message} {variable_name('host')} to an address of this machine"
        ) from error


def _in_url(host: str) -> str:
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"[{reachable}]" if ":" in reachable else reachable


def _build_parser() -> argparse.ArgumentParser:
    lines = [
        f"  {variable_name(name):<30} {field.description} "
        f"({'computed' if field.default_factory or field.default is None else field.default})"
        for name, field in Settings.model_fields.items()
    ]
    parser = argparse.ArgumentParser(
        prog="python -m service",
        description="Serve fast neural stylization over HTTP.",
        epilog="environment variables (default):\n" + "\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"atelier {service_version()}")
    return parser


def _complain(*messages: str) -> None:
    sys.stderr.writelines(f"atelier: {message}\n" for message in messages)


if __name__ == "__main__":
    sys.exit(main())
