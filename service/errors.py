"""The ServiceError tree: every way in which a request fails. problems.py has its form on the wire.

ServiceError
├── MalformedRequestError        400  the HTTP message cannot be parsed
├── UnauthorizedError            401  with WWW-Authenticate
├── ForbiddenError               403  not the key for this, or a page of another site
├── StyleNotFoundError           404
├── RequestNotFoundError         404  not in flight, or another's
├── NotAcceptableError           406
├── UploadTimeoutError           408  the body comes too slowly
├── ReloadInProgressError        409
├── BodyTooLargeError            413
├── ImageTooLargeError           413
├── UnsupportedMediaTypeError    415  not an image, or not one of the accepted kinds
├── UnprocessableError           422
│   ├── InvalidParameterError
│   ├── CorruptImageError
│   ├── ImageTooSmallError
│   └── ZooRejectedError              the zoo on disk cannot be served; that of before goes on
├── BusyError                    429  with Retry-After
├── RateLimitedError             429  with Retry-After
├── ClientClosedRequestError     499  nobody is left to answer; for the log and the metrics
├── StylizationError             500  a generator gave no picture
├── UnavailableError             503  with Retry-After
│   ├── NotReadyError
│   ├── DeviceOutOfMemoryError
│   └── DeviceLostError
└── DeadlineError                504
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping


class ServiceError(Exception):
    """A request cannot be served; the message tells the caller what to do about it."""

    status: ClassVar[int] = 500
    slug: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.headers = dict(headers or {})

    def __reduce__(self) -> tuple[Any, ...]:
        """Cross to another process whole: kinds differ in the arguments that they are made of."""
        return _restore, (type(self), self.detail, self.headers)


def _restore(kind: type[ServiceError], detail: str, headers: dict[str, str]) -> ServiceError:
    error = kind.__new__(kind)
    ServiceError.__init__(error, detail, headers=headers)
    return error


class MalformedRequestError(ServiceError):
    """The body does not parse as what its Content-Type says."""

    status, slug, title = 400, "malformed-request", "Malformed request"


class UnauthorizedError(ServiceError):
    """A key is needed, and none came that is known."""

    status, slug, title = 401, "unauthorized", "Key needed"

    def __init__(self, detail: str, *, challenge: str) -> None:
        super().__init__(detail, headers={"WWW-Authenticate": challenge})


class ForbiddenError(ServiceError):
    """The key is known, but does not open this; or a page of another site asks for it."""

    status, slug, title = 403, "forbidden", "Forbidden"

    def __init__(self, detail: str, *, challenge: str = "") -> None:
        super().__init__(detail, headers={"WWW-Authenticate": challenge} if challenge else None)


class StyleNotFoundError(ServiceError):
    """The zoo holds no style of that id."""

    status, slug, title = 404, "style-not-found", "Style not found"


class RequestNotFoundError(ServiceError):
    """No request of that id is in flight here, or it is another caller's."""

    status, slug, title = 404, "request-not-found", "Request not found"


class NotAcceptableError(ServiceError):
    """The Accept header leaves no format that the service can write."""

    status, slug, title = 406, "not-acceptable", "Not acceptable"


class UploadTimeoutError(ServiceError):
    """The request body takes longer than one of its size may."""

    status, slug, title = 408, "upload-too-slow", "Upload too slow"

    def __init__(self, detail: str) -> None:
        # The rest of the body is not worth waiting for.
        super().__init__(detail, headers={"Connection": "close"})


class ReloadInProgressError(ServiceError):
    """One reload at a time."""

    status, slug, title = 409, "reload-in-progress", "Reload in progress"


class BodyTooLargeError(ServiceError):
    """The request body has too many bytes."""

    status, slug, title = 413, "body-too-large", "Body too large"


class ImageTooLargeError(ServiceError):
    """The picture has too many pixels, by its own header."""

    status, slug, title = 413, "image-too-large", "Image too large"


class UnsupportedMediaTypeError(ServiceError):
    """The bytes are not a picture, or not one of an accepted format."""

    status, slug, title = 415, "unsupported-media-type", "Unsupported media type"


class UnprocessableError(ServiceError):
    """The request parses, and still cannot be carried out."""

    status, slug, title = 422, "unprocessable", "Unprocessable request"


class InvalidParameterError(UnprocessableError):
    """A parameter is missing, unknown, repeated or out of range."""

    slug, title = "invalid-parameter", "Invalid parameter"


class CorruptImageError(UnprocessableError):
    """The picture is of an accepted format but cannot be decoded."""

    slug, title = "corrupt-image", "Corrupt image"


class ImageTooSmallError(UnprocessableError):
    """The picture's shorter side is too short to paint."""

    slug, title = "image-too-small", "Image too small"


class ZooRejectedError(UnprocessableError):
    """The zoo on disk cannot be served; the one of before goes on."""

    slug, title = "zoo-rejected", "Zoo rejected"


class BusyError(ServiceError):
    """The service, or this caller's share of it, is full."""

    status, slug, title = 429, "busy", "Too many requests in flight"

    def __init__(self, detail: str, *, retry_after_s: int) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after_s)})


class RateLimitedError(ServiceError):
    """One caller has sent more requests than it may in this time."""

    status, slug, title = 429, "rate-limited", "Too many requests of one caller"

    def __init__(self, detail: str, *, retry_after_s: int, headers: Mapping[str, str]) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after_s), **headers})


class ClientClosedRequestError(ServiceError):
    """The client hung up before its answer was ready."""

    status, slug, title = 499, "client-closed-request", "Client closed request"


class StylizationError(ServiceError):
    """A generator gave something that is not a picture."""

    slug, title = "stylization-failed", "Stylization failed"


class UnavailableError(ServiceError):
    """The service cannot take the request now."""

    status, slug, title = 503, "unavailable", "Service unavailable"

    def __init__(self, detail: str, *, retry_after_s: int = 5) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after_s)})


class NotReadyError(UnavailableError):
    """The service is warming up, draining, or has lost what paints."""

    slug, title = "not-ready", "Not ready"


class DeviceOutOfMemoryError(UnavailableError):
    """One picture alone does not fit the device's free memory."""

    slug, title = "device-out-of-memory", "Device out of memory"


class DeviceLostError(UnavailableError):
    """The device broke down; only another process may get it back."""

    slug, title = "device-lost", "Device lost"


class DeadlineError(ServiceError):
    """The time this request was allowed has passed."""

    status, slug, title = 504, "deadline-passed", "Deadline passed"


# What their kinds have in common; only the kinds are raised.
_FAMILIES = (UnprocessableError, UnavailableError)


def error_kinds() -> tuple[type[ServiceError], ...]:
    """Give every kind of error that is raised, from the root of the tree down."""
    kinds: list[type[ServiceError]] = [ServiceError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    return tuple(kind for kind in kinds if kind not in _FAMILIES)
