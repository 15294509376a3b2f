"""`integrations instance authorize`: a person grants access, and the command waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import webbrowser

import click
import httpx2

from integration_service.cli.loopback import Loopback
from integration_service.cli.options import scope_option
from integration_service.cli.output import print_object
from integration_service.cli.session import Session, with_session
from integration_service.client import Connection
from integration_service.contracts.answers import Authorization, ConnectionStatus
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.instances import IntegrationInstance, IntegrationInstanceStatus
from integration_service.contracts.wire import JsonObject
from integration_service.gateway import pages
from integration_service.gateway.authorization_response import AuthorizationResponse
from integration_service.gateway.pages import Page
from integration_service.storage.authorizations import pending
from integration_service.storage.database import Database
from integration_service.storage.definitions import Definitions
from integration_service.storage.instances import Instances
from integration_service.storage.seal_keys import current_seal_key

_WAIT_S = 600
_POLL_S = 1.0


@click.command()
@click.argument("reference", metavar="INSTANCE")
@click.option("--return-url", help="Where the browser goes afterwards; INTEGRATIONS_RETURN_URLS must allow it.")
@click.option("--loopback", is_flag=True, help="Receive the callback here, on 127.0.0.1, instead of at the gateway.")
@click.option("--no-browser", is_flag=True, help="Open no browser, only print the address.")
@click.option(
    "--wait",
    type=click.IntRange(min=0),
    help=f"Seconds to wait for the person. Default: {_WAIT_S}, or 0 with --json, which then prints the address only.",
)
@scope_option
@with_session
async def authorize(
    session: Session,
    reference: str,
    *,
    return_url: str | None,
    loopback: bool,
    no_browser: bool,
    wait: int | None,
    scope: str,
) -> None:
    """Begin an authorization, show where to grant access, and wait until it is done.

    stdout has the address, then the instance's status. With --json it is one object: the status after a wait, without
    one what `authorize` answered.
    """
    if loopback and (return_url is not None or wait == 0):
        raise click.UsageError("--loopback goes with neither --return-url nor --wait 0")
    within = wait if wait is not None else 0 if session.as_json and not loopback else _WAIT_S
    async with session.database() as database:
        found = await Instances(database).find(scope, reference)
        connection = (await session.integrations()).connection(found.id)
        waiting = _Waiting(session, database, connection, found.id, browser=not no_browser, within=within)
        if not loopback and within and return_url is None:
            loopback = not await _gateway_answers(session.settings.public_url)
        if loopback and not await _is_device_flow(database, found):
            return await waiting.at_loopback()
        await waiting.at_gateway({} if return_url is None else {"returnUrl": return_url})


class _Waiting:
    """One authorization, from its beginning to what is printed at its end."""

    def __init__(
        self,
        session: Session,
        database: Database,
        connection: Connection,
        instance_id: str,
        *,
        browser: bool,
        within: int,
    ) -> None:
        self._session = session
        self._database = database
        self._connection = connection
        self._instance_id = instance_id
        self._browser = browser
        self._within = within

    async def at_gateway(self, message: JsonObject) -> None:
        """The gateway gets the callback, or the workflow polls for the device's code."""
        begun = await self._connection.authorize(message)
        if not self._within:
            return print_object(begun, as_json=self._session.as_json)
        # Of a connection that is in use the status does not show it.
        shown = "authorizationUrl" in await self._connection.status()
        await self._show(begun)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._within):
                return self._end(await self._done(begun["stateHash"], shown=shown))
        raise _too_late(self._within, f"the address stays good until {begun['expiresAt']}")

    async def at_loopback(self) -> None:
        """We get the callback, and seal what it brings as the gateway does."""
        async with Loopback() as listener:
            begun = await self._connection.authorize({"redirectUri": listener.redirect_uri})
            await self._show(begun)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._within):
                    await listener.take(begun["stateHash"], self._complete)
                    return self._end(await self._connection.status())
        raise _too_late(self._within, "begin again")

    async def _complete(self, response: AuthorizationResponse) -> Page:
        key = await current_seal_key(self._database)
        if key is None:
            raise IntegrationError(ErrorCode.UNAVAILABLE, "no worker has made a seal key yet")
        status = await self._connection.complete_authorization(response.to_message(key))
        if response.error is not None:
            named = pages.shown_error(response.error)
            told = "the provider refused the authorization"
            raise IntegrationError(ErrorCode.AUTH_ERROR, f"{told}: {named}" if named else told)
        return pages.completed(dict(status))

    async def _done(self, state_hash: str, *, shown: bool) -> ConnectionStatus:
        """The status once the authorization is over: its state is used up or expired, or the workflow, which had
        `shown` it, does so no longer (a refused device code)."""
        while await pending(self._database, state_hash) is not None:
            if shown and "authorizationUrl" not in await self._connection.status():
                break
            await asyncio.sleep(_POLL_S)
        # It waits its turn, so what used the state up has also written what came of it.
        return await self._connection.settled()

    async def _show(self, begun: Authorization) -> None:
        url, code = begun["authorizationUrl"], begun.get("userCode")
        if self._session.as_json:
            click.echo(json.dumps(begun, ensure_ascii=False), err=True)
        else:
            click.echo(f"Open this address{' and enter the code' if code else ''} to grant access:", err=True)
            click.echo(url)
            if code:
                click.echo(f"code: {code}")
        if self._browser and sys.stdout.isatty() and url.startswith(("https://", "http://")):
            await asyncio.to_thread(webbrowser.open, url)

    def _end(self, status: ConnectionStatus) -> None:
        print_object(status, as_json=self._session.as_json)
        if not _is_connected(status):
            error = status.get("error")
            raise IntegrationError(
                error["code"] if error else ErrorCode.INSTANCE_NOT_CONNECTED,
                error["message"] if error else "the authorization ended without a connection",
            )


def _is_connected(status: ConnectionStatus) -> bool:
    return status.get("status") == IntegrationInstanceStatus.CONNECTED


def _too_late(seconds: int, advice: str) -> IntegrationError:
    return IntegrationError(ErrorCode.TIMEOUT, f"nobody granted access within {seconds} s; {advice}")


async def _is_device_flow(database: Database, instance: IntegrationInstance) -> bool:
    definition = await Definitions(database).get(instance.integration_definition_id)
    config = definition.oauth2_config
    return config is not None and config.grant == "device_code"


async def _gateway_answers(gateway: str) -> bool:
    """Our own gateway's address, so neither the egress policy nor a proxy has a say."""
    try:
        async with httpx2.AsyncClient(trust_env=False, timeout=3) as http:
            return (await http.get(f"{gateway.rstrip('/')}/healthz")).is_success
    except httpx2.HTTPError:
        return False
