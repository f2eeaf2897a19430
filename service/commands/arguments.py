"""What the commands' arguments share: types, and how what is wrong with them is said."""

from __future__ import annotations

import argparse
import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from service.settings import Settings, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

Commands = argparse._SubParsersAction  # argparse names the type nowhere else

KEY_VARIABLE = "ATELIERCLIENT_KEY"
"""Outside of the service's own ATELIER_*, of which it refuses those that it does not know."""


class UsageError(Exception):
    """What was asked for cannot be; the message says what to change."""


def add_command(
    commands: Commands[argparse.ArgumentParser],
    name: str,
    help_text: str,
    description: str,
    run: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    """Add a command; ``run`` gives its exit code."""
    command = commands.add_parser(name, help=help_text, description=description)
    command.set_defaults(command=run)
    return command


def add_server(command: argparse.ArgumentParser) -> None:
    """Add what says which service to ask, in place of this machine."""
    add = command.add_argument
    add("--server", metavar="URL", help="let this service do it (pip install 'atelier[client]')")
    add("--key", metavar="KEY", help=f"API key of that service; else that in {KEY_VARIABLE}")
    add(
        "--timeout",
        type=positive,
        default=300.0,
        metavar="S",
        help="for a call with all its attempts, 300 unless said",
    )


def add_painting(command: argparse.ArgumentParser) -> None:
    """Add what says how to paint, but for the style."""
    add = command.add_argument
    add("--max-side", type=at_least_1, metavar="PX", help="longer side; 1024 unless said")
    add("--strength", type=share, default=1.0, metavar="0..1", help="0: photograph, 1: painting")
    add("--keep-colors", action="store_true", help="paint the brightness, keep the colours")
    add("--seed", type=seed, default=0, metavar="N", help="of generators with noise; else nothing")


def read_settings(**overrides: Any) -> Settings:
    """The environment, over which what was given as an option wins.

    Raises:
        UsageError: they are not valid.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings.from_environment(**given)
    except SettingsError as error:
        raise UsageError(str(error)) from error


def some_path(text: str) -> str:
    """Any but the empty one, which ``Path`` takes for the folder that one is in."""
    if not text:
        raise argparse.ArgumentTypeError("is empty")
    return text


def at_least_1(text: str) -> int:
    """A whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} must be at least 1")
    return value


def seconds(text: str) -> Fraction:
    """A number of at least 0, exactly as it is written."""
    try:
        value = Fraction(text)
    except ZeroDivisionError as error:
        raise argparse.ArgumentTypeError(f"{text} is no number") from error
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} must be at least 0")
    return value


def share(text: str) -> float:
    """A number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{value} must be from 0 to 1")
    return value


def positive(text: str) -> float:
    """A number above 0."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{value} must be above 0")
    return value


def quality(text: str) -> int:
    """A whole number from 1 to 100."""
    value = int(text)
    if not 1 <= value <= 100:
        raise argparse.ArgumentTypeError(f"{value} must be from 1 to 100")
    return value


def seed(text: str) -> int:
    """A whole number that a generator of noise takes."""
    value = int(text)
    if not 0 <= value < 2**63:
        raise argparse.ArgumentTypeError(f"{value} must be at least 0 and below 2**63")
    return value
