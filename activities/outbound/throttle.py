"""Whether an upstream refuses a request for coming too soon, and whether it wants the next one later."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from integration_service.activities.outbound.messages import InboundResponse
from integration_service.activities.outbound.rate_limit_headers import exhausted_for
from integration_service.activities.outbound.retry_after import requested_delay, retry_after
from integration_service.contracts.errors import ErrorCode, http_code


@dataclass(frozen=True)
class Throttle:
    """A refusal that time heals. `delay` is what the upstream asks for, from 0 to an hour, where it does.

    `code` is RATE_LIMITED where the request was turned away for coming too soon, so had no effect; HTTP_503 where the
    upstream is down and says for how long.
    """

    code: str
    delay: timedelta | None


def throttle(response: InboundResponse, *, now: datetime) -> Throttle | None:
    """What kind of throttle a response is, or None.

    A 429 always is one. A 403 is one when it says `Retry-After` or that nothing is left (GitHub's primary and
    secondary limits), a 503 when it says `Retry-After` or the like.
    """
    headers = response.headers
    if response.status == 429:
        return Throttle(ErrorCode.RATE_LIMITED, requested_delay(headers, now=now))
    delay = retry_after(headers, now=now)
    if delay is None:
        delay = exhausted_for(headers, now=now)
    if delay is None or response.status not in (403, 503):
        return None
    return Throttle(ErrorCode.RATE_LIMITED if response.status == 403 else http_code(503), delay)


def hold_back(response: InboundResponse, *, now: datetime) -> timedelta | None:
    """How long no further request should be sent after this response, whatever its status; None for no longer."""
    found = throttle(response, now=now)
    delay = found.delay if found else exhausted_for(response.headers, now=now)
    return delay or None
