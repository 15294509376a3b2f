"""`/connect/{ticket}` and `/connect`: a person connects one instance in a browser.

GET of the ticket shows a button and uses nothing up. Its POST exchanges the ticket, once, for a session in a cookie;
everything after that is at `/connect`. Works without JavaScript, and has none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from integration_service.contracts.definitions import PLACEHOLDER
from integration_service.contracts.errors import Decision, ErrorCode, IntegrationError
from integration_service.contracts.instances import IntegrationInstanceStatus
from integration_service.contracts.oauth_urls import allowed_return_url, with_parameters
from integration_service.contracts.wire import JsonObject
from integration_service.gateway import connect_page, pages
from integration_service.gateway.connect_form import ConnectForm
from integration_service.gateway.connect_session import ConnectSession, fits_session, form_token, read_form
from integration_service.gateway.connections import Connections, TemporalDown, TooLong
from integration_service.gateway.credential_fields import grant_of
from integration_service.gateway.pages import Page
from integration_service.gateway.style import SAFE_HEADERS, page_headers
from integration_service.storage.connect_tickets import ConnectSubject, ConnectTickets
from integration_service.storage.database import Database
from integration_service.storage.seal_keys import current_seal_key
from integration_service.storage.vault.seal import seal

_Status = IntegrationInstanceStatus
_UNCONFIGURED = (_Status.PENDING_CONFIGURATION, _Status.CONFIG_ERROR)
_BY_PERSON = ("authorization_code", "device_code")
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.\[\]:-]+")


class Connect:
    """The endpoints. A secret is sealed here and goes on sealed only."""

    def __init__(
        self, database: Database, connections: Connections, *, public_url: str, return_urls: Sequence[str]
    ) -> None:
        self._database = database
        self._tickets = ConnectTickets(database)
        self._connections = connections
        self._session = ConnectSession(public_url)
        self._return_urls = tuple(return_urls)

    @property
    def routes(self) -> list[Route]:
        return [
            Route("/connect/{ticket}", self.begin, methods=["GET", "POST"]),
            Route("/connect", self.form, methods=["GET", "POST"]),
        ]

    async def begin(self, request: Request) -> Response:
        """The ticket's own address."""
        ticket = request.path_params["ticket"]
        try:
            if request.method != "POST":
                subject = await self._tickets.look(ticket)
                if subject is None:
                    return _page(pages.UNKNOWN_TICKET)
                return _html(connect_page.begin_page(subject, request.url.path), 200, "'self'")
            if not self._session.is_ours(request):
                return _page(pages.FOREIGN_FORM)
            session = await self._tickets.exchange(ticket)
        except IntegrationError:
            return _page(pages.TRY_AGAIN)
        if session is None:
            return _page(pages.UNKNOWN_TICKET)
        response = _see("/connect")
        self._session.write(response, session)
        return response

    async def form(self, request: Request) -> Response:
        """The form, shown or sent."""
        session = self._session.read(request)
        try:
            subject = await self._tickets.in_session(session) if session else None
            if session is None or subject is None:
                return _page(pages.NO_SESSION)
            if request.method != "POST":
                return await self._shown(subject, session)
            if not self._session.is_ours(request):
                return _page(pages.FOREIGN_FORM)
            given = await read_form(request)
            if given is None or not fits_session(given.pop("token", ""), session):
                return _page(pages.UNREADABLE_FORM)
            if not await self._tickets.count_post(session):
                await self._tickets.end(session)
                return _page(pages.TOO_OFTEN)
            return await self._sent(subject, session, given)
        except TooLong:
            return _page(pages.CONNECT_TAKES_LONG)
        except TemporalDown:
            return _page(pages.TRY_AGAIN)
        except IntegrationError as error:
            return _page(pages.TRY_AGAIN if error.decision is Decision.WAIT else pages.failed(error))

    async def _shown(self, subject: ConnectSubject, session: str) -> Response:
        status = await self._connections.status(subject.instance_id)
        if subject.posts and grant_of(subject.definition) == "device_code":
            if "userCode" in status:
                return self._device(subject, status)
            if status.get("status") == _Status.CONNECTED:
                return await self._done(subject, session)
        return self._form(subject, session, ConnectForm.of(subject.definition, status.get("config") or {}))

    async def _sent(self, subject: ConnectSubject, session: str, given: dict[str, str]) -> Response:
        status = await self._connections.status(subject.instance_id)
        before: JsonObject = status.get("config") or {}
        form = ConnectForm.of(subject.definition, before).filled(given)
        if form.errors:
            return self._form(subject, session, form)
        if form.config != before or status.get("status") in _UNCONFIGURED:
            status = await self._configured(subject, form, before, status)
            if status.get("status") in _UNCONFIGURED:
                error = status.get("error") or {}
                marked = form.with_config_error(error.get("details"))
                return self._form(subject, session, marked, None if marked.errors else _told(status))
        if grant_of(subject.definition) in _BY_PERSON:
            return await self._authorize(subject)
        try:
            status = await self._proved(subject, form, status)
        except IntegrationError as error:
            if error.code not in (ErrorCode.VALIDATION_ERROR, ErrorCode.REAUTH_REQUIRED, ErrorCode.AUTH_ERROR):
                raise
            return self._form(subject, session, form, pages.sentence(error.message))
        if status.get("status") == _Status.CONNECTED:
            return await self._done(subject, session)
        refused = form.with_refused_secret() if status.get("status") == _Status.AUTH_ERROR else form
        return self._form(subject, session, refused, None if refused.errors else _told(status))

    async def _configured(
        self, subject: ConnectSubject, form: ConnectForm, before: JsonObject, status: JsonObject
    ) -> JsonObject:
        """The status with the new config. A credential that it would send to another host is erased first: whoever
        gave it gave it to the one before, and who has a link need not be the same person."""
        moves = form.leads_elsewhere(before) and status.get("status") != _Status.DISCONNECTED
        if moves:
            await self._update(subject, "disconnect", {})
        status = await self._update(subject, "configure", {"config": form.config})
        return await self._update(subject, "reconnect", {}) if moves else status

    async def _proved(self, subject: ConnectSubject, form: ConnectForm, status: JsonObject) -> JsonObject:
        """The status after the credential, or after another try where there is none to give."""
        if form.secret is not None:
            key = await current_seal_key(self._database)
            if key is None:
                raise IntegrationError(ErrorCode.UNAVAILABLE, "no worker has made a seal key yet")
            sealed = seal(key, subject.instance_id, form.secret).to_wire()
            return await self._update(subject, "submit_credentials", {"sealed": sealed})
        if status.get("status") == _Status.DISCONNECTED:
            return await self._update(subject, "reconnect", {})
        return status if status.get("status") == _Status.CONNECTED else await self._update(subject, "test", {})

    async def _authorize(self, subject: ConnectSubject) -> Response:
        back = self._back(subject)
        begun = await self._update(subject, "authorize", {} if back is None else {"returnUrl": back})
        url = str(begun["authorizationUrl"])
        if not url.startswith(("https://", "http://")):
            return _page(pages.NO_SAFE_ADDRESS)
        if begun.get("userCode"):
            return self._device(subject, begun)
        if _origin(url) == self._provider(subject):
            return _see(url)
        return _html(connect_page.onward_page(subject, url), 200, "'none'")

    def _device(self, subject: ConnectSubject, begun: JsonObject) -> Response:
        url = str(begun.get("authorizationUrl"))
        if not url.startswith(("https://", "http://")):
            return _page(pages.NO_SAFE_ADDRESS)
        return _html(connect_page.device_page(subject, url, str(begun["userCode"])), 200, "'none'")

    async def _done(self, subject: ConnectSubject, session: str) -> Response:
        await self._tickets.end(session)
        back = self._back(subject)
        told = {"status": "connected", "instanceId": subject.instance_id}
        response = _see(with_parameters(back, told)) if back else _page(pages.CONNECTED_HERE)
        self._session.erase(response)
        return response

    def _form(self, subject: ConnectSubject, session: str, form: ConnectForm, problem: str | None = None) -> Response:
        button = "Continue to the provider" if grant_of(subject.definition) == "authorization_code" else "Connect"
        html = connect_page.form_page(
            subject, form.fields, token=form_token(session), errors=form.errors, problem=problem, button=button
        )
        # Browsers hold a form's redirects to the same list.
        back = self._back(subject)
        origins = {_origin(back) if back else None, self._provider(subject)}
        leads = " ".join(["'self'", *sorted(one for one in origins if one)])
        return _html(html, 422 if form.errors or problem else 200, leads)

    def _back(self, subject: ConnectSubject) -> str | None:
        # The list may have become shorter since the ticket was made.
        url = subject.return_url
        return url if url is not None and allowed_return_url(url, self._return_urls) else None

    def _provider(self, subject: ConnectSubject) -> str | None:
        """The origin of the provider's page, where the definition names it whole."""
        told = subject.definition.oauth2_config
        url = told.authorization_url if told is not None else None
        return _origin(url) if url and not PLACEHOLDER.search(url) else None

    async def _update(self, subject: ConnectSubject, name: str, message: JsonObject) -> JsonObject:
        return await self._connections.update(subject.instance_id, name, message)


def _told(status: JsonObject) -> str:
    why = (status.get("error") or {}).get("message") or "the connection is not in use yet"
    return pages.sentence(str(why))


def _origin(url: str) -> str | None:
    parts = urlsplit(url)
    found = f"{parts.scheme}://{parts.netloc}"
    return found if _ORIGIN.fullmatch(found) else None


def _see(url: str) -> RedirectResponse:
    return RedirectResponse(url, 303, headers=SAFE_HEADERS)


def _page(page: Page) -> HTMLResponse:
    return _html(page.html(), page.status, "'none'")


def _html(html: str, status: int, form_action: str) -> HTMLResponse:
    return HTMLResponse(html, status, headers=page_headers(form_action))
