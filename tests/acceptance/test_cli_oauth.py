"""Authorizing from the command line, as a person or a script does it. A stand-in plays the instance's workflow."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from integration_service.contracts.connections import CompleteAuthorization
from integration_service.contracts.instances import ConnectInstanceInput, IntegrationInstance
from integration_service.contracts.oauth import state_hash
from integration_service.contracts.oauth_urls import is_loopback_redirect
from integration_service.contracts.wire import JsonObject, parse
from integration_service.storage.authorizations import Authorizations
from integration_service.storage.instances import Instances
from integration_service.storage.oauth_clients import OAuthClients
from integration_service.storage.seal_keys import SealKeys
from integration_service.storage.vault.keyring import Keyring
from tests.integration.standin import standing_in
from tests.world import World, definition_file

URL = "https://idp.test/authorize?client_id=x&state=y"


@dataclass
class Terminal:
    """Runs `integrations …` against the stack; `at` is where its variables say that the stack is."""

    data_dir: Path

    @asynccontextmanager
    async def running(
        self, *arguments: str, environment: dict[str, str] | None = None
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        place = () if environment else ("--data-dir", str(self.data_dir))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", "from integration_service.cli.main import main; main()"),
            *(*arguments, *place),
            env={**os.environ, **(environment or {})},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def run(self, *arguments: str, given: str = "", environment: dict[str, str] | None = None) -> Any:
        async with self.running(*arguments, environment=environment) as process:
            return await ended(process, given)


@dataclass
class Ran:
    code: int
    out: str
    err: str


async def ended(process: asyncio.subprocess.Process, given: str = "") -> Ran:
    out, err = await asyncio.wait_for(process.communicate(given.encode()), 60)
    assert process.returncode is not None
    return Ran(process.returncode, out.decode(), err.decode())


@pytest.fixture
def terminal(world: World) -> Terminal:
    return Terminal(Path(world.stack.environment["INTEGRATIONS_KEYRING"]).parent)


@pytest.fixture
async def instance(world: World, name: str) -> IntegrationInstance:
    """A row without its workflow."""
    definition = await world.publish(definition_file(name))
    wanted = ConnectInstanceInput(instance_id=str(uuid.uuid4()), definition=name, name=f"{name} one")
    return await Instances(world.database).add(wanted, definition)


@pytest.fixture
def state(instance: IntegrationInstance) -> str:
    return f"{instance.id}.{secrets.token_urlsafe(32)}"


def begun(state: str, **more: str) -> JsonObject:
    return {
        "authorizationUrl": URL,
        "expiresAt": "2030-01-01T00:00:00.000Z",
        "stateHash": state_hash(state),
        **more,
    }


async def get(url: str, **parameters: str) -> httpx2.Response:
    async with httpx2.AsyncClient(trust_env=False, timeout=60) as http:
        return await http.get(url, params=parameters)


async def test_a_script_gets_the_address_and_is_not_kept(
    world: World, terminal: Terminal, instance: IntegrationInstance, state: str
) -> None:
    async with standing_in(world.temporal, instance, {"begun": begun(state)}) as workflow:
        ran = await terminal.run("instance", "authorize", instance.name, "--return-url", "https://a.test", "--json")
        assert await workflow.seen() == [{"returnUrl": "https://a.test"}]
    assert (ran.code, json.loads(ran.out), ran.err) == (0, begun(state), "")


async def _pending(world: World, keyring: Keyring, instance: IntegrationInstance, state: str) -> Callable[[], Any]:
    """Keep the authorization of `state`; what is returned uses it up, as the workflow's activity does."""
    authorizations = Authorizations(world.database, keyring)
    await authorizations.begin(
        hashed=state_hash(state),
        instance_id=instance.id,
        scope=instance.scope,
        return_url=None,
        secret={},
        lifetime=timedelta(minutes=5),
    )
    return lambda: authorizations.claim(state_hash(state), instance.id, claimant="test")


async def test_a_person_is_waited_for(
    world: World, keyring: Keyring, terminal: Terminal, instance: IntegrationInstance, state: str
) -> None:
    use_up = await _pending(world, keyring, instance, state)
    async with (
        standing_in(world.temporal, instance, {"begun": begun(state)}),
        terminal.running("instance", "authorize", instance.id, "--no-browser") as process,
    ):
        assert process.stdout is not None
        assert (await process.stdout.readline()).decode().strip() == URL
        response = await get(f"{world.stack.ready.gateway}/oauth/callback", state=state, code="c")
        assert response.status_code == 200
        await use_up()
        ran = await ended(process)
    assert (ran.code, ran.out) == (0, "status: CONNECTED\n")
    assert ran.err.startswith("Open this address")


async def test_what_fails_in_the_end_exits_1(
    world: World, keyring: Keyring, terminal: Terminal, instance: IntegrationInstance, state: str
) -> None:
    failed = {"status": "AUTH_ERROR", "error": {"code": "AUTH_ERROR", "message": "refused"}}
    await _pending(world, keyring, instance, state)
    answers = {"begun": begun(state, userCode="WDJB-MJHT"), "status": failed}
    async with (
        standing_in(world.temporal, instance, answers) as workflow,
        terminal.running("instance", "authorize", instance.name, "--json", "--wait", "60") as process,
    ):
        assert process.stderr is not None
        assert json.loads(await process.stderr.readline()) == answers["begun"]
        # The workflow gives it up while its row is still there, as with a device code that was refused.
        await workflow.handle.execute_update("complete_authorization", {})
        ran = await ended(process)
    assert (ran.code, json.loads(ran.out)) == (1, failed)
    assert json.loads(ran.err)["code"] == "AUTH_ERROR"


async def test_nobody_comes(
    world: World, keyring: Keyring, terminal: Terminal, instance: IntegrationInstance, state: str
) -> None:
    await _pending(world, keyring, instance, state)
    async with standing_in(world.temporal, instance, {"begun": begun(state, userCode="WDJB-MJHT")}):
        ran = await terminal.run("instance", "authorize", instance.name, "--wait", "2")
    assert (ran.code, ran.out) == (1, f"{URL}\ncode: WDJB-MJHT\n")
    assert ran.err.splitlines()[-1].startswith("TIMEOUT: ")


@pytest.mark.parametrize("gateway", [True, False], ids=["asked for", "no gateway answers"])
async def test_a_loopback_listener_takes_the_code(
    world: World, keyring: Keyring, terminal: Terminal, instance: IntegrationInstance, state: str, gateway: bool
) -> None:
    elsewhere = {**world.stack.environment, "INTEGRATIONS_PUBLIC_URL": "http://127.0.0.1:1"}
    arguments = ("instance", "authorize", instance.name, *(("--loopback",) if gateway else ()))
    async with (
        standing_in(world.temporal, instance, {"begun": begun(state)}) as workflow,
        terminal.running(*arguments, environment=None if gateway else elsewhere) as process,
    ):
        assert process.stdout is not None
        assert (await process.stdout.readline()).decode().strip() == URL
        (asked,) = await workflow.seen()
        uri = asked["redirectUri"]
        assert is_loopback_redirect(uri)
        assert (await get(uri, state=f"{instance.id}.{'x' * 43}", code="c")).status_code == 400
        assert (await get(uri, state=state, code="planted-code", realmId="9")).status_code == 200
        ran = await ended(process)
        _, message = await workflow.seen()
    assert (ran.code, ran.out) == (0, "status: CONNECTED\n")
    sealed = parse(CompleteAuthorization, message).sealed
    assert sealed is not None
    opened = json.loads(await SealKeys(world.database, keyring).open(sealed, instance.id))
    assert opened == {"code": "planted-code", "callback": {"realmId": "9"}}
    assert "planted" not in json.dumps(message) + ran.out + ran.err


async def test_a_refusal_at_the_loopback_listener_exits_1(
    world: World, terminal: Terminal, instance: IntegrationInstance, state: str
) -> None:
    async with (
        standing_in(world.temporal, instance, {"begun": begun(state)}) as workflow,
        terminal.running("instance", "authorize", instance.name, "--loopback") as process,
    ):
        assert process.stdout is not None
        await process.stdout.readline()
        (asked,) = await workflow.seen()
        response = await get(asked["redirectUri"], state=state, error="access_denied")
        assert response.status_code == 400
        assert "access_denied" in response.text
        ran = await ended(process)
    assert ran.code == 1
    assert ran.err.splitlines()[-1] == "AUTH_ERROR: the provider refused the authorization: access_denied"


@pytest.mark.parametrize("more", [("--return-url", "https://a.test"), ("--wait", "0")])
async def test_loopback_goes_with_neither(terminal: Terminal, more: tuple[str, str]) -> None:
    assert (await terminal.run("instance", "authorize", "x", "--loopback", *more)).code == 2


async def test_what_has_no_token_cannot_be_refreshed(terminal: Terminal, instance: IntegrationInstance) -> None:
    ran = await terminal.run("instance", "refresh", instance.name)
    assert (ran.code, ran.err.split(":")[0]) == (1, "INSTANCE_NOT_CONNECTED")


async def test_a_client_goes_into_the_vault_and_does_not_come_out(
    world: World, keyring: Keyring, terminal: Terminal, instance: IntegrationInstance, tmp_path: Path
) -> None:
    name, clients = instance.definition, OAuthClients(world.database, keyring)
    (tmp_path / "key.pem").write_text("planted-private-key\n")
    arguments = ("definition", "client", "set", name, "--client-id", "planted-id")
    ran = await terminal.run(
        *arguments,
        *("--secret-file", "-", "--private-key-file", str(tmp_path / "key.pem"), "--key-id", "k1", "--json"),
        given="planted-secret\n",
    )
    assert (ran.code, ran.err) == (0, "")
    assert json.loads(ran.out)["set"] == ["clientId", "clientSecret", "keyId", "privateKey"]
    stored = await clients.load(scope="global", definition=name)
    assert stored is not None
    assert stored.to_wire() == {
        "clientId": "planted-id",
        "clientSecret": "planted-secret",
        "privateKey": "planted-private-key",
        "keyId": "k1",
    }
    own = await terminal.run(*arguments[:-1], "planted-own-id", "--instance", instance.name)
    assert own.code == 0
    of_instance = await clients.load(scope="global", definition=name, instance_id=instance.id)
    assert of_instance is not None
    assert of_instance.to_wire() == {"clientId": "planted-own-id"}
    assert await clients.load(scope="global", definition=name) == stored
    assert "planted" not in ran.out + own.out + own.err
    early = await terminal.run("definition", "client", "set", f"{name}-later", "--client-id", "x", "--scope", "acme")
    assert early.code == 0
    assert "no definition" in early.err


async def test_a_client_secret_is_read_once_and_from_a_file(terminal: Terminal, name: str, tmp_path: Path) -> None:
    arguments = ("definition", "client", "set", name, "--client-id", "x")
    missing = await terminal.run(*arguments, "--secret-file", str(tmp_path / "none"))
    assert (missing.code, missing.err.split(":")[0]) == (1, "VALIDATION_ERROR")
    assert (await terminal.run(*arguments, "--secret-file", "-", given="\n")).code == 1
    assert (await terminal.run(*arguments, "--secret-file", "-", "--private-key-file", "-")).code == 2
