"""OnDemandEngine: a stylizer that holds only the networks that requests have asked for."""

from __future__ import annotations

import asyncio
import logging
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from model_zoo.cards import Manifest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from concurrent.futures import Executor
    from pathlib import Path

    from model_zoo.cards import StyleCard
    from service.jobs import Job
    from service.stylizer import Stylizer
    from service.tiles import TileLayout

logger = logging.getLogger(__name__)


class Held:
    """A network that stays loaded for as long as anyone holds this."""

    __slots__ = ("__weakref__", "network")

    def __init__(self, network: str) -> None:
        self.network = network


class OnDemandEngine:
    """Loads a network when :meth:`hold` asks for it; what nobody holds then makes room for it.

    Args:
        stylizer: without any network yet.
        zoo: folder of the zoo.
        side_px: of the picture that each network paints once before its first request.
    """

    def __init__(self, stylizer: Stylizer, zoo: Path, side_px: int) -> None:
        self._stylizer = stylizer
        self._zoo = zoo
        self._side_px = side_px
        self._held: weakref.WeakValueDictionary[str, Held] = weakref.WeakValueDictionary()
        # Not a thread that paints: others paint while a network is compiled.
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="loader")

    @property
    def device(self) -> str:
        """``cpu``, or ``cuda``."""
        return self._stylizer.device

    @property
    def runtime(self) -> str:
        """Name of what computes on it."""
        return self._stylizer.runtime

    @property
    def passes_at_once(self) -> int:
        """As the stylizer has them."""
        return self._stylizer.passes_at_once

    @property
    def crowd(self) -> int:
        """As the stylizer has it."""
        return self._stylizer.crowd

    async def hold(self, card: StyleCard, model_pool: Executor) -> Held:
        """Load the network of ``card`` and let it paint once.

        Args:
            card: any of its styles.
            model_pool: the threads that paint.

        Raises:
            StylizationError: its numbers are not finite.
            ZooError: its file cannot be loaded.
        """
        loop, started = asyncio.get_running_loop(), time.perf_counter()
        held = self._hold(card)
        await loop.run_in_executor(model_pool, self._stylizer.keep, list(self._held))
        await loop.run_in_executor(self._loader, self._stylizer.load, self._only(card))
        await loop.run_in_executor(model_pool, self._stylizer.warm_up, [card], self._side_px)
        fields = {
            "weights": card.weights,
            "held": len(self._held),
            "load_s": round(time.perf_counter() - started, 2),
        }
        logger.info("network_loaded", extra={"fields": fields})
        return held

    def load(self, manifest: Manifest) -> None:
        """Nothing: networks are loaded when they are asked for."""

    def keep(self, networks: Collection[str]) -> None:
        """Nothing: networks go when nobody holds them."""

    def warm_up(self, cards: Iterable[StyleCard], side_px: int) -> None:
        """Paint in the first style, which shows that device and runtime work.

        Raises:
            StylizationError: its numbers are not finite.
            ZooError: its file cannot be loaded.
        """
        card = next(iter(cards))
        held = self._hold(card)  # or another network's coming could let it go before it painted
        self._stylizer.load(self._only(card))
        self._stylizer.warm_up([card], side_px)
        del held
        # A reload tries one new style after the other: they must not add up.
        self._stylizer.keep(list(self._held))

    def most_px(self, card: StyleCard) -> int:
        """As the stylizer says."""
        return self._stylizer.most_px(card)

    def layout(self, card: StyleCard) -> TileLayout | None:
        """As the stylizer says."""
        return self._stylizer.layout(card)

    def overlaps(self, job: Job) -> bool:
        """As the stylizer says."""
        return self._stylizer.overlaps(job)

    def run(self, jobs: Sequence[Job]) -> list[Any]:
        """Run jobs whose network somebody holds."""
        return self._stylizer.run(jobs)

    def device_memory_bytes(self) -> int:
        """As the stylizer says."""
        return self._stylizer.device_memory_bytes()

    def _hold(self, card: StyleCard) -> Held:
        return self._held.setdefault(card.network, Held(card.network))

    def _only(self, card: StyleCard) -> Manifest:
        return Manifest(self._zoo, (card,))
