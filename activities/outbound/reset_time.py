"""How far away a point in time is that an upstream names, in every spelling that providers use.

Sources: RFC 9110 §5.6.7 and §10.2.3 (HTTP-date, seconds to go); RFC 3339; GitHub, Zendesk and others (epoch seconds),
Atlassian and others (epoch milliseconds); OpenAI and others (`6m0s`, `120ms`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

LONGEST = timedelta(hours=1)
"""No wait that an upstream asks for is honoured for longer: after it, one call asks again."""
# Nobody asks for a wait of thirty years: from 10^9 on a number is a point in time, above 10^11 in milliseconds.
_EPOCH_FROM, _EPOCH_MS_FROM = 1e9, 1e11
_NUMBER = re.compile(r"[+-]?[0-9]{1,40}(?:\.[0-9]{0,40})?(?:[eE][+-]?[0-9]{1,3})?")
_PERIOD = re.compile(r"(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m(?!s))?(?:([0-9]{1,9}(?:\.[0-9]{1,9})?)s)?(?:([0-9]{1,9})ms)?")


def time_until(text: str, headers: Mapping[str, str], *, now: datetime) -> timedelta | None:
    """How long it is until the named time, from 0 to an hour; None for what is no time.

    Points in time are read against the upstream's own `Date`, so a clock that differs from ours does no harm.
    """
    text = text.strip()
    seconds = number(text)
    if seconds is not None:
        if seconds < _EPOCH_FROM:
            return bounded(seconds)
        return bounded((seconds / 1000 if seconds > _EPOCH_MS_FROM else seconds) - _their_now(headers, now).timestamp())
    period = _period(text)
    if period is not None:
        return bounded(period)
    moment = _moment(text)
    return None if moment is None else bounded((moment - _their_now(headers, now)).total_seconds())


def number(text: str) -> float | None:
    """A finite decimal number, or None."""
    text = text.strip()
    if not _NUMBER.fullmatch(text):
        return None
    value = float(text)
    return value if math.isfinite(value) else None


def bounded(seconds: float) -> timedelta:
    """So many seconds, none below 0 and none above `LONGEST`."""
    return timedelta(seconds=max(0.0, min(seconds, LONGEST.total_seconds())))


def _period(text: str) -> float | None:
    found = _PERIOD.fullmatch(text)
    if not text or found is None:
        return None
    hours, minutes, seconds, milliseconds = (float(part or 0) for part in found.groups())
    return hours * 3600 + minutes * 60 + seconds + milliseconds / 1000


def _their_now(headers: Mapping[str, str], now: datetime) -> datetime:
    return _moment(headers.get("date", "")) or now


def _moment(text: str) -> datetime | None:
    for read in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            moment = read(text)
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, TypeError, IndexError, OverflowError):
            continue
    return None
