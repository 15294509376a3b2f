"""One request of an attempt: a token that is good, a place in the limits, the intent, the send, the hints that came back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from integration_service.activities.execution.attempt import FOR_THE_REST, Attempt
from integration_service.activities.execution.expiry import has_expired, is_refused_as_expired
from integration_service.activities.execution.target import Progress, Target, require_connected
from integration_service.activities.outbound.breaker import Breakers
from integration_service.activities.outbound.limits import RateLimiter, Waiting
from integration_service.activities.outbound.messages import InboundResponse, OutboundRequest
from integration_service.activities.outbound.transport import SendFailed, Transport
from integration_service.activities.renewal import TokenRenewal
from integration_service.contracts.credentials import IntegrationCredential
from integration_service.contracts.definitions import IntegrationAuthType
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.storage.audit import AuditLog
from integration_service.storage.credentials import Credentials

Build = Callable[[Target, IntegrationCredential | None], OutboundRequest]
"""The request, its credential on it."""


@dataclass(frozen=True)
class Sent:
    """A request, what came back, and the credential that was on it."""

    request: OutboundRequest
    response: InboundResponse
    credential: IntegrationCredential | None


class Sender:
    """Sends what an attempt builds. Holds what that needs; keeps nothing of it."""

    def __init__(
        self,
        *,
        credentials: Credentials,
        audit: AuditLog,
        transport: Transport,
        limiter: RateLimiter,
        breakers: Breakers,
        renewal: TokenRenewal,
        waiting: Waiting,
    ) -> None:
        self._credentials = credentials
        self._audit = audit
        self._transport = transport
        self._limiter = limiter
        self._breakers = breakers
        self._renewal = renewal
        self._waiting = waiting
