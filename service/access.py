"""Access: who calls, what that caller may, and how often. Asked before a body is read."""

from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from fastapi.security.utils import get_authorization_scheme_param

from service.errors import ForbiddenError, UnauthorizedError
from service.keys import KeyRing
from service.rate_limit import RateLimit, address_group

if TYPE_CHECKING:
    from starlette.datastructures import Headers

    from service.settings import Settings

_HOW = "send Authorization: Bearer KEY, or X-API-Key: KEY"
_CHALLENGE = 'Bearer realm="atelier"'
_BEARER = HTTPBearer(auto_error=False, scheme_name="bearer", description="a key of this service")
_HEADER = APIKeyHeader(
    name="X-API-Key", auto_error=False, scheme_name="header", description="the same key"
)


class Access:
    """The keys that are known and the rate that each may keep.

    An administrator's key opens everything; another's opens all but /admin. Without API keys
    whatever they would open is open.
    """

    def __init__(self, settings: "Settings") -> None:
        self._api_keys = KeyRing.parse(settings.api_keys)
        self._admin_keys = KeyRing.parse(settings.admin_keys)
        self._rate_limit = RateLimit(settings.rate_limit) if settings.rate_limit else None

    def caller(self, keys: tuple[str, ...]) -> str:
        """Name of the owner of one of ``keys``; empty where none is needed.

        Raises:
            UnauthorizedError: a key is needed, and none of them is known.
        """
        return self._owner(keys) if self._api_keys else ""

    def holder(self, keys: tuple[str, ...]) -> str:
        """As :meth:`caller`, where a key is needed in any case.

        Raises:
            UnauthorizedError: none of them is known.
        """
        return self._owner(keys)

    def administrator(self, keys: tuple[str, ...]) -> str:
        """Name of the administrator who owns one of ``keys``.

        Raises:
            ForbiddenError: they are known, but no administrator's.
            UnauthorizedError: none of them is known.
        """
        for key in keys:
            if owner := self._admin_keys.owner(key):
                return owner
        self._owner(keys)
        raise ForbiddenError(
            "this key does not open /admin; send an administrator's",
            challenge=f'{_CHALLENGE}, error="insufficient_scope"',
        )

    def count(self, caller: str) -> None:
        """Count a request of ``caller``.

        Raises:
            RateLimitedError: it is one too many.
        """
        if self._rate_limit is not None:
            self._rate_limit.hit(caller)

    def _owner(self, keys: tuple[str, ...]) -> str:
        for key in keys:
            if owner := self._api_keys.owner(key) or self._admin_keys.owner(key):
                return owner
        if keys:
            challenge = f'{_CHALLENGE}, error="invalid_token"'
            raise UnauthorizedError(f"the key is not known; {_HOW}", challenge=challenge)
        raise UnauthorizedError(f"a key is needed; {_HOW}", challenge=_CHALLENGE)


async def _keys_of(
    bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)],
    header: Annotated[str | None, Security(_HEADER)],
) -> tuple[str, ...]:
    """Both, where both came: a proxy may use Authorization for itself."""
    return tuple(key for key in (header, bearer and bearer.credentials) if key)


Keys = Annotated[tuple[str, ...], Depends(_keys_of)]


def keys_in(headers: "Headers") -> tuple[str, ...]:
    """The same, of what is no HTTP request: FastAPI knows those alone."""
    scheme, bearer = get_authorization_scheme_param(headers.get("authorization"))
    found = (headers.get("x-api-key"), bearer if scheme.lower() == "bearer" else "")
    return tuple(key for key in found if key)


def client_name(caller: str, host: str) -> str:
    """Who counts as one client: the owner of a key, or where there are none an address."""
    # A name has no colon, so that no address can pass for one.
    return caller or f"address:{address_group(host)}"


async def _check_caller(request: Request, keys: Keys) -> None:
    _remember(request, _access(request).caller(keys))


async def _check_holder(request: Request, keys: Keys) -> None:
    if request.app.state.settings.metrics_need_key:
        _remember(request, _access(request).holder(keys))


async def _check_administrator(request: Request, keys: Keys) -> None:
    _remember(request, _access(request).administrator(keys))


async def _check_rate(request: Request, _: Annotated[None, Depends(_check_caller)]) -> None:
    host = request.client.host if request.client else ""
    _access(request).count(client_name(request.state.caller, host))


CALLER = Depends(_check_caller)
"""Route dependency: a key, where the service has any."""

METRICS_READER = Depends(_check_holder)
"""Route dependency: a key, where the metrics are for holders of keys."""

ADMINISTRATOR = Depends(_check_administrator)
"""Route dependency: an administrator's key."""

WITHIN_RATE = Depends(_check_rate)
"""Route dependency: as CALLER, and not too often."""


def _access(request: Request) -> Access:
    access: Access = request.app.state.access
    return access


def _remember(request: Request, caller: str) -> None:
    request.state.caller = caller
    request.state.record.caller = caller
