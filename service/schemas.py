"""JSON bodies and the parameters of a stylize request, as the wire and OpenAPI see them."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from service.progress import Stage


class StyleInfo(BaseModel):
    """One style that ``POST /stylize`` can paint in."""

    id: str = Field(description="value of the `style` parameter")
    title: str
    artist: str
    year: str
    description: str
    generator: str = Field(description="architecture of the network")
    mixable: bool = Field(description="whether it can be mixed with others that can")
    mixes_with: list[str] = Field(
        description="ids of those, one for each row of the network that paints the mixture"
    )
    has_noise: bool = Field(description="whether another `seed` gives another picture")
    picture_license: str = Field(description="licence of the style picture")
    weights_license: str = Field(description="licence of the trained weights")
    preview_url: str = Field(description="a JPEG that this style painted")


class StyleList(BaseModel):
    """Every style of the zoo, in its own order."""

    styles: list[StyleInfo]


class RequestProgress(BaseModel):
    """How far a request in flight is."""

    stage: Stage = Field(
        description="what happens to it now; waiting is for the device that paints",
        examples=["waiting"],
    )
    jobs_ahead: int | None = Field(
        description="how many pictures, or parts of large ones, are painted first; null where it "
        "does not wait for those, or nobody knows",
        examples=[3],
    )


class Health(BaseModel):
    """The answer of a probe that holds."""

    status: Literal["alive", "ready"] = Field(examples=["ready"])


class ReloadReport(BaseModel):
    """What a reload has changed."""

    styles: int = Field(description="how many the zoo holds now", examples=[10])
    added: list[str] = Field(
        description="ids of styles that were not there before", examples=[["great-wave"]]
    )
    changed: list[str] = Field(
        description="ids of styles whose cards or weights differ", examples=[["starry-night"]]
    )
    removed: list[str] = Field(description="ids of styles that are gone", examples=[[]])
    networks_loaded: int = Field(description="networks that were read and compiled", examples=[2])
    networks_kept: int = Field(description="networks that both zoos share", examples=[8])
    duration_s: float = Field(description="seconds from the call to the swap", examples=[1.7])


class Problem(BaseModel):
    """An error, as RFC 9457 has it."""

    type: str = Field(description="a URN that names the kind of error; stable")
    title: str
    status: int
    detail: str = Field(description="what happened and what the caller can do")
    instance: str = Field(description="path of the request")
    request_id: str = Field(description="the X-Request-ID of this answer; quote it in a report")


class StylizeParameters(BaseModel):
    """Form fields of a multipart body, or query parameters beside a raw one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    style: str = Field(
        description="id of a style, or several that can be mixed with their shares, of sum 1: "
        "`starry-night:0.6,great-wave:0.4`; GET /styles lists them",
        examples=["starry-night"],
    )
    max_side: int | None = Field(
        default=None,
        ge=1,
        description="longer side of the answer in pixels; never enlarges",
        examples=[1024],
    )
    keep_colors: bool = Field(
        default=False,
        description="paint the brightness only and keep the photograph's colours",
        examples=[True],
    )
    strength: float = Field(
        default=1.0,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="0 is the photograph, 1 the painting; styles of a network that paints many "
        "are painted more faintly between, others blended with the photograph",
        examples=[0.8],
    )
    seed: int = Field(
        default=0,
        ge=0,
        lt=2**63,
        description="varies the answer of generators that take noise",
        examples=[7],
    )
    format: Literal["jpeg", "png", "webp"] | None = Field(
        default=None, description="format of the answer; wins over Accept", examples=["png"]
    )
    quality: int | None = Field(
        default=None,
        ge=1,
        le=100,
        description="JPEG or WebP quality; PNG is lossless",
        examples=[90],
    )
