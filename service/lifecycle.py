"""Lifecycle: from warm-up over readiness and draining to the end of the service."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Literal, Protocol

from service.errors import DeviceLostError, NotReadyError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from model_zoo.cards import Manifest
    from service.batcher import Batcher
    from service.gate import AdmissionGate
    from service.jobs import Job
    from service.settings import Settings
    from service.stylizer import StyleEngine

logger = logging.getLogger(__name__)

# Requests have had their own time by then; what still runs paints for nobody.
CLOSE_WITHIN_S = 5.0
_MEGAPIXEL = 1_000_000


class Health(Protocol):
    """Knows at each moment whether pictures can be painted."""

    def check_alive(self) -> None:
        """See that the process need not be restarted.

        Raises:
            DeviceLostError: it must be, with the reason.
        """

    def check_serving(self) -> None:
        """See that requests can be carried out.

        Raises:
            UnavailableError: they cannot, with the reason.
        """

    def check_ready(self) -> None:
        """See that a load balancer should send requests here.

        Raises:
            UnavailableError: it should not, with the reason.
        """


class Lifecycle:
    """Starts and ends what paints, and knows at each moment whether it can.

    ``fault`` says why the service will never be ready, or is None; ``unfinished`` whether its end
    cut something off: requests, or a thread, which keeps the process from ending by itself.
    ``codec_pool`` and ``model_pool`` are shut down at the end; ``on_hang`` is told once of each
    hang that :meth:`look` meets.
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
        on_hang: Callable[[], None] = lambda: None,
    ) -> None:
        self._manifest = manifest
        self._settings = settings
        self._engine = engine
        self._gate = gate
        self._batcher = batcher
        self._codec_pool = codec_pool
        self._model_pool = model_pool
        self._on_hang = on_hang
        self._state: Literal["warming up", "ready", "draining", "closed"] = "warming up"
        self._warm_up_task: asyncio.Task[None] | None = None
        self._warm_up_began_s: float | None = None
        self._reported: str | None = None
        self.fault: str | None = None
        self.unfinished = False

    def start(self) -> None:
        """Begin to take jobs and to warm up, on the running event loop."""
        self._batcher.start()
        self._warm_up_task = asyncio.create_task(self._warm_up(), name="warm-up")

    def drain(self) -> None:
        """Turn readiness off; go on serving."""
        self._state = "draining"

    async def aclose(self, within_s: float = CLOSE_WITHIN_S) -> None:
        """Finish what was taken on, then let the threads go; a hung one is left behind.

        Args:
            within_s: longest wait, after which ``unfinished`` is true.
        """
        self.drain()
        try:
            async with asyncio.timeout(within_s):
                await self.settle()
                # First: those in flight have more jobs to come, and their answers to be encoded.
                await self._gate.wait_until_idle()
                await self._batcher.aclose()
        except TimeoutError:
            self.unfinished = True
            fields = {
                "in_flight": self._gate.in_flight,
                "pass_s": round(self._batcher.busy_for_s, 1),
                "waited_s": within_s,
            }
            logger.error("shutdown_unfinished", extra={"fields": fields})  # noqa: TRY400
        self._state = "closed"
        self._model_pool.shutdown(wait=not self.unfinished, cancel_futures=True)
        self._codec_pool.shutdown(wait=not self.unfinished, cancel_futures=True)

    async def settle(self) -> None:
        """Wait until warm-up has ended, well or not."""
        if self._warm_up_task is not None:
            # Cancelling this wait must not cancel the warm-up.
            await asyncio.wait((self._warm_up_task,))

    def check_alive(self) -> None:
        """See that the process need not be restarted.

        Raises:
            DeviceLostError: it must be, with the reason.
        """
        if reason := self._breakdown():
            raise DeviceLostError(reason)

    def look(self) -> str | None:
        """Give the reason why the process must be restarted, or None; called again and again.

        The first time there is one it is logged, and each time everyone who waits for the device
        is told rather than left to wait.
        """
        reason = self._breakdown()
        if reason is None:
            self._reported = None
            return None
        if self._reported is None:
            self._reported = reason
            fields = {"reason": reason, "in_flight": self._gate.in_flight}
            logger.critical("device_lost", extra={"fields": fields})
            if self._hang():
                self._on_hang()
        self._batcher.abandon(DeviceLostError(f"{reason}; try again, or another instance"))
        return reason

    def check_serving(self) -> None:
        """See that requests can be carried out; while draining they still can.

        Raises:
            NotReadyError: not yet, or no more, with the reason.
            DeviceLostError: the process must be restarted.
        """
        if self.fault is not None:
            raise NotReadyError(self.fault)
        self.check_alive()
        if self._state == "warming up":
            raise NotReadyError("the service is warming up")
        if self._state == "closed":
            raise NotReadyError("the service has ended; send requests elsewhere")

    def check_ready(self) -> None:
        """See that a load balancer should send requests here.

        Raises:
            NotReadyError: it should not, with the reason.
            DeviceLostError: the process must be restarted.
        """
        self.check_serving()
        if self._state == "draining":
            raise NotReadyError("the service is draining; send requests elsewhere")

    @property
    def is_leaving(self) -> bool:
        """Whether clients should go elsewhere, for good."""
        return self._state in ("draining", "closed")

    @property
    def is_alive(self) -> bool:
        """Whether :meth:`check_alive` would pass."""
        return self._breakdown() is None

    @property
    def is_ready(self) -> bool:
        """Whether :meth:`check_ready` would pass."""
        try:
            self.check_ready()
        except UnavailableError:
            return False
        return True

    def _breakdown(self) -> str | None:
        """Why nothing can be painted any more, or None."""
        if self._batcher.fault is not None:
            return self._batcher.fault
        if self._state == "closed":
            return None
        if self._warm_up_task is not None and not self._batcher.alive:
            return "the batcher has ended; the process must be restarted"
        return self._hang()

    def _hang(self) -> str | None:
        """Since when the device has not answered, where that is too long, or None."""
        # A pass of 4 MP, the largest on a CPU, may take four times as long as one of 1 MP.
        busy_s, megapixels = self._batcher.busy_for_s, self._batcher.busy_with / _MEGAPIXEL
        if self._warm_up_began_s is not None:
            busy_s = time.perf_counter() - self._warm_up_began_s
            megapixels = len(self._manifest.cards)
        limit_s = self._settings.stall_timeout_s * max(1.0, megapixels)
        if busy_s > limit_s:
            return f"the device has not answered for {busy_s:.0f} s, longer than {limit_s:g} s"
        return None

    async def _warm_up(self) -> None:
        started = self._warm_up_began_s = time.perf_counter()
        loop = asyncio.get_running_loop()
        cards, side_px = self._manifest.cards, self._settings.warm_up_side_px
        try:
            await loop.run_in_executor(self._model_pool, self._engine.warm_up, cards, side_px)
        except Exception as error:
            logger.exception("warm_up_failed")
            self.fault = f"warm-up failed: {error}"
            return
        finally:
            self._warm_up_began_s = None
        if self._state == "warming up":
            self._state = "ready"
        fields = {
            "device": self._engine.device,
            "runtime": self._engine.runtime,
            "styles": len(cards),
            "warm_up_s": round(time.perf_counter() - started, 2),
        }
        logger.info("service_ready", extra={"fields": fields})
