"""What every adapter is: values in, values out; it never sends."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from integration_service.activities.outbound.messages import InboundResponse, OutboundRequest
from integration_service.contracts.errors import IntegrationError
from integration_service.contracts.wire import JsonObject


@dataclass(frozen=True)
class Parsed:
    """What a response says. `errors` stand beside partial data (GraphQL).

    `hold_back` is how long the upstream asks callers to wait before the next request, where its body says so.
    """

    data: Any
    errors: list[Any] | None = None
    hold_back: timedelta | None = None


class Adapter(Protocol):
    """One method's protocol side, compiled."""

    @property
    def idempotent(self) -> bool:
        """Whether the protocol says that the request may be sent twice, where the definition says nothing."""

    def build(self, *, params: JsonObject, config: JsonObject, connection: JsonObject) -> OutboundRequest:
        """The request for these params, without its credential.

        Raises IntegrationError VALIDATION_ERROR or CONFIG_ERROR for a value that cannot stand in its place.
        """

    def parse(self, response: InboundResponse) -> Parsed:
        """What a 2xx response says. Raises IntegrationError MALFORMED_RESPONSE, or the protocol's own failure."""

    def refusal(self, response: InboundResponse) -> IntegrationError | None:
        """The protocol's own failure in a response that is not 2xx; None where its status says all."""
