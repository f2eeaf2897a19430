"""ZooReloader: makes another zoo ready beside the one that is served, then puts it in its place."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from model_zoo.cards import ZooError
from service.errors import ReloadInProgressError, ServiceError, ZooRejectedError
from service.schemas import ReloadReport
from service.zoos import Zoo, Zoos, manifest_sha256

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from concurrent.futures import Executor

    from model_zoo.cards import StyleCard
    from service.lifecycle import Health
    from service.settings import Settings
    from service.stylizer import StyleEngine

logger = logging.getLogger(__name__)


class ZooReloader:
    """Reads the zoo's folder again when asked, or when its manifest changes.

    Files are read, verified and compiled on a thread of their own; each new style then paints once
    on a model thread, as a request's picture would. Only then is the zoo served, at once for
    every request that comes; whatever fails before leaves the old one in its place.

    Args:
        zoos: what is served.
        settings: where the zoo lies, and how often to look.
        engine: what paints.
        lifecycle: knows whether the service is ready.
        model_pool: runs the engine.
        on_outcome: told ``done`` or ``failed`` after each attempt.
    """

    def __init__(
        self,
        zoos: Zoos,
        settings: Settings,
        *,
        engine: StyleEngine,
        lifecycle: Health,
        model_pool: Executor,
        on_outcome: Callable[[str], None] = lambda outcome: None,  # noqa: ARG005
    ) -> None:
        self._zoos = zoos
        self._settings = settings
        self._engine = engine
        self._lifecycle = lifecycle
        self._model_pool = model_pool
        self._on_outcome = on_outcome
        self._reload: asyncio.Task[ReloadReport] | None = None
        # Held while networks come or go, lest one be let go of that a reload counts on.
        self._changing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self._reason = ""

    def start(self) -> None:
        """Begin to look for changes where the settings ask for it, on the running event loop."""
        self._zoos.on_retired = lambda: self._spawn(self._let_go())
        if self._settings.zoo_poll_seconds:
            self._spawn(self._poll_forever())

    async def aclose(self) -> None:
        """Begin nothing more; a reload that is not done leaves the old zoo in its place."""
        self._closed = True
        tasks = [*self._tasks, *([self._reload] if self._reload else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def reload(self) -> ReloadReport:
        """Serve what the zoo's folder holds now, if all of it is sound.

        A caller that goes away does not end it.

        Raises:
            NotReadyError: the service is warming up, draining or broken.
            ReloadInProgressError: another one is not done yet.
            ZooRejectedError: with the file at fault; the old zoo goes on.
        """
        self._lifecycle.check_ready()
        if self._closed or (self._reload is not None and not self._reload.done()):
            raise ReloadInProgressError("another reload is not done yet; wait for its answer")
        self._reload = asyncio.create_task(self._reload_once(), name="reload")
        return await asyncio.shield(self._reload)

    async def _reload_once(self) -> ReloadReport:
        started = time.perf_counter()
        async with self._changing:
            old = self._zoos.current
            try:
                new = await self._prepare(old)
            except Exception as error:
                self._complain(error)
                self._on_outcome("failed")
                raise
            else:
                self._zoos.serve(new)
            finally:
                await self._keep_what_is_in_use()
        report = _compare(old, new, time.perf_counter() - started)
        self._reason = ""
        logger.info("zoo_reloaded", extra={"fields": report.model_dump()})
        self._on_outcome("done")
        return report

    async def _prepare(self, old: Zoo) -> Zoo:
        """Read, verify, load and try the zoo that is on disk now."""
        loop = asyncio.get_running_loop()
        loader = ThreadPoolExecutor(1, thread_name_prefix="zoo-loader")
        try:
            new = await loop.run_in_executor(loader, self._read_and_load)
        except ZooError as error:
            raise ZooRejectedError(f"{error}; the zoo of before is served on") from error
        finally:
            loader.shutdown(wait=False)
        known = {(card.network, card.style_row) for card in old.manifest}
        for card in new.manifest:
            if (card.network, card.style_row) not in known:
                await self._try(new, card)
        return new

    def _read_and_load(self) -> Zoo:
        zoo = Zoo.read(self._settings.zoo)
        self._engine.load(zoo.manifest)
        return zoo

    async def _try(self, zoo: Zoo, card: StyleCard) -> None:
        loop = asyncio.get_running_loop()
        side_px = self._settings.warm_up_side_px
        try:
            await loop.run_in_executor(self._model_pool, self._engine.warm_up, [card], side_px)
        except Exception as error:
            logger.warning("zoo_warm_up_failed", exc_info=True)
            cause = error.detail if isinstance(error, ServiceError) else str(error)
            raise ZooRejectedError(
                f"{zoo.manifest.weights_path(card)}: style {card.style_id!r} does not paint: "
                f"{cause}; the zoo of before is served on"
            ) from error

    async def _let_go(self) -> None:
        async with self._changing:
            await self._keep_what_is_in_use()

    async def _keep_what_is_in_use(self) -> None:
        if self._closed:
            return
        # On a model thread, behind most batches that were given to it already.
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._model_pool, self._engine.keep, self._zoos.networks)

    async def _poll_forever(self) -> None:
        while True:
            await asyncio.sleep(self._settings.zoo_poll_seconds)
            try:
                # Tried again each time while it fails: its files may still be on their way.
                if await self._has_changed():
                    await self.reload()
            except ZooError as error:
                self._complain(error)
            except ServiceError:
                pass  # not ready, busy, or rejected, which is said already
            except Exception:
                logger.exception("zoo_poll_failed")

    async def _has_changed(self) -> bool:
        on_disk = await asyncio.to_thread(manifest_sha256, self._settings.zoo)
        return on_disk != self._zoos.current.manifest_sha256

    def _complain(self, error: Exception) -> None:
        """Log why a zoo is not served; once, however often it is looked at."""
        reason = str(error)
        if reason != self._reason:
            self._reason = reason
            logger.warning("zoo_rejected", extra={"fields": {"reason": reason}})

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        if self._closed:
            work.close()
            return
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _compare(old: Zoo, new: Zoo, duration_s: float) -> ReloadReport:
    before = {card.style_id: card for card in old.manifest}
    after = {card.style_id: card for card in new.manifest}
    return ReloadReport(
        styles=len(after),
        added=[style_id for style_id in after if style_id not in before],
        changed=[i for i, card in after.items() if i in before and before[i] != card],
        removed=[style_id for style_id in before if style_id not in after],
        networks_loaded=len(new.networks - old.networks),
        networks_kept=len(new.networks & old.networks),
        duration_s=round(duration_s, 3),
    )
