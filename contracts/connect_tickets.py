"""`POST /v1/connect-tickets`: another service asks for a link with which a person connects an instance."""

from __future__ import annotations

from pydantic import Field

from integration_service.contracts.names import DEFAULT_SCOPE, Scope
from integration_service.contracts.wire import AnswerModel, Timestamp, WireModel

CONNECT_TICKETS_PATH = "/v1/connect-tickets"
MAX_EXPIRES_MS = 900_000


class ConnectTicketWanted(WireModel):
    """`instanceId` is an id or a name; `returnUrl` must match INTEGRATIONS_RETURN_URLS."""

    instance_id: str = Field(min_length=1, max_length=255, pattern=r"^[^\x00]*$")
    scope: Scope = DEFAULT_SCOPE
    return_url: str | None = Field(default=None, max_length=2048)
    expires_ms: int = Field(default=MAX_EXPIRES_MS, ge=1_000, le=MAX_EXPIRES_MS)


class ConnectTicket(AnswerModel):
    """The link, told once. It works for one person, once, until `expiresAt`."""

    url: str = Field(repr=False)
    expires_at: Timestamp
