"""The terminal's own listener takes one callback, the expected one, and survives whatever else knocks."""

from __future__ import annotations

import asyncio
import uuid

import httpx2
import pytest

from integration_service.cli.loopback import Loopback
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.oauth import state_hash
from integration_service.contracts.oauth_urls import is_loopback_redirect
from integration_service.gateway import pages
from integration_service.gateway.authorization_response import AuthorizationResponse
from integration_service.gateway.pages import PAGE_HEADERS, Page

STATE = f"{uuid.uuid4()}.{'r' * 43}"
GOOD = f"?state={STATE}&code=c"


class Finish:
    """Remembers what it was asked to finish."""

    def __init__(self, failure: IntegrationError | None = None) -> None:
        self.seen: list[AuthorizationResponse] = []
        self._failure = failure

    async def __call__(self, response: AuthorizationResponse) -> Page:
        self.seen.append(response)
        if self._failure is not None:
            raise self._failure
        return pages.CONNECTED


async def get(uri: str, method: str = "GET") -> httpx2.Response:
    async with httpx2.AsyncClient(trust_env=False, timeout=10) as http:
        return await http.request(method, uri)


async def send(uri: str, raw: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(uri.rsplit(":", 1)[1].split("/")[0]))
    writer.write(raw)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    return answer


async def test_the_expected_callback_is_finished_and_shown() -> None:
    finish = Finish()
    async with Loopback() as listener:
        assert is_loopback_redirect(listener.redirect_uri)
        taking = asyncio.create_task(listener.take(state_hash(STATE), finish))
        await asyncio.sleep(0)
        response = await get(listener.redirect_uri + GOOD)
        await taking
    assert (response.status_code, response.text) == (200, pages.CONNECTED.html())
    assert all(response.headers[key] == value for key, value in PAGE_HEADERS.items())
    assert [one.code for one in finish.seen] == ["c"]


async def test_what_else_knocks_changes_nothing() -> None:
    finish = Finish()
    async with Loopback() as listener:
        uri = listener.redirect_uri
        # Before anything is expected, nothing is taken.
        assert (await get(uri + GOOD)).status_code == 400
        taking = asyncio.create_task(listener.take(state_hash(STATE), finish))
        await asyncio.sleep(0)
        other = f"{uuid.uuid4()}.{'r' * 43}"
        assert (await get(uri.replace("/callback", "/favicon.ico"))).status_code == 404
        assert (await get(f"{uri}/more{GOOD}")).status_code == 404
        assert (await get(f"{uri}?state={other}&code=c")).text == pages.UNKNOWN_STATE.html()
        assert (await get(f"{uri}{GOOD}&code=d")).status_code == 400
        assert (await get(uri)).status_code == 400
        assert (await get(uri + GOOD, "HEAD")).status_code == 405
        assert (await get(uri + GOOD, "POST")).status_code == 405
        for raw in (b"", b"\r\n\r\n", b"GET", b"\x16\x03\x01\xff\xff\r\n\r\n", b"GET /callback " + b"x" * 70_000):
            await send(uri, raw)
        assert finish.seen == []
        assert not taking.done()
        assert (await get(uri + GOOD)).status_code == 200
        await taking


async def test_a_second_callback_while_the_first_is_at_it_is_refused() -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def finish(_: AuthorizationResponse) -> Page:
        entered.set()
        await leave.wait()
        return pages.CONNECTED

    async with Loopback() as listener:
        taking = asyncio.create_task(listener.take(state_hash(STATE), finish))
        await asyncio.sleep(0)
        first = asyncio.create_task(get(listener.redirect_uri + GOOD))
        await entered.wait()
        assert (await get(listener.redirect_uri + GOOD)).text == pages.UNKNOWN_STATE.html()
        leave.set()
        assert (await first).status_code == 200
        await taking


@pytest.mark.parametrize(("code", "status"), [(ErrorCode.VALIDATION_ERROR, 400), (ErrorCode.TIMEOUT, 502)])
async def test_a_failure_is_shown_and_raised(code: ErrorCode, status: int) -> None:
    async with Loopback() as listener:
        taking = asyncio.create_task(listener.take(state_hash(STATE), Finish(IntegrationError(code, "it failed"))))
        await asyncio.sleep(0)
        assert (await get(listener.redirect_uri + GOOD)).status_code == status
        with pytest.raises(IntegrationError, match="it failed"):
            await taking


async def test_nobody_listens_afterwards() -> None:
    async with Loopback() as listener:
        uri = listener.redirect_uri
    with pytest.raises(httpx2.ConnectError):
        await get(uri)
