"""A terminal's own redirect URI (RFC 8252 §7.3): a listener on 127.0.0.1 that takes one callback."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Self

from integration_service.contracts.errors import IntegrationError
from integration_service.gateway import pages
from integration_service.gateway.authorization_response import AuthorizationResponse
from integration_service.gateway.pages import PAGE_HEADERS, Page

Finish = Callable[[AuthorizationResponse], Awaitable[Page]]

_PATH = "/callback"
_LIMIT = 65_536
_PATIENCE = 10.0
_NOT_HERE = Page(404, "Not here", "Nothing is at this address.")


class Loopback:
    """``async with Loopback() as listener``: begin at `redirect_uri`, then `take` what comes back.

    What does not carry the expected state is answered with a page and changes nothing: any program of this machine
    can knock here.
    """

    def __init__(self) -> None:
        self._server: asyncio.Server | None = None
        self._expected = ""
        self._finish: Finish | None = None
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def redirect_uri(self) -> str:
        if self._server is None:
            raise RuntimeError("not listening")
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}{_PATH}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=_LIMIT)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()

    async def take(self, expected: str, finish: Finish) -> None:
        """Wait for the callback whose state has the hash `expected`; `finish` ends it and says what to show.

        Raises what `finish` raises, once its page is shown.
        """
        self._expected, self._finish = expected, finish
        await self._done

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        failure: IntegrationError | None = None
        finished = False
        with contextlib.suppress(ConnectionError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _PATIENCE)
            found = self._expected_response(head)
            if isinstance(found, Page):
                page = found
            else:
                page, failure = await self._finished(*found)
                finished = True
            writer.write(_encoded(page))
            await asyncio.wait_for(writer.drain(), _PATIENCE)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        if finished and not self._done.done():
            if failure is None:
                self._done.set_result(None)
            else:
                self._done.set_exception(failure)

    def _expected_response(self, head: bytes) -> tuple[Finish, AuthorizationResponse] | Page:
        """The callback that is waited for, once; or the page for anything else."""
        method, _, rest = head.split(b"\r\n", 1)[0].decode("latin-1").partition(" ")
        path, _, query = rest.partition(" ")[0].partition("?")
        if path != _PATH:
            return _NOT_HERE
        if method != "GET":
            return pages.ONLY_GET
        try:
            response = AuthorizationResponse.read(query)
        except IntegrationError as error:
            return pages.invalid(error)
        if response.state_hash != self._expected or self._finish is None:
            return pages.UNKNOWN_STATE
        finish, self._finish = self._finish, None
        return finish, response

    async def _finished(self, finish: Finish, response: AuthorizationResponse) -> tuple[Page, IntegrationError | None]:
        try:
            return await finish(response), None
        except IntegrationError as error:
            page = pages.refused(response.error) if response.error is not None else pages.failed(error)
            return page, error


def _encoded(page: Page) -> bytes:
    body = page.html().encode()
    headers = {
        **PAGE_HEADERS,
        "Content-Type": "text/html; charset=utf-8",
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    lines = [f"HTTP/1.1 {page.status} {HTTPStatus(page.status).phrase}", *(f"{key}: {headers[key]}" for key in headers)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
