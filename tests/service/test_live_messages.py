"""The protocol of /live as text and bytes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from service.errors import (
    BusyError,
    DeviceLostError,
    ForbiddenError,
    InvalidParameterError,
    MalformedRequestError,
    ServiceError,
    StyleNotFoundError,
    UnauthorizedError,
)
from service.live_messages import (
    LiveParameters,
    close_code,
    error_message,
    picture_message,
    read_change,
    read_start,
    ready_message,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.settings import Settings


def start(**parameters: Any) -> str:
    return json.dumps({"type": "start", "style": "ink"} | parameters)


def test_start_gives_the_key_and_the_parameters() -> None:
    key, parameters = read_start(start(version=1, key="secret", max_side=320, steadiness=0.2))
    assert key == "secret"
    assert parameters == LiveParameters(style="ink", max_side=320, steadiness=0.2)
    assert read_start(start())[0] is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", "null", "[" * 4000, json.dumps({"type": "start", "x": "y" * 5000})]
)
def test_start_that_is_no_json_object_of_sensible_length_is_malformed(text: str) -> None:
    with pytest.raises(MalformedRequestError):
        read_start(text)


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"type": "change"}, "type: input should be 'start'"),
        ({"version": 2}, "version: input should be 1"),
        ({"style": None}, "style: input should be a valid string"),
        ({"steadiness": 1.1}, "steadiness: input should be less than or equal to 1"),
        ({"strength": float("nan")}, "strength: "),
        ({"frames_per_second": 0}, "frames_per_second: input should be greater than 0"),
        ({"speed": 3}, "speed: is no parameter; there are style, max_side"),
        ({"key": 7}, "key: input should be a valid string"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_start_that_is_not_valid_names_what_is_wrong(said: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidParameterError) as raised:
        read_start(start(**said))
    assert raised.value.detail.startswith(sentence)


def test_start_without_a_style_says_so() -> None:
    with pytest.raises(InvalidParameterError, match="style: is missing"):
        read_start('{"type": "start"}')


def test_change_leaves_what_it_does_not_name_and_null_goes_back_to_the_service() -> None:
    before = LiveParameters(style="ink", max_side=320, steadiness=0.2)
    after = read_change('{"type": "change", "style": "wash", "max_side": null}', before)
    assert after == LiveParameters(style="wash", steadiness=0.2)


def test_change_that_is_not_valid_is_refused() -> None:
    before = LiveParameters(style="ink")
    for text in ('{"type": "start"}', '{"type": "change", "seed": -1}', '{"style": "wash"}'):
        with pytest.raises(InvalidParameterError):
            read_change(text, before)


def test_what_is_left_open_is_agreed_by_the_settings(
    make_settings: Callable[..., Settings],
) -> None:
    settings = make_settings(
        live_max_side_px=480, live_min_side_px=200, live_frame_rate=12, default_quality=77
    )
    agreed = LiveParameters(style="ink").agree(settings)
    assert (agreed.max_side, agreed.min_side) == (480, 200)
    assert (agreed.frames_per_second, agreed.quality) == (12, 77)
    small = LiveParameters(style="ink", max_side=128).agree(settings)
    assert (small.max_side, small.min_side) == (128, 128)
    assert LiveParameters(style="ink", frames_per_second=0.1).agree(settings)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"max_side": 481}, "max_side: 481 exceeds the limit of 480"),
        ({"max_side": 8}, "max_side: 8 is below the least of 16"),
        ({"min_side": 15}, "min_side: 15 is below the least of 16"),
        ({"min_side": 300, "max_side": 200}, "min_side: 300 exceeds the max_side of 200"),
        ({"min_side": 481}, "min_side: 481 exceeds the max_side of 480"),
        ({"frames_per_second": 30.5}, "frames_per_second: 30.5 exceeds the limit of 30"),
    ],
)
def test_what_is_out_of_bounds_is_refused_with_both_numbers(
    asked: dict[str, Any], sentence: str, make_settings: Callable[..., Settings]
) -> None:
    settings = make_settings(live_max_side_px=480)
    with pytest.raises(InvalidParameterError) as raised:
        LiveParameters(style="ink", **asked).agree(settings)
    assert raised.value.detail == sentence


def test_ready_says_all_that_was_agreed(make_settings: Callable[..., Settings]) -> None:
    agreed = LiveParameters(style="ink").agree(make_settings())
    said = json.loads(ready_message(agreed, from_frame=7, request_id="order-66", painted_side=320))
    assert said.pop("type") == "ready"
    assert said.pop("version") == 1
    assert (said.pop("from_frame"), said.pop("request_id")) == (7, "order-66")
    assert said.pop("painted_side") == 320
    assert said == agreed.model_dump()
    assert None not in said.values()


def test_error_is_the_problem_document_of_http_with_the_pause_in_it() -> None:
    error = BusyError("full; try again in 10 s", retry_after_s=10)
    said = json.loads(error_message(error, request_id="order-66", frame=3))
    assert said == {
        "type": "error",
        "frame": 3,
        "problem": {
            "type": "urn:atelier:error:busy",
            "title": "Too many requests in flight",
            "status": 429,
            "detail": "full; try again in 10 s",
            "instance": "/live",
            "request_id": "order-66",
            "retry_after_s": 10,
        },
    }
    other = json.loads(error_message(StyleNotFoundError("no style"), request_id=""))
    assert "frame" not in other
    assert "retry_after_s" not in other["problem"]


def test_picture_begins_with_its_number_which_starts_again_after_four_bytes() -> None:
    assert picture_message(258, b"jpeg") == b"\x00\x00\x01\x02jpeg"
    assert picture_message(2**32 + 1, b"") == b"\x00\x00\x00\x01"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UnauthorizedError("", challenge=""), 1008),
        (ForbiddenError(""), 1008),
        (StyleNotFoundError(""), 1008),
        (InvalidParameterError(""), 1008),
        (BusyError("", retry_after_s=1), 1013),
        (DeviceLostError(""), 1013),
        (ServiceError(""), 1011),
    ],
    ids=lambda value: value.slug if isinstance(value, ServiceError) else str(value),
)
def test_close_code_tells_who_may_come_back(error: ServiceError, code: int) -> None:
    assert close_code(error) == code
