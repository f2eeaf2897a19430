"""Choosing: which workshop paints, and how, by the options."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from model_zoo.cards import Manifest
from service.commands.arguments import KEY_VARIABLE, UsageError, read_settings
from service.schemas import StylizeParameters

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator, Sequence

    from service.remote_workshop import RemoteWorkshop
    from service.workshops import Workshop


@asynccontextmanager
async def open_workshop(
    options: argparse.Namespace,
) -> AsyncIterator[tuple[Workshop, list[StylizeParameters]]]:
    """Give what paints, and how it is asked to, once for each style.

    Raises:
        ServiceError: the styles cannot be painted in, or not so.
        UsageError: the options do not go together, or a service has no such style.
        WorkshopLostError: the service cannot be asked.
        ZooError: the zoo is empty or damaged.
    """
    if options.server:
        if options.zoo:
            raise UsageError("--zoo is of this machine; a service has its own")
        async with remote_workshop(options, options.jobs) as remote:
            ids = [style.id for style in await remote.styles()]
            _check_known(options.styles or [], ids, options.server)
            yield remote, _wanted(options, ids)
        return
    from service.local_workshop import LocalWorkshop  # brings torch along

    settings = read_settings(zoo=options.zoo)
    ids = [card.style_id for card in Manifest.read(settings.zoo)]
    wanted = _wanted(options, ids)
    async with LocalWorkshop(settings, wanted, options.jobs) as local:
        yield local, wanted


def remote_workshop(options: argparse.Namespace, jobs: int | None = None) -> RemoteWorkshop:
    """The service that the options name.

    Raises:
        UsageError: there can be none.
    """
    from service.remote_workshop import RemoteWorkshop  # needs the extra

    key = options.key or os.environ.get(KEY_VARIABLE)
    try:
        return RemoteWorkshop(options.server, key, options.timeout, jobs)
    except ValueError as error:
        raise UsageError(f"--server: {error}") from error


def _wanted(options: argparse.Namespace, ids: Sequence[str]) -> list[StylizeParameters]:
    styles = ids if options.all_styles else dict.fromkeys(options.styles)
    return [
        StylizeParameters(
            style=style,
            max_side=options.max_side,
            keep_colors=options.keep_colors,
            strength=options.strength,
            seed=options.seed,
            format=options.format,
            quality=options.quality,
        )
        for style in styles
    ]


def _check_known(styles: Sequence[str], ids: Sequence[str], server: str) -> None:
    for style in styles:
        for part in style.split(","):
            name = part.partition(":")[0].strip()
            if name not in ids:
                raise UsageError(f"no style {name!r} at {server}; there are {', '.join(ids)}")
