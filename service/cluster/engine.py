"""Engine: one replica that paints, with a batcher, a stylizer and few networks of its own."""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from ray import serve

from model_zoo.cards import Manifest, ZooError
from service.app import service_version
from service.cluster.exports import MetricsExport
from service.cluster.on_demand import OnDemandEngine
from service.cluster.work import Outcome
from service.errors import (
    ClientClosedRequestError,
    DeviceLostError,
    NotReadyError,
    ServiceError,
    error_kinds,
)
from service.logs import configure_logging, continue_request
from service.metrics import Metrics
from service.mixtures import choose_style
from service.studio import LocalStudio, create_engine

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from service.cluster.on_demand import Held
    from service.cluster.options import ClusterOptions
    from service.cluster.work import Work
    from service.pipeline import StyleRequest, StylizedImage
    from service.settings import Settings

logger = logging.getLogger(__name__)


class Engine:
    """Carries out requests; Ray sends those of one network to the same few replicas.

    Not ready, by Ray's account, before device and runtime have painted once.
    """

    # Ray awaits it.
    async def __init__(self, settings: Settings, options: ClusterOptions) -> None:  # type: ignore[misc]
        settings = _within(settings, options)
        configure_logging(settings.log_level)
        metrics = Metrics(kind.slug for kind in error_kinds())
        stylizer = create_engine(Manifest(settings.zoo, ()), settings)
        engine = OnDemandEngine(stylizer, settings.zoo, settings.warm_up_side_px)
        self._studio = LocalStudio(settings, metrics, engine)
        metrics.describe_build(
            version=service_version(), device=engine.device, runtime=engine.runtime
        )
        self._export = MetricsExport(metrics.registry)

        # By Ray's own cache, which tells its routers what is loaded where.
        @serve.multiplexed(max_num_models_per_replica=options.networks_max)  # type: ignore[untyped-decorator]
        async def hold(network: str) -> Held:
            card = next((c for c in self._studio.pipeline.manifest if c.network == network), None)
            if card is None:
                raise NotReadyError("the zoo has just changed; try again", retry_after_s=1)
            return await self._within_time(engine.hold(card, self._studio.model_pool))

        self._hold = hold
        self._fault: str | None = None
        # For loading a network, and for what it paints to begin with.
        self._load_within_s = settings.stall_timeout_s
        self._studio.start()
        self._export.start()
        # Ray asks nobody for health who is not ready yet.
        async with asyncio.timeout(self._load_within_s):
            await self._studio.lifecycle.settle()
        self._studio.lifecycle.check_ready()

    async def stylize(self, work: Work) -> Outcome:
        """Carry out one request, or say why it cannot be."""
        request = work.unpack()
        problem = ""
        with continue_request(work.ids):
            try:
                image = await self._carry_out(request)
                return Outcome(request.stages.seconds, image.data, image.format.name)
            except asyncio.CancelledError:
                problem = ClientClosedRequestError.slug
                raise
            except ServiceError as error:
                problem = error.slug
                if error.status == HTTPStatus.INTERNAL_SERVER_ERROR:
                    logger.exception("service_error")
                return Outcome(request.stages.seconds, error=_bare(error))
            except Exception:
                problem = ServiceError.slug
                logger.exception("unhandled_error")
                unknown = ServiceError("an engine met an error of its own; its log names the cause")
                return Outcome(request.stages.seconds, error=unknown)
            finally:
                logger.info("work_finished", extra={"fields": {"problem": problem}})

    # On the event loop, where a method that is not async would not run.
    async def check_health(self) -> None:
        """Say whether the device answers; asked by Ray, which replaces a replica that raises.

        Raises:
            RuntimeError: it does not, with the reason.
        """
        if reason := self._studio.lifecycle.look() or self._fault:
            raise RuntimeError(reason)

    async def __del__(self) -> None:
        """Finish what was taken on; Ray waits for it."""
        if hasattr(self, "_studio"):
            self._export.stop()
            await self._studio.aclose()

    async def _carry_out(self, request: StyleRequest) -> StylizedImage:
        async with request.deadline.enforce():
            with request.stages.timed("queue"):
                held = await self._hold_network(request.style)
        try:
            return await self._studio.pipeline.stylize(request)
        finally:
            del held

    async def _hold_network(self, style: str) -> Held:
        """Give the network that the style has now: the zoo may change while it is loaded."""
        held: Held | None = None
        while True:
            network = choose_style(style, self._studio.pipeline.manifest).card.network
            if held is not None and held.network == network:
                return held
            # Whoever hangs up does not end a load that others wait for, and that Ray has noted.
            held = await asyncio.shield(asyncio.ensure_future(self._hold(network)))

    async def _within_time(self, load: Coroutine[Any, Any, Held]) -> Held:
        """Load, or note why this engine had better be replaced; others wait for the same lock."""
        try:
            async with asyncio.timeout(self._load_within_s):
                return await load
        except TimeoutError as error:
            self._fault = f"a network was not loaded within {self._load_within_s:g} s"
            raise DeviceLostError(f"{self._fault}; try again") from error
        except DeviceLostError as error:
            self._fault = error.detail
            raise
        except ZooError as error:
            raise NotReadyError(f"this engine cannot load the style: {error}") from error


def _bare(error: ServiceError) -> ServiceError:
    """Without its tracebacks, whose frames hold the picture, and the network, until Ray is done."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def _within(settings: Settings, options: ClusterOptions) -> Settings:
    """Threads for the cores of this replica, which are not all of the machine's."""
    threads = {"model_threads": options.threads, "codec_threads": options.threads}
    given = settings.model_fields_set
    return settings.model_copy(update={k: v for k, v in threads.items() if k not in given})
