"""How long an upstream asks us to wait, in the forms that providers use.

Sources: RFC 9110 §10.2.3 (`Retry-After`); Azure and OpenAI (`Retry-After-Ms`, `X-Ms-Retry-After-Ms`); some gateways
(`X-Retry-After`); the rate-limit headers, see `rate_limit_headers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from integration_service.activities.outbound.rate_limit_headers import exhausted_for, reset_in
from integration_service.activities.outbound.reset_time import bounded, number, time_until

_MILLISECONDS = ("retry-after-ms", "x-ms-retry-after-ms")
_NAMES = ("retry-after", "x-retry-after")


def requested_delay(headers: Mapping[str, str], *, now: datetime) -> timedelta | None:
    """The wait that a refusal's headers ask for, from 0 to an hour; None when they ask for none."""
    asked = retry_after(headers, now=now)
    if asked is None:
        asked = exhausted_for(headers, now=now)
    return reset_in(headers, now=now) if asked is None else asked


def retry_after(headers: Mapping[str, str], *, now: datetime) -> timedelta | None:
    """The wait that is asked for in so many words, from 0 to an hour, or None."""
    for name in _MILLISECONDS:
        milliseconds = number(headers.get(name, ""))
        if milliseconds is not None:
            return bounded(milliseconds / 1000)
    for name in _NAMES:
        wait = time_until(headers[name], headers, now=now) if name in headers else None
        if wait is not None:
            return wait
    return None
