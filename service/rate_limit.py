"""RateLimit: how many requests one caller may send in a time."""

from __future__ import annotations

import ipaddress
import math
import time

import limits
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from service.errors import RateLimitedError

_IPV6_PREFIX = 64  # what one household gets: a single address of it says nothing


class RateLimit:
    """Counts each caller's requests over a sliding window, in this process.

    Of each caller two numbers are kept, and none once its windows have passed; a list of moments,
    which would be exact, grows with the limit, and the library never drops its empty ones.

    Args:
        text: as in ``60/minute``.
    """

    def __init__(self, text: str) -> None:
        self._item = limits.parse(text)
        self._text = text
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    def hit(self, caller: str) -> None:
        """Count one request of ``caller``.

        Raises:
            RateLimitedError: it is one too many; such are not counted.
        """
        if self._limiter.hit(self._item, caller):
            return
        stats = self._limiter.get_window_stats(self._item, caller)
        retry_after_s = max(1, math.ceil(stats.reset_time - time.time()))
        window_s = self._item.get_expiry()
        raise RateLimitedError(
            f"{self._item.amount} requests in {window_s} s are the limit of one caller; "
            f"try again in {retry_after_s} s",
            retry_after_s=retry_after_s,
            headers={
                "RateLimit-Policy": f'"default";q={self._item.amount};w={window_s}',
                "RateLimit": f'"default";r={stats.remaining};t={retry_after_s}',
            },
        )


def address_group(host: str) -> str:
    """What counts as one caller of those without keys: an IPv4 address, or an IPv6 /64."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((int(address), _IPV6_PREFIX), strict=False))
    return str(address)
