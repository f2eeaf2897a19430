"""Budget: a bounded amount that requests share, and how much of it each owner holds."""

from __future__ import annotations

from collections import Counter


class Budget:
    """Counts what requests hold of one scarce thing; says when more does not fit.

    One request alone may exceed the limit: what is allowed at all must be served some time. One
    owner may not hold more than an equal share beside the others that hold any and one more who
    may come, since what is given cannot be taken back; an owner that holds nothing always may.

    Args:
        limit: most that all may hold together.
        noun: what it is, for messages.
    """

    def __init__(self, limit: int, noun: str) -> None:
        self.limit = limit
        self.noun = noun
        self.held = 0
        self._held_by: Counter[str] = Counter()

    def refusal(self, owner: str, amount: int, *, has: int = 0) -> str | None:
        """Why a holder cannot have ``amount`` in place of what it ``has``; None where it can.

        Args:
            owner: on whose behalf; empty where nobody is known, and then without a share.
            amount: what the holder would have.
            has: what it has already.
        """
        more = amount - has
        if more <= 0:
            return None
        if self.held > has and self.held + more > self.limit:
            return f"{self.held:,} {self.noun} and {more:,} more exceed the limit of {self.limit:,}"
        held = self._held_by[owner]
        if owner and held > has and held + more > (share := self._share(owner)):
            return (
                f"your {held:,} {self.noun} and {more:,} more exceed your share of {share:,} "
                f"of {self.limit:,}"
            )
        return None

    def _share(self, owner: str) -> int:
        """What one owner may hold now."""
        owners = {name for name, held in self._held_by.items() if name and held} | {owner}
        return max(self.limit // (len(owners) + 1), 1)

    def change(self, owner: str, difference: int) -> None:
        """Book that ``owner`` holds so much more, or less."""
        self.held += difference
        self._held_by[owner] += difference
        if not self._held_by[owner]:
            del self._held_by[owner]


class Hold:
    """What one request holds of a budget; nothing once closed."""

    def __init__(self, budget: Budget, owner: str) -> None:
        self.amount = 0
        self.owner = owner
        self.budget = budget

    def resize(self, amount: int) -> None:
        """Hold ``amount`` from now on, whether it fits or not."""
        self.budget.change(self.owner, amount - self.amount)
        self.amount = amount

    def close(self) -> None:
        """Give everything back."""
        self.resize(0)
