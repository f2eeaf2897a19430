"""Lifecycle: from warm-up over readiness and draining to the end of the service."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Literal

from service.errors import NotReadyError

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from model_zoo.cards import Manifest
    from service.batcher import Batcher
    from service.gate import AdmissionGate
    from service.jobs import Job
    from service.settings import Settings
    from service.stylizer import StyleEngine

logger = logging.getLogger(__name__)


class Lifecycle:
    """Starts and ends what paints, and knows at each moment whether it can.

    ``fault`` says why the service will never be ready, or is None. ``codec_pool`` and
    ``model_pool`` are shut down at the end.
    """

    def __init__(
        self,
        manifest: Manifest,
        settings: Settings,
        *,
        engine: StyleEngine,
        gate: AdmissionGate,
        batcher: Batcher[Job, Any],
        codec_pool: Executor,
        model_pool: Executor,
    ) -> None:
        self._manifest = manifest
        self._settings = settings
        self._engine = engine
        self._gate = gate
        self._batcher = batcher
        self._codec_pool = codec_pool
        self._model_pool = model_pool
        self._state: Literal["warming up", "ready", "draining"] = "warming up"
        self._warm_up_task: asyncio.Task[None] | None = None
        self.fault: str | None = None

    def start(self) -> None:
        """Begin to take jobs and to warm up, on the running event loop."""
        self._batcher.start()
        self._warm_up_task = asyncio.create_task(self._warm_up(), name="warm-up")

    def drain(self) -> None:
        """Turn readiness off; go on serving."""
        self._state = "draining"

    async def aclose(self) -> None:
        """Finish what was taken on, then let the threads go."""
        self.drain()
        await self.settle()
        # First: those in flight have more jobs to come, and their answers to be encoded.
        await self._gate.wait_until_idle()
        await self._batcher.aclose()
        self._model_pool.shutdown()
        self._codec_pool.shutdown(cancel_futures=True)

    async def settle(self) -> None:
        """Wait until warm-up has ended, well or not."""
        if self._warm_up_task is not None:
            await self._warm_up_task

    def check_serving(self) -> None:
        """See that requests can be carried out; while draining they still can.

        Raises:
            NotReadyError: they cannot, with the reason.
        """
        if self.fault is not None:
            raise NotReadyError(self.fault)
        if self._state == "warming up":
            raise NotReadyError("the service is warming up")
        if not self._batcher.alive:
            raise NotReadyError("the batcher has ended; the process must be restarted")
        if (busy_s := self._batcher.busy_for_s) > self._settings.stall_timeout_s:
            raise NotReadyError(
                f"the device has not answered for {busy_s:.0f} s, "
                f"longer than the limit of {self._settings.stall_timeout_s:g} s"
            )

    def check_ready(self) -> None:
        """See that a load balancer should send requests here.

        Raises:
            NotReadyError: it should not, with the reason.
        """
        self.check_serving()
        if self._state == "draining":
            raise NotReadyError("the service is draining; send requests elsewhere")

    @property
    def is_ready(self) -> bool:
        """Whether :meth:`check_ready` would pass."""
        try:
            self.check_ready()
        except NotReadyError:
            return False
        return True

    async def _warm_up(self) -> None:
        started = time.perf_counter()
        loop = asyncio.get_running_loop()
        cards, side_px = self._manifest.cards, self._settings.warm_up_side_px
        try:
            await loop.run_in_executor(self._model_pool, self._engine.warm_up, cards, side_px)
        except Exception as error:
            logger.exception("warm_up_failed")
            self.fault = f"warm-up failed: {error}"
            return
        if self._state == "warming up":
            self._state = "ready"
        fields = {
            "device": self._engine.device,
            "runtime": self._engine.runtime,
            "styles": len(cards),
            "warm_up_s": round(time.perf_counter() - started, 2),
        }
        logger.info("service_ready", extra={"fields": fields})
