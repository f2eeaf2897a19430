"""RemoteStudio: a studio whose engines are replicas on a Ray cluster."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from ray import serve
from ray.exceptions import ObjectLostError, RayActorError, RayError, RayTaskError
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
)

from service.cluster.work import Work
from service.errors import BusyError, NotReadyError, StyleNotFoundError, UnavailableError
from service.gate import AdmissionGate
from service.mixtures import choose_style
from service.reloader import ZooReloader
from service.zoos import Zoo, Zoos

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from ray.serve.handle import DeploymentHandle

    from model_zoo.cards import Manifest, StyleCard
    from service.cluster.options import ClusterOptions
    from service.cluster.work import Outcome
    from service.metrics import Metrics
    from service.pipeline import StyleRequest, StylizedImage
    from service.settings import Settings

logger = logging.getLogger(__name__)

_LOOK_EVERY_S = 2.0
# A replica, or its whole node, is gone; the request that it had may be carried out by another.
_LOST = (RayActorError, ReplicaUnavailableError, ObjectLostError)


class RemoteStudio:
    """Knows the styles and who is admitted; engines elsewhere do the rest.

    Args:
        settings: every knob.
        metrics: told what happens.
        options: of the cluster.
        engines: reaches the engines.

    Raises:
        ZooError: the zoo is empty, damaged, or does not fit its manifest.
    """

    device = "cluster"
    runtime = "ray"
    # On request only one ingress of many would change, and no engine.
    reloader = None
    # Frames would have to cross to an engine, and one after the other to the same.
    live_painter = None

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        *,
        options: ClusterOptions,
        engines: DeploymentHandle,
    ) -> None:
        self.zoos = Zoos(Zoo.read(settings.zoo))
        metrics.describe_zoo(self.zoos.current.digest)
        gate = AdmissionGate(
            options.admitted_max,
            max_pixels=settings.max_in_flight_pixels,
            max_body_bytes=settings.max_body_memory_bytes,
        )
        self.pipeline = RemotePipeline(self.zoos, gate, engines)
        self.lifecycle = EngineWatch(engines.deployment_name)
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="zoo")
        self._looker = ZooReloader(
            self.zoos,
            settings,
            engine=_Elsewhere(),
            lifecycle=self.lifecycle,
            model_pool=self._threads,
            on_outcome=lambda _: metrics.describe_zoo(self.zoos.current.digest),
        )
        metrics.watch(
            ready=lambda: self.lifecycle.is_ready,
            in_flight_requests=lambda: gate.in_flight,
            body_memory_bytes=lambda: gate.body_bytes,
            styles_loaded=lambda: len(self.zoos.current.manifest),
        )

    def start(self) -> None:
        """Begin to look after the engines, and for another zoo where the settings ask for it."""
        self.lifecycle.start()
        self._looker.start()

    async def aclose(self) -> None:
        """Wait for the answers to what was sent."""
        await self._looker.aclose()
        await self.pipeline.gate.wait_until_idle()
        await self.lifecycle.aclose()
        self._threads.shutdown(cancel_futures=True)


class RemotePipeline:
    """Sends requests to engines; those of one network to engines that have it."""

    def __init__(self, zoos: Zoos, gate: AdmissionGate, engines: DeploymentHandle) -> None:
        self.gate = gate
        self._zoos = zoos
        self._engines = engines

    @property
    def manifest(self) -> Manifest:
        """The styles that a request which comes now may ask for."""
        return self._zoos.current.manifest

    async def stylize(self, request: StyleRequest) -> StylizedImage:
        """Carry out one request.

        Raises:
            ServiceError: whichever kind says what went wrong.
        """
        # Where its engine is, nobody here sees more of it than that.
        request.progress.begin("painting")
        with self.gate.admit(request.owner) as admission:
            # How many pixels is known elsewhere: Retry-After goes by the time that a request takes.
            admission.reserve_pixels(1)
            async with request.deadline.enforce():
                network = choose_style(request.style, self.manifest).card.network
                try:
                    outcome = await self._send(request, network)
                except BackPressureError as error:
                    wait_s = self.gate.retry_after_s
                    raise BusyError(
                        f"every engine is busy and the queue is full; try again in {wait_s} s",
                        retry_after_s=wait_s,
                    ) from error
                except (ReplicaUnavailableError, DeploymentUnavailableError, RayError) as error:
                    if isinstance(error, RayTaskError):
                        raise  # the engine's own fault, and not that it is gone
                    raise NotReadyError("no engine can be reached; try again") from error
        for stage, seconds in outcome.stages_s.items():
            request.stages.add(stage, seconds)
        if isinstance(outcome.error, StyleNotFoundError):
            # It is here, and an engine has not looked at the zoo since.
            raise NotReadyError("the zoo has just changed; try again", retry_after_s=1)
        return outcome.unpack()

    async def _send(self, request: StyleRequest, network: str) -> Outcome:
        engines = self._engines.options(multiplexed_model_id=network)
        try:
            return await self._ask(engines, Work.of(request))
        except _LOST as error:
            # Once: painting changes nothing, but a picture that kills engines should not go on.
            logger.warning("engine_lost", extra={"fields": {"reason": str(error)}})
            return await self._ask(engines, Work.of(request))

    async def _ask(self, engines: DeploymentHandle, work: Work) -> Outcome:
        response = engines.stylize.remote(work)
        try:
            outcome: Outcome = await response
        except asyncio.CancelledError:
            response.cancel()  # the client hung up, or its time is over: engines need not go on
            raise
        return outcome


class EngineWatch:
    """Knows, a few seconds late at most, whether any engine runs; by Ray's own account."""

    def __init__(self, deployment: str) -> None:
        self._deployment = deployment
        self._running = 0
        self._leaving = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look, on the running event loop."""
        self._task = asyncio.create_task(self._look_forever(), name="engine-watch")

    async def aclose(self) -> None:
        """Look no more."""
        self._leaving = True
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def check_alive(self) -> None:
        """Nothing: this process has no device to lose."""

    def check_serving(self) -> None:
        """See that requests can be carried out; without an engine they wait for one."""

    def check_ready(self) -> None:
        """See that a load balancer should send requests here.

        Raises:
            NotReadyError: it should not, with the reason.
        """
        if self._leaving:
            raise NotReadyError("the service is draining; send requests elsewhere")
        if not self._running:
            raise NotReadyError("no engine runs yet")

    @property
    def is_ready(self) -> bool:
        """Whether :meth:`check_ready` would pass."""
        try:
            self.check_ready()
        except UnavailableError:
            return False
        return True

    async def _look_forever(self) -> None:
        application = serve.get_replica_context().app_name
        while True:
            try:
                status = await asyncio.to_thread(serve.status)
                deployment = status.applications[application].deployments[self._deployment]
                self._running = deployment.replica_states.get("RUNNING", 0)
            except Exception as error:  # noqa: BLE001  # of whatever kind
                # The controller is being replaced, which takes seconds; engines go on meanwhile.
                logger.warning("engine_watch_failed", extra={"fields": {"reason": str(error)}})
            await asyncio.sleep(_LOOK_EVERY_S)


class _Elsewhere:
    """The engine of a process that has none: whatever it is asked to load is loaded elsewhere."""

    device = "cluster"
    runtime = "ray"
    passes_at_once = 1

    def load(self, manifest: Manifest) -> None:
        """Nothing."""

    def keep(self, networks: Collection[str]) -> None:
        """Nothing."""

    def warm_up(self, cards: Iterable[StyleCard], side_px: int) -> None:
        """Nothing."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{name}: pictures are painted elsewhere")
