"""RemoteWorkshop: sends pictures to a service, a few at once. Needs the extra client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from service.client import (
    AsyncClient,
    AtelierError,
    BrokenOffError,
    OutOfTimeError,
    ProblemError,
)
from service.workshops import CannotPaintError, Painting, WorkshopLostError

if TYPE_CHECKING:
    from types import TracebackType

    from service.client import Style
    from service.schemas import StylizeParameters

_REQUESTS = 4
# Half a second, and twice as long each time: a service that starts anew has 7 s.
_ATTEMPTS = 5
_MOST_BYTES_TO_SEND = 2**30
_KEY_REFUSED = (401, 403)


class RemoteWorkshop:
    """Lets a service paint.

    Args:
        url: of the service.
        key: an API key, where it asks for one.
        timeout_s: for a picture, with all attempts.
        jobs: requests at once.

    Raises:
        ValueError: there can be no such address or key.
    """

    def __init__(self, url: str, key: str | None, timeout_s: float, jobs: int | None) -> None:
        self.jobs = jobs or _REQUESTS
        self.max_bytes = _MOST_BYTES_TO_SEND
        self._client = AsyncClient(url, key=key, timeout_s=timeout_s, attempts=_ATTEMPTS)

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._client.__aexit__(kind, error, trace)

    async def styles(self) -> list[Style]:
        """What it can paint in.

        Raises:
            WorkshopLostError: it does not say.
        """
        try:
            return await self._client.styles()
        except AtelierError as error:
            raise WorkshopLostError(str(error)) from error

    def describe(self, parameters: StylizeParameters) -> dict[str, object]:
        """Name the parameters; what the service makes of them it does not say."""
        return parameters.model_dump(exclude_none=True)

    async def paint(self, image: bytes, parameters: StylizeParameters) -> Painting:
        """Send the bytes, again where the service is busy."""
        options = parameters.model_dump(exclude={"style"}, exclude_none=True)
        try:
            answer = await self._client.stylize(image, parameters.style, **options)
        except ProblemError as error:
            if error.status in _KEY_REFUSED:
                raise WorkshopLostError(error.detail) from error
            raise CannotPaintError(error.detail, type=error.type, status=error.status) from error
        except (OutOfTimeError, BrokenOffError) as error:
            raise CannotPaintError(str(error)) from error
        except AtelierError as error:
            raise WorkshopLostError(str(error)) from error
        return Painting(answer.data, answer.suffix)
