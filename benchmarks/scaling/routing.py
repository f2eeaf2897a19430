"""Routing: which replica gets a request."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.scaling.replica import Replica

BALANCE_FACTOR = 1.25
"""How many times the mean number of connections a replica may have before others step in."""


class Router(Protocol):
    """Chooses among replicas by their connections, which it is told of."""

    def choose(self, network: int, refused_by: Replica | None) -> Replica:
        """The replica for a request for ``network``; another than ``refused_by`` if there is."""

    def open(self, replica: Replica) -> None:
        """A request goes to ``replica`` now."""

    def close(self, replica: Replica) -> None:
        """``replica`` has answered one."""


class _Connections:
    def open(self, replica: Replica) -> None:
        replica.connections += 1

    def close(self, replica: Replica) -> None:
        replica.connections -= 1


class LeastConnections:
    """nginx's ``least_conn``: of those with fewest connections any, here by chance."""

    def __init__(self, replicas: Sequence[Replica], seed: int) -> None:
        self._chance = random.Random(seed)  # noqa: S311  # replicas, not secrets
        self._others = len(replicas) > 1
        # Replicas by how many connections they have, and each one's place there.
        self._levels: list[list[Replica]] = [list(replicas)]
        self._places = {id(replica): place for place, replica in enumerate(replicas)}

    def choose(self, network: int, refused_by: Replica | None) -> Replica:  # noqa: ARG002
        for level in self._levels:
            if level and not (level == [refused_by] and self._others):
                while (replica := self._chance.choice(level)) is refused_by and self._others:
                    pass
                return replica
        raise AssertionError("there are replicas")

    def open(self, replica: Replica) -> None:
        self._move(replica, 1)

    def close(self, replica: Replica) -> None:
        self._move(replica, -1)

    def _move(self, replica: Replica, step: int) -> None:
        level, place = self._levels[replica.connections], self._places[id(replica)]
        last = level.pop()
        if last is not replica:
            level[place] = last
            self._places[id(last)] = place
        replica.connections += step
        if replica.connections == len(self._levels):
            self._levels.append([])
        self._places[id(replica)] = len(self._levels[replica.connections])
        self._levels[replica.connections].append(replica)


class TwoChoices(_Connections):
    """nginx's ``random two least_conn``: the better of two, as many balancers at once do it."""

    def __init__(self, replicas: Sequence[Replica], seed: int) -> None:
        self._chance = random.Random(seed)  # noqa: S311  # replicas, not secrets
        self._replicas = replicas

    def choose(self, network: int, refused_by: Replica | None) -> Replica:  # noqa: ARG002
        two = self._chance.sample(self._replicas, min(2, len(self._replicas)))
        return min(two, key=lambda replica: (replica is refused_by, replica.connections))


class ByStyle(_Connections):
    """Consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam 2018).

    Every network has its own order of replicas, the first that has room is taken. A replica that
    goes changes only what was its own.
    """

    def __init__(self, replicas: Sequence[Replica], seed: int) -> None:
        self._seed = seed
        self._replicas = replicas
        self._orders: dict[int, list[Replica]] = {}
        self._open = 0

    def choose(self, network: int, refused_by: Replica | None) -> Replica:
        order = self._order(network)
        most = math.ceil(BALANCE_FACTOR * (self._open + 1) / len(order))
        for replica in order:
            if replica.connections < most and replica is not refused_by:
                return replica
        return order[0] if refused_by is not order[0] else order[-1]

    def open(self, replica: Replica) -> None:
        super().open(replica)
        self._open += 1

    def close(self, replica: Replica) -> None:
        super().close(replica)
        self._open -= 1

    def _order(self, network: int) -> list[Replica]:
        if network not in self._orders:
            chance = random.Random(f"{self._seed} {network}")  # noqa: S311
            self._orders[network] = chance.sample(self._replicas, len(self._replicas))
        return self._orders[network]


ROUTERS: dict[str, Callable[[Sequence[Replica], int], Router]] = {
    "least connections": LeastConnections,
    "two choices": TwoChoices,
    "by style": ByStyle,
}
