"""`POST /v1/connect-tickets`: links of the connect page, for services that have a token."""

from __future__ import annotations

import json

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from integration_service.contracts.connect_tickets import CONNECT_TICKETS_PATH, ConnectTicketWanted
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.wire import parse
from integration_service.gateway.tokens import SAFE_HEADERS, Tokens, refused
from integration_service.settings import Settings
from integration_service.storage.connect_tickets import ConnectTickets
from integration_service.storage.database import Database

_MAX_BODY = 16 * 1024


class TicketOffice:
    """The endpoint. Whoever has a gateway token may ask for any scope's instance, as in Temporal's namespace."""

    def __init__(self, database: Database, settings: Settings, *, tokens: Tokens) -> None:
        self._tickets = ConnectTickets(database)
        self._settings = settings
        self._tokens = tokens

    @property
    def route(self) -> Route:
        return Route(CONNECT_TICKETS_PATH, self.make, methods=["POST"])

    async def make(self, request: Request) -> Response:
        """``{"instanceId", "scope"?, "returnUrl"?, "expiresMs"?}`` → 201 ``{"url", "expiresAt"}``."""
        refusal = self._tokens.refusal(request, what="connect tickets")
        if refusal is not None:
            return refusal
        body = bytearray()
        try:
            async for part in request.stream():
                body += part
                if len(body) > _MAX_BODY:
                    return refused(413, ErrorCode.VALIDATION_ERROR, "the body is too long")
            given = json.loads(body)
        except (ClientDisconnect, ValueError, RecursionError):
            return refused(400, ErrorCode.VALIDATION_ERROR, "the body is not JSON")
        try:
            made = await self._tickets.make(
                parse(ConnectTicketWanted, given),
                public_url=self._settings.public_url,
                return_urls=self._settings.return_urls,
            )
        except IntegrationError as error:
            if error.code != ErrorCode.INSTANCE_NOT_FOUND:
                raise
            return refused(404, error.code, error.message, path=error.path)
        return JSONResponse(made.to_wire(), 201, headers=SAFE_HEADERS)
