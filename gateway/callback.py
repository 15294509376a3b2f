"""`GET /oauth/callback`: a provider sends the person back with a code, and the instance's workflow gets it, sealed."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from integration_service.contracts.errors import Decision, ErrorCode, IntegrationError
from integration_service.contracts.oauth_urls import allowed_return_url, with_parameters
from integration_service.contracts.wire import JsonObject
from integration_service.gateway import pages
from integration_service.gateway.authorization_response import AuthorizationResponse
from integration_service.gateway.connections import Connections, TemporalDown, TooLong
from integration_service.gateway.pages import PAGE_HEADERS, Page
from integration_service.gateway.style import SAFE_HEADERS
from integration_service.storage.authorizations import pending
from integration_service.storage.database import Database
from integration_service.storage.seal_keys import current_seal_key
from integration_service.telemetry.metrics import Metrics

_OUTCOMES = {
    200: "connected",
    302: "connected",
    400: "refused",
    405: "refused",
    503: "unavailable",
    504: "late",
}
"""What the person saw, by the page's status; anything else is a connection that failed."""


class Callback:
    """The endpoint. It spends nothing itself: a state is used up by the workflow's activity only."""

    def __init__(
        self,
        database: Database,
        connections: Connections,
        *,
        return_urls: Sequence[str],
        metrics: Metrics | None = None,
    ) -> None:
        self._database = database
        self._connections = connections
        self._return_urls = tuple(return_urls)
        self._callbacks = (metrics or Metrics()).callbacks

    async def __call__(self, request: Request) -> Response:
        response = await self._respond(request)
        self._callbacks.labels(_OUTCOMES.get(response.status_code, "failed")).inc()
        return response

    async def _respond(self, request: Request) -> Response:
        # A link preview asks by HEAD, and must not use up the state.
        if request.method != "GET":
            return _shown(pages.ONLY_GET, {"Allow": "GET"})
        try:
            return await self._answer(AuthorizationResponse.read(request.scope["query_string"].decode("latin-1")))
        except IntegrationError as error:
            waiting = error.decision is Decision.WAIT
            return _shown(pages.TRY_AGAIN if waiting else pages.invalid(error))

    async def _answer(self, response: AuthorizationResponse) -> Response:
        """Raises IntegrationError for what goes wrong before anything is sent."""
        found = await pending(self._database, response.state_hash)
        if found is None or found.instance_id != response.instance_id:
            return _shown(pages.UNKNOWN_STATE)
        back = found.return_url
        # The list may have become shorter since the authorization began.
        if back is not None and not allowed_return_url(back, self._return_urls):
            back = None
        page = await self._complete(response, await self._message(response))
        if page is pages.CONNECTED and back is not None:
            told = {"status": "connected", "instanceId": response.instance_id}
            return RedirectResponse(with_parameters(back, told), 302, headers=SAFE_HEADERS)
        # Only success redirects by itself; from a failure the person goes back by hand.
        return _shown(page.with_back(back))

    async def _message(self, response: AuthorizationResponse) -> JsonObject:
        key = await current_seal_key(self._database)
        if key is None:
            raise IntegrationError(ErrorCode.UNAVAILABLE, "no worker has made a seal key yet")
        return response.to_message(key)

    async def _complete(self, response: AuthorizationResponse, message: JsonObject) -> Page:
        try:
            status = await self._connections.complete(response.instance_id, message)
        except IntegrationError as error:
            return pages.failed(error)
        except TemporalDown:
            return pages.TRY_AGAIN
        except TooLong:
            return pages.STILL_AT_WORK
        return pages.completed(status) if response.error is None else pages.refused(response.error)


def _shown(page: Page, more: dict[str, str] | None = None) -> HTMLResponse:
    return HTMLResponse(page.html(), page.status, headers={**PAGE_HEADERS, **(more or {})})
