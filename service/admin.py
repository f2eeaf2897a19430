"""Routes for whoever runs the service; there only where the settings have administrators' keys."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from service.access import ADMINISTRATOR
from service.errors import DeviceLostError, NotReadyError, ServiceError, ZooRejectedError
from service.openapi import problems
from service.reloader import ZooReloader
from service.schemas import ReloadReport

router = APIRouter(prefix="/admin", dependencies=[ADMINISTRATOR], tags=["admin"])


async def _reloader(request: Request) -> ZooReloader:
    reloader: ZooReloader = request.app.state.reloader
    return reloader


@router.post(
    "/reload",
    summary="Serve what the zoo's folder holds now",
    response_description="What has changed",
    responses=problems(
        401, 403, 409, ZooRejectedError, ServiceError, NotReadyError, DeviceLostError
    ),
)
async def reload_zoo(reloader: Annotated[ZooReloader, Depends(_reloader)]) -> ReloadReport:
    """Read the zoo again; where any of it is not sound, 422 names the file and nothing changes.

    409 means that another reload is not done, 503 that the service is warming up or draining,
    or that its device is lost.
    """
    return await reloader.reload()
