"""How long an upstream asks us to wait, in the forms that providers use.

Sources: RFC 9110 §10.2.3 (`Retry-After`: seconds or HTTP-date); the de-facto `X-RateLimit-*` headers of GitHub,
Twitter, Shopify and others (reset as seconds to go, epoch seconds or epoch milliseconds).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

_RESET_HEADERS = ("x-ratelimit-reset", "x-rate-limit-reset", "ratelimit-reset")
_REMAINING_HEADERS = ("x-ratelimit-remaining", "x-rate-limit-remaining", "ratelimit-remaining")
_LONGEST = timedelta(days=1)
# A reset below a year's seconds is a wait, above it a point in time; above 10^11 that point is in milliseconds.
_EPOCH_FROM, _EPOCH_MS_FROM = 31_536_000, 1e11


def requested_delay(headers: Mapping[str, str], *, now: datetime) -> timedelta | None:
    """The wait that the headers ask for, never negative, at most a day; None when they ask for none.

    Points in time are read against the upstream's own `Date`, so a clock that differs from ours does no harm.
    """
    asked = headers.get("retry-after")
    delay = _retry_after(asked.strip(), headers, now) if asked else None
    if delay is None and headers.get(_first(headers, _REMAINING_HEADERS), "0").strip() in ("0", "0.0"):
        delay = _reset(headers.get(_first(headers, _RESET_HEADERS), ""), headers, now)
    return None if delay is None else min(max(delay, timedelta(0)), _LONGEST)


def _first(headers: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((name for name in names if name in headers), "")


def _retry_after(text: str, headers: Mapping[str, str], now: datetime) -> timedelta | None:
    seconds = _number(text)
    if seconds is not None:
        return _bounded(seconds)
    moment = _date(text)
    return moment - _their_now(headers, now) if moment else None


def _reset(text: str, headers: Mapping[str, str], now: datetime) -> timedelta | None:
    number = _number(text)
    if number is None:
        return None
    if number < _EPOCH_FROM:
        return _bounded(number)
    epoch = number / 1000 if number > _EPOCH_MS_FROM else number
    return _bounded(epoch - _their_now(headers, now).timestamp())


def _bounded(seconds: float) -> timedelta:
    return timedelta(seconds=max(0.0, min(seconds, _LONGEST.total_seconds())))


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _their_now(headers: Mapping[str, str], now: datetime) -> datetime:
    return _date(headers.get("date", "")) or now


def _date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
