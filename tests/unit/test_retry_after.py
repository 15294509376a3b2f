"""How long an upstream asks us to wait."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from integration_service.activities.outbound.retry_after import requested_delay

NOW = datetime(2026, 6, 1, 12, 0, 0, tzinfo=UTC)
THEIRS = NOW + timedelta(hours=3)
EPOCH = int(NOW.timestamp())


def http(moment: datetime) -> str:
    return format_datetime(moment, usegmt=True)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after": " 7 "}, 7),
        ({"retry-after": "0"}, 0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "-5"}, 0),
        ({"retry-after": "99999999"}, 3600),
        ({"retry-after": str(EPOCH + 45)}, 45),
        ({"retry-after": "2026-06-01T12:00:20Z"}, 20),
        ({"x-retry-after": "9"}, 9),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"x-ms-retry-after-ms": "1500"}, 1.5),
        ({"retry-after": http(NOW + timedelta(seconds=90))}, 90),
        ({"retry-after": http(NOW - timedelta(seconds=90))}, 0),
        ({"retry-after": http(THEIRS + timedelta(seconds=30)), "date": http(THEIRS)}, 30),
        ({"x-ratelimit-reset": "12", "x-ratelimit-remaining": "0"}, 12),
        ({"ratelimit-reset": "12"}, 12),
        ({"x-rate-limit-reset": str(EPOCH + 60), "x-rate-limit-remaining": "0"}, 60),
        ({"x-ratelimit-reset": str((EPOCH + 60) * 1000)}, 60),
        ({"x-ratelimit-reset": str(EPOCH + 3 * 3600 + 20), "date": http(THEIRS)}, 20),
        ({"x-ratelimit-reset": str(EPOCH - 60)}, 0),
        ({"x-ratelimit-reset": "-3"}, 0),
        ({"x-ratelimit-reset": http(NOW + timedelta(seconds=33))}, 33),
        ({"x-ratelimit-reset": "2026-06-01T14:00:35+02:00"}, 35),
        ({"x-ratelimit-reset": "6m0s"}, 360),
        ({"x-ratelimit-reset": "120ms"}, 0.12),
        ({"x-ratelimit-reset": "1h2m3.5s"}, 3600),
        ({"x-ratelimit-reset-after": "0.5", "x-ratelimit-remaining": "0"}, 0.5),
        ({"retry-after": "nonsense", "x-ratelimit-reset": "4"}, 4),
        ({"retry-after": "2", "x-ratelimit-reset": "40"}, 2),
    ],
)
def test_every_spelling_of_a_wait_is_understood(headers: dict[str, str], seconds: float) -> None:
    assert requested_delay(headers, now=NOW) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"retry-after": ""},
        {"retry-after": "soon"},
        {"retry-after": "NaN"},
        {"retry-after": "inf"},
        {"x-ratelimit-reset": "nan"},
        {"x-ratelimit-reset": "later"},
        {"x-ratelimit-reset": "30", "x-ratelimit-remaining": "12"},
        {"x-ratelimit-remaining": "0"},
    ],
)
def test_what_asks_for_no_wait_gives_none(headers: dict[str, str]) -> None:
    assert requested_delay(headers, now=NOW) is None


NUMBERS = st.floats().map(str) | st.integers(-(10**40), 10**40).map(str)
DATES = st.datetimes().map(lambda moment: http(moment.replace(tzinfo=UTC))) | st.from_regex(
    r"Mon, [0-9]{1,2} Jan [0-9]{1,6} [0-9]{2}:[0-9]{2}:[0-9]{2} [+-]?[0-9A-Z]{1,25}", fullmatch=True
)
VALUES = (
    NUMBERS | DATES | st.text(max_size=30) | st.from_regex(r"[0-9]{1,4}(h|m|s|ms|)[0-9]{0,4}(s|ms|)", fullmatch=True)
)
NAMES = ["retry-after", "date", "x-ratelimit-reset", "x-ratelimit-remaining", "ratelimit-reset", "x-rate-limit-reset"]


@given(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=4))
@example({"retry-after": "-1e308"})
@example({"x-ratelimit-reset": "-1e300"})
@example({"retry-after": "Mon, 01 Jan 2024 00:00:00 +99999999999999999999"})
@example({"x-ratelimit-reset": "9999-12-31T23:59:59-23:59"})
@example({"x-ratelimit-reset": "999999999h999999999m"})
@example({"retry-after": "Mon, 01 Jan 9999 00:00:00 -2359", "date": "Mon, 01 Jan 0001 00:00:00 +2359"})
@settings(max_examples=300)
def test_whatever_an_upstream_sends_the_wait_is_none_or_within_an_hour(headers: dict[str, str]) -> None:
    delay = requested_delay(headers, now=NOW)
    assert delay is None or timedelta(0) <= delay <= timedelta(hours=1)
