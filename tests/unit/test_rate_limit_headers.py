"""What rate-limit headers say of what is left, and which responses are throttles."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from integration_service.activities.outbound.messages import InboundResponse
from integration_service.activities.outbound.rate_limit_headers import exhausted_for
from integration_service.activities.outbound.throttle import hold_back, throttle
from integration_service.contracts.errors import ErrorCode

NOW = datetime(2026, 6, 1, 12, 0, 0, tzinfo=UTC)
EPOCH = int(NOW.timestamp())
DATE = format_datetime(NOW + timedelta(seconds=20), usegmt=True)

PAIRS = [
    ("x-ratelimit-remaining", "x-ratelimit-reset"),
    ("x-ratelimit-remaining", "x-ratelimit-reset-after"),
    ("x-rate-limit-remaining", "x-rate-limit-reset"),
    ("ratelimit-remaining", "ratelimit-reset"),
    ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
    ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    ("anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset"),
]
TIMES = ["20", "20.0", "20s", "20000ms", str(EPOCH + 20), f"{EPOCH + 20}.0", str((EPOCH + 20) * 1000), DATE]
TIMES += ["2026-06-01T12:00:20Z", "2026-06-01T12:00:20.000+00:00"]


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize(("remaining", "reset"), PAIRS)
def test_nothing_left_holds_back_until_the_reset_in_every_spelling(remaining: str, reset: str, time: str) -> None:
    for left in ("0", "-1", "0.5", " 0 "):
        assert exhausted_for({remaining: left, reset: time}, now=NOW) == timedelta(seconds=20)
    for left in ("1", "4999", "unlimited", ""):
        assert exhausted_for({remaining: left, reset: time}, now=NOW) is None


@pytest.mark.parametrize(
    ("field", "seconds"),
    [
        ('"default";r=0;t=30', 30),
        ('"default"; r=0; t=30', 30),
        ('"default";t=30;r=0', 30),
        ('"burst";r=0;t=2, "daily";r=12;t=3000', 2),
        ('"burst";r=0;t=2, "daily";r=0;t=3000', 3000),
        ('"a,b;r=5\\"";r=0;t=7', 7),
        ('"default";r=0;t=99999;pk=:sdfjLJUOUH==:', 3600),
        ("limit=100, remaining=0, reset=30", 30),
        ("limit=100,remaining=0,reset=30", 30),
        ("limit=100;w=60, remaining=0, reset=30", 30),
        ('"default";r=1;t=30', None),
        ('"default";r=0', None),
        ('"default";t=30', None),
        ("limit=100, remaining=3, reset=30", None),
        ("remaining=0", None),
        ("100", None),
        ('"', None),
        ("", None),
    ],
)
def test_the_rate_limit_field_of_the_ietf(field: str, seconds: float | None) -> None:
    expected = None if seconds is None else timedelta(seconds=seconds)
    assert exhausted_for({"ratelimit": field}, now=NOW) == expected


@pytest.mark.parametrize(
    "headers",
    [
        {"x-ratelimit-remaining": "0"},
        {"x-ratelimit-reset": "30"},
        {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "never"},
        {"x-shopify-shop-api-call-limit": "40/40"},
        {"x-items-remaining": "0", "x-items-reset": "30"},
    ],
)
def test_what_names_no_time_or_no_count_holds_nothing_back(headers: dict[str, str]) -> None:
    assert exhausted_for(headers, now=NOW) is None


def test_of_several_limits_the_longest_wait_counts_and_each_count_has_its_own_reset() -> None:
    headers = {
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "12ms",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "6m0s",
    }
    assert exhausted_for(headers, now=NOW) == timedelta(minutes=6)
    assert exhausted_for({**headers, "x-ratelimit-remaining-tokens": "10"}, now=NOW) == timedelta(milliseconds=12)


def answer(status: int, **headers: str) -> InboundResponse:
    return InboundResponse(
        status=status, headers={name.replace("_", "-"): value for name, value in headers.items()}, body=b""
    )


@pytest.mark.parametrize(
    ("response", "code", "seconds"),
    [
        (answer(429), ErrorCode.RATE_LIMITED, None),
        (answer(429, retry_after="5"), ErrorCode.RATE_LIMITED, 5),
        (answer(429, x_ratelimit_reset="6"), ErrorCode.RATE_LIMITED, 6),
        (answer(403, retry_after="7"), ErrorCode.RATE_LIMITED, 7),
        (
            answer(403, x_ratelimit_remaining="0", x_ratelimit_reset=str(EPOCH + 8)),
            ErrorCode.RATE_LIMITED,
            8,
        ),
        (answer(503, retry_after="9"), "HTTP_503", 9),
    ],
)
def test_a_throttle_is_told_by_status_and_signs(response: InboundResponse, code: str, seconds: float | None) -> None:
    found = throttle(response, now=NOW)
    delay = None if seconds is None else timedelta(seconds=seconds)
    assert found is not None
    assert (found.code, found.delay) == (code, delay)
    assert hold_back(response, now=NOW) == delay


@pytest.mark.parametrize(
    "response",
    [
        answer(403),
        answer(403, x_ratelimit_remaining="4999", x_ratelimit_reset=str(EPOCH + 8)),
        answer(403, x_ratelimit_reset=str(EPOCH + 8)),
        answer(503),
        answer(500, retry_after="9"),
        answer(200, retry_after="9"),
        answer(301, retry_after="9"),
        answer(200),
    ],
)
def test_other_responses_are_none(response: InboundResponse) -> None:
    assert throttle(response, now=NOW) is None
    assert hold_back(response, now=NOW) is None


def test_a_success_that_used_up_the_last_holds_the_next_back() -> None:
    response = answer(200, x_ratelimit_remaining="0", x_ratelimit_reset="40")
    assert throttle(response, now=NOW) is None
    assert hold_back(response, now=NOW) == timedelta(seconds=40)
    assert hold_back(answer(200, x_ratelimit_remaining="0", x_ratelimit_reset="0"), now=NOW) is None


NAMES = sorted({name for pair in PAIRS for name in pair} | {"ratelimit", "retry-after", "date"})
FIELDS = st.lists(
    st.sampled_from(['"default"', "r=0", "t=30", ";", ",", '"', "\\", "remaining=0", "reset=5", " ", "=", "é", "0"]),
    max_size=30,
).map("".join)
VALUES = st.sampled_from(TIMES) | st.floats().map(str) | st.text(max_size=30) | FIELDS


@given(st.integers(200, 599), st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=5))
@example(429, {"ratelimit": '"' * 50_000})
@example(429, {"ratelimit": "\\" * 50_000})
@example(429, {"ratelimit": '"a";r=0;' * 10_000})
@example(429, {"ratelimit": '"' + '\\"' * 50_000})
@example(200, {"ratelimit": "," * 50_000})
@settings(max_examples=300)
def test_whatever_an_upstream_sends_a_wait_is_none_or_within_an_hour(status: int, headers: dict[str, str]) -> None:
    response = InboundResponse(status=status, headers=headers, body=b"")
    found, delay = throttle(response, now=NOW), hold_back(response, now=NOW)
    assert delay is None or timedelta(0) < delay <= timedelta(hours=1)
    if found and found.delay is not None:
        assert timedelta(0) <= found.delay <= timedelta(hours=1)
