"""When an access token expires, in the forms that providers say it."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

from integration_service.activities.oauth.answers import at_path
from integration_service.contracts.oauth import TokenResponseMapping

_LONGEST_LIFE_S = timedelta(days=3650).total_seconds()
_EPOCH_MS = 1e11
"""Numbers above this are epoch milliseconds; below, epoch seconds."""
_LAST_YEAR = 9000


def expiry_of(mapping: TokenResponseMapping, body: Any, *, now: datetime) -> datetime | None:
    """The moment, never before `now`; None for a token that is not said to expire.

    A span is read before a point in time, which hangs on the provider's clock; not so where the definition says
    where the point stands.
    """
    span = _after(at_path(body, mapping.expires_in), mapping.expires_in_unit, now)
    point = _moment(at_path(body, mapping.expires_at))
    found = (point or span) if "expires_at" in mapping.model_fields_set else (span or point)
    if found is None and mapping.default_expires_in_ms is not None:
        return now + timedelta(milliseconds=mapping.default_expires_in_ms)
    if found is None or found.year > _LAST_YEAR:
        return None
    return max(found, now)


def seconds(value: Any) -> float | None:
    """A finite number, or the text of one."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _after(value: Any, unit: str, now: datetime) -> datetime | None:
    number = seconds(value)
    if number is None:
        return None
    span = number / 1000 if unit == "ms" else number
    if span > _LONGEST_LIFE_S:
        return _moment(number)  # a point in time under the name of a span
    return now + timedelta(seconds=max(span, 0))


def _moment(value: Any) -> datetime | None:
    """Epoch seconds, epoch milliseconds or RFC 3339."""
    number = seconds(value)
    try:
        if number is not None:
            return datetime.fromtimestamp(max(number, 0) / (1000 if number > _EPOCH_MS else 1), UTC)
        if not isinstance(value, str):
            return None
        moment = datetime.fromisoformat(value.strip().upper())
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        return None
