"""What tests of a deployment need beside Python packages, and what happens where it is missing."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

# Where Debian keeps daemons, which the PATH of an ordinary user does not name.
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--complete", action="store_true", help="fail where a tool is missing, instead of skipping"
    )


@pytest.fixture(scope="session")
def find_tool(request: pytest.FixtureRequest) -> Callable[[str, str], str]:
    """Give the path of a program; without it the test is skipped, or fails with ``--complete``."""

    def find(name: str, package: str) -> str:
        if path := shutil.which(name, path=_PATH):
            return path
        missing = f"{name} is not installed: apt-get install {package}"
        if request.config.getoption("--complete"):
            pytest.fail(missing)
        pytest.skip(missing)

    return find
