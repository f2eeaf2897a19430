"""Routes: HTTP only. Reads requests, calls the pipeline, sets headers."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Coroutine
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Header, Path, Request, Response
from opentelemetry.trace import Tracer
from prometheus_client import CONTENT_TYPE_LATEST

from model_zoo.cards import Manifest, StyleCard
from service.access import CALLER, METRICS_READER, WITHIN_RATE
from service.answers import PictureResponse
from service.deadlines import Deadline
from service.errors import (
    ClientClosedRequestError,
    CorruptImageError,
    DeviceLostError,
    ImageTooSmallError,
    InvalidParameterError,
    NotAcceptableError,
    NotReadyError,
    RequestNotFoundError,
    ServiceError,
    StyleNotFoundError,
)
from service.formats import ENCODABLE, FORMATS, ImageFormat, acceptable_formats
from service.gate import BodyHold
from service.lifecycle import Lifecycle
from service.metrics import Metrics
from service.mixtures import find_card, label_of, partners_of
from service.openapi import (
    cacheable,
    if_none_match,
    problems,
    stylize_request,
    stylized,
    text,
)
from service.pipeline import StyleRequest, StylizedImage, StylizePipeline
from service.progress import Progress, ProgressBoard
from service.schemas import Health, RequestProgress, StyleInfo, StyleList, StylizeParameters
from service.settings import Settings
from service.stages import Stages
from service.uploads import read_upload
from service.zoos import Zoo

if TYPE_CHECKING:
    from service.logs import RequestRecord

T = TypeVar("T")

SERVER_TIMING_STAGES = ("decode", "queue", "stylize", "encode")

_UNPROCESSABLE = (CorruptImageError, ImageTooSmallError, InvalidParameterError)

_LISTING_MAX_AGE_S = 60
_PREVIEW_MAX_AGE_S = 3600


def _part(name: str) -> Any:
    """Depend on a part that create_app put into the application's state."""

    async def get_part(request: Request) -> Any:
        return getattr(request.app.state, name)

    return Depends(get_part)


Pipeline = Annotated[StylizePipeline, _part("pipeline")]


async def _get_zoo(request: Request) -> Zoo:
    """The zoo of this request, once: another may be served before its answer is made."""
    zoo: Zoo = request.app.state.zoos.current
    return zoo


PresentZoo = Annotated[Zoo, Depends(_get_zoo)]


async def _get_card(style_id: str, zoo: PresentZoo) -> StyleCard:
    return find_card(style_id, zoo.manifest)


Card = Annotated[StyleCard, Depends(_get_card)]


def _caller(request: Request) -> str:
    """On whose behalf a request comes; empty where nobody asked."""
    return getattr(request.state, "caller", "")


Board = Annotated[ProgressBoard, _part("progress")]


async def _follow(request: Request, board: Board) -> AsyncIterator[Progress]:
    with board.follow(_caller(request), request.state.request_id) as progress:
        yield progress


async def _hold_body(request: Request, pipeline: Pipeline) -> AsyncIterator[BodyHold]:
    with pipeline.gate.hold_body(_caller(request)) as held:
        yield held  # until the client has taken the answer, or is cut off


router = APIRouter()


@router.post(
    "/stylize",
    summary="Paint a photograph in a style",
    tags=["stylize"],
    response_class=Response,
    dependencies=[WITHIN_RATE],
    responses=stylized(*ENCODABLE)
    | problems(
        400, 401, StyleNotFoundError, 406, 408, 413, 415, 429, 500, 503, 504, *_UNPROCESSABLE
    ),
    openapi_extra=stylize_request(),
)
async def stylize(
    request: Request,
    pipeline: Pipeline,
    lifecycle: Annotated[Lifecycle, _part("lifecycle")],
    settings: Annotated[Settings, _part("settings")],
    tracer: Annotated[Tracer, _part("tracer")],
    held: Annotated[BodyHold, Depends(_hold_body, scope="request")],
    progress: Annotated[Progress, Depends(_follow, scope="function")],
    x_request_timeout_seconds: Annotated[
        float | None, Header(gt=0, description="how long the client will wait", examples=[10])
    ] = None,
) -> Response:
    """Paint the photograph in the body; the same request always gives the same bytes."""
    record: RequestRecord = request.state.record
    timeout_s = settings.request_timeout_s
    deadline = Deadline.after(min(timeout_s, x_request_timeout_seconds or timeout_s))
    # Refused here already, before the body is read; the pipeline's own look is the one that counts.
    lifecycle.check_serving()
    pipeline.gate.check(_caller(request))

    stages = Stages(record.stages_s, tracer)
    async with deadline.enforce():
        with stages.timed("read"):
            upload = await read_upload(
                request,
                max_body_bytes=settings.max_body_bytes,
                body_timeout_s=settings.body_timeout_s,
                reserve=held.reserve,
            )

    parameters = upload.parameters
    record.style = label_of(parameters.style, pipeline.manifest)
    stages.describe(style=record.style)
    work = StyleRequest(
        image=upload.image,
        style=parameters.style,
        formats=_choose_formats(parameters, request),
        deadline=deadline,
        max_side_px=_choose_max_side(parameters, settings),
        quality=parameters.quality or settings.default_quality,
        keep_colors=parameters.keep_colors,
        strength=parameters.strength,
        seed=parameters.seed,
        owner=_caller(request),
        stages=stages,
        progress=progress,
    )
    image = await _unless_hung_up(request, pipeline.stylize(work))
    held.become(len(image.data))
    return _image_response(image, record.style, record.stages_s)


@router.get(
    "/requests/{request_id:path}",
    summary="Say how far a request is",
    tags=["stylize"],
    dependencies=[CALLER],
    responses=problems(401, RequestNotFoundError, ServiceError),
)
async def read_progress(
    request: Request,
    board: Board,
    request_id: Annotated[
        str, Path(description="the X-Request-ID that POST /stylize was sent", examples=["order-66"])
    ],
) -> RequestProgress:
    """Say how far a POST /stylize of the same caller is, while it is in flight here."""
    progress = board.find(_caller(request), request_id)
    if progress is None:
        raise RequestNotFoundError(
            f"no request {request_id!r} of yours is in flight here; it may be done, or at another "
            "instance"
        )
    stage, jobs_ahead = progress.look()
    return RequestProgress(stage=stage, jobs_ahead=jobs_ahead)


@router.get(
    "/styles",
    summary="List the styles",
    tags=["styles"],
    response_model=StyleList,
    dependencies=[CALLER],
    responses=cacheable("Every style", StyleList) | problems(401, ServiceError),
    openapi_extra=if_none_match(),
)
async def list_styles(request: Request, zoo: PresentZoo) -> Response:
    """List every style, in the zoo's own order."""
    styles = StyleList(styles=[_describe(card, zoo.manifest, request) for card in zoo.manifest])
    return _cacheable(
        request, styles.model_dump_json().encode(), "application/json", _LISTING_MAX_AGE_S
    )


@router.get(
    "/styles/{style_id}",
    summary="Describe a style",
    tags=["styles"],
    response_model=StyleInfo,
    dependencies=[CALLER],
    responses=cacheable("The style", StyleInfo) | problems(401, StyleNotFoundError, ServiceError),
    openapi_extra=if_none_match(),
)
async def read_style(request: Request, card: Card, zoo: PresentZoo) -> Response:
    """Describe one style."""
    body = _describe(card, zoo.manifest, request).model_dump_json().encode()
    return _cacheable(request, body, "application/json", _LISTING_MAX_AGE_S)


@router.get(
    "/styles/{style_id}/preview",
    summary="Show a style",
    tags=["styles"],
    response_class=Response,
    dependencies=[CALLER],
    responses=cacheable("A painted picture", FORMATS["jpeg"])
    | problems(401, StyleNotFoundError, ServiceError),
    openapi_extra=if_none_match(),
)
async def read_preview(request: Request, card: Card, zoo: PresentZoo) -> Response:
    """Show a photograph that the style painted."""
    body = zoo.previews[card.style_id]
    return _cacheable(request, body, FORMATS["jpeg"].media_type, _PREVIEW_MAX_AGE_S)


@router.get(
    "/livez",
    summary="Whether the process lives",
    tags=["operations"],
    responses=problems(DeviceLostError),
)
async def live(lifecycle: Annotated[Lifecycle, _part("lifecycle")]) -> Health:
    """Answer at once, whatever else goes on: a failure means restart the process."""
    lifecycle.check_alive()
    return Health(status="alive")


@router.get(
    "/readyz",
    summary="Whether to send requests here",
    tags=["operations"],
    responses=problems(NotReadyError, DeviceLostError),
)
async def ready(lifecycle: Annotated[Lifecycle, _part("lifecycle")]) -> Health:
    """Answer 503 while warming up or draining, or where the device no longer answers."""
    lifecycle.check_ready()
    return Health(status="ready")


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    tags=["operations"],
    response_class=Response,
    dependencies=[METRICS_READER],
    responses=text("Every metric, in Prometheus's text format", "atelier_queue_jobs 3.0")
    | problems(401),
)
async def read_metrics(metrics: Annotated[Metrics, _part("metrics")]) -> Response:
    """Give every metric in Prometheus's text format."""
    return Response(metrics.render(), media_type=CONTENT_TYPE_LATEST)


async def _unless_hung_up(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Give the result of ``work``, or cancel it when the client hangs up, which is no cancellation.

    Raises:
        ClientClosedRequestError: the client hung up first.
    """
    task = asyncio.create_task(work)
    hang_up = asyncio.create_task(_wait_for_hang_up(request))
    try:
        await asyncio.wait((task, hang_up), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientClosedRequestError("the client hung up")
    finally:
        task.cancel()
        hang_up.cancel()
        await asyncio.gather(task, hang_up, return_exceptions=True)


async def _wait_for_hang_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _choose_formats(parameters: StylizeParameters, request: Request) -> tuple[ImageFormat, ...]:
    if parameters.format:
        return (FORMATS[parameters.format],)
    accept = ", ".join(request.headers.getlist("accept"))
    if formats := acceptable_formats(accept):
        return formats
    offered = ", ".join(row.media_type for row in ENCODABLE)
    raise NotAcceptableError(f"Accept: {accept} takes none of {offered}")


def _choose_max_side(parameters: StylizeParameters, settings: Settings) -> int:
    if parameters.max_side is None:
        return settings.default_max_side_px
    if parameters.max_side > settings.max_side_px:
        raise InvalidParameterError(
            f"max_side: {parameters.max_side} exceeds the limit of {settings.max_side_px}"
        )
    return parameters.max_side


def _image_response(image: StylizedImage, style: str, stages_s: dict[str, float]) -> Response:
    timing = ", ".join(f"{s};dur={stages_s[s] * 1000:.1f}" for s in SERVER_TIMING_STAGES)
    return PictureResponse(
        image.data,
        media_type=image.format.media_type,
        headers={
            "Content-Disposition": f'inline; filename="{style}.{image.format.suffix}"',
            "Server-Timing": timing,
            "Vary": "Accept",
        },
    )


def _describe(card: StyleCard, manifest: Manifest, request: Request) -> StyleInfo:
    preview = request.url_for("read_preview", style_id=card.style_id)
    return StyleInfo(
        id=card.style_id,
        title=card.title,
        artist=card.artist,
        year=card.year,
        description=card.description,
        generator=card.generator,
        mixable=bool(card.style_row or card.mixes_as),
        mixes_with=partners_of(card, manifest),
        has_noise=card.has_noise,
        picture_license=card.picture_license,
        weights_license=card.weights_license,
        preview_url=preview.path,
    )


def _cacheable(request: Request, body: bytes, media_type: str, max_age_s: int) -> Response:
    """Answer with ``body``, or 304 where the client holds the same bytes already."""
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    # What a key opened is not for a shared cache to give to others.
    whose = "private" if request.state.caller else "public"
    headers = {"ETag": etag, "Cache-Control": f"{whose}, max-age={max_age_s}"}
    # Nor is it for a browser to give to a page that has no key.
    headers["Vary"] = "Authorization, X-API-Key"
    held = request.headers.get("if-none-match", "")
    tags = {tag.strip().removeprefix("W/") for tag in held.split(",")}
    if tags & {etag, "*"}:
        return Response(status_code=304, headers=headers)
    return Response(body, media_type=media_type, headers=headers)
