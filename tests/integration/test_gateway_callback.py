"""`GET /oauth/callback`, with a real database and a real Temporal: what is sent, and what the person sees."""

from __future__ import annotations

import asyncio
import json
import secrets
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlencode

import httpx2
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route
from temporalio.envconfig import ClientConnectConfig

from integration_service.contracts.connections import CompleteAuthorization
from integration_service.contracts.errors import ErrorCode
from integration_service.contracts.instances import ConnectInstanceInput, IntegrationInstance
from integration_service.contracts.oauth import state_hash
from integration_service.contracts.wire import JsonObject, parse
from integration_service.gateway import pages
from integration_service.gateway.app import build_app
from integration_service.gateway.callback import Callback
from integration_service.gateway.connections import Connections
from integration_service.settings import Settings
from integration_service.storage.authorizations import Authorizations, pending
from integration_service.storage.instances import Instances
from integration_service.storage.seal_keys import SealKeys
from integration_service.storage.vault.keyring import Keyring
from tests.integration.standin import StandIn, standing_in
from tests.world import World, definition_file

pytestmark = pytest.mark.slow

RETURN_URL = "https://app.test/done?tenant=1"


@dataclass
class Person:
    """Somebody whose browser comes back to the gateway at `url`."""

    url: str
    world: World
    keyring: Keyring

    async def instance(self) -> IntegrationInstance:
        """A row without its workflow: a stand-in plays that."""
        name = f"t{uuid.uuid4().hex[:12]}"
        definition = await self.world.publish(definition_file(name))
        wanted = ConnectInstanceInput(instance_id=str(uuid.uuid4()), definition=name, name=f"{name} one")
        return await Instances(self.world.database).add(wanted, definition)

    async def state(
        self,
        instance: IntegrationInstance,
        *,
        return_url: str | None = None,
        lifetime: timedelta = timedelta(minutes=10),
    ) -> str:
        """The state of an authorization that was begun for `instance`."""
        state = f"{instance.id}.{secrets.token_urlsafe(32)}"
        await Authorizations(self.world.database, self.keyring).begin(
            hashed=state_hash(state),
            instance_id=instance.id,
            scope=instance.scope,
            return_url=return_url,
            secret={},
            lifetime=lifetime,
        )
        return state

    async def is_pending(self, state: str) -> bool:
        return await pending(self.world.database, state_hash(state)) is not None

    async def comes(self, method: str = "GET", **parameters: str) -> httpx2.Response:
        return await self.asks(f"?{urlencode(parameters)}", method)

    async def asks(self, query: str, method: str = "GET") -> httpx2.Response:
        async with httpx2.AsyncClient(trust_env=False, timeout=90) as http:
            return await http.request(method, f"{self.url}/oauth/callback{query}")

    async def opened(self, instance: IntegrationInstance, message: JsonObject) -> JsonObject:
        """What the workflow's activity would read in the seal."""
        sealed = parse(CompleteAuthorization, message).sealed
        assert sealed is not None
        found: JsonObject = json.loads(await SealKeys(self.world.database, self.keyring).open(sealed, instance.id))
        return found


@asynccontextmanager
async def serving(app: Starlette) -> AsyncIterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None))
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


def settings(world: World) -> Settings:
    return Settings(database_url=world.stack.ready.database, return_urls=("https://app.test",))


@pytest.fixture
async def person(world: World, keyring: Keyring) -> AsyncIterator[Person]:
    reach: ClientConnectConfig = {"target_host": world.stack.ready.temporal, "namespace": world.stack.ready.namespace}
    async with serving(build_app(settings(world), temporal=reach)) as url:
        yield Person(url, world, keyring)


def assert_safe(response: httpx2.Response) -> None:
    headers = response.headers
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    if response.status_code != 302:
        assert headers["content-security-policy"].startswith("default-src 'none'; style-src 'sha256-")
        assert headers["content-type"] == "text/html; charset=utf-8"


async def test_a_code_reaches_the_workflow_sealed(person: Person) -> None:
    instance = await person.instance()
    state = await person.state(instance)
    async with standing_in(person.world.temporal, instance, {}) as workflow:
        response = await person.comes(state=state, code="planted-code", iss="https://idp.test", realmId="planted-realm")
        (message,) = await workflow.seen()
    assert (response.status_code, pages.CONNECTED.html()) == (200, response.text)
    assert_safe(response)
    assert message["stateHash"] == state_hash(state)
    assert "planted" not in json.dumps(message)
    assert state not in json.dumps(message)
    assert await person.opened(instance, message) == {
        "code": "planted-code",
        "iss": "https://idp.test",
        "callback": {"iss": "https://idp.test", "realmId": "planted-realm"},
    }


async def test_the_stacks_own_gateway_does_the_same(person: Person) -> None:
    person.url = person.world.stack.ready.gateway
    instance = await person.instance()
    state = await person.state(instance)
    async with standing_in(person.world.temporal, instance, {}) as workflow:
        assert (await person.comes(state=state, code="c")).status_code == 200
        assert len(await workflow.seen()) == 1


async def test_success_goes_back_to_the_return_url(person: Person) -> None:
    instance = await person.instance()
    state = await person.state(instance, return_url=RETURN_URL)
    async with standing_in(person.world.temporal, instance, {}):
        response = await person.comes(state=state, code="c")
    assert response.status_code == 302
    assert response.headers["location"] == f"{RETURN_URL}&status=connected&instanceId={instance.id}"
    assert_safe(response)


async def test_a_return_url_that_is_no_longer_allowed_gets_nobody(person: Person) -> None:
    instance = await person.instance()
    state = await person.state(instance, return_url="https://former.test/done")
    async with standing_in(person.world.temporal, instance, {}):
        response = await person.comes(state=state, code="c")
    assert (response.status_code, response.text) == (200, pages.CONNECTED.html())


async def test_a_refusal_is_told_and_shown_with_a_way_back(person: Person) -> None:
    instance = await person.instance()
    state = await person.state(instance, return_url=RETURN_URL)
    async with standing_in(person.world.temporal, instance, {}) as workflow:
        response = await person.comes(state=state, error="access_denied", error_description="<b>no</b>")
        (message,) = await workflow.seen()
    assert message == {"stateHash": state_hash(state), "error": {"error": "access_denied"}}
    assert response.status_code == 400
    assert "access_denied" in response.text
    assert "<b>" not in response.text
    assert '<a href="https://app.test/done?tenant=1">Back</a>' in response.text
    assert_safe(response)


@pytest.mark.parametrize(
    ("failure", "status", "shown"),
    [
        ([ErrorCode.VALIDATION_ERROR, "the issuer is <not> the one"], 400, "The issuer is &lt;not&gt; the one."),
        ([ErrorCode.CONNECTION_ERROR, "the token endpoint did not answer"], 502, "CONNECTION_ERROR"),
        ([ErrorCode.UNAVAILABLE, "the database does not answer"], 502, "UNAVAILABLE"),
    ],
)
async def test_what_the_workflow_refuses_is_shown(person: Person, failure: list[str], status: int, shown: str) -> None:
    instance = await person.instance()
    state = await person.state(instance, return_url=RETURN_URL)
    async with standing_in(person.world.temporal, instance, {"failure": failure}):
        response = await person.comes(state=state, code="c")
    assert response.status_code == status
    assert shown in response.text
    assert "Back</a>" in response.text
    assert_safe(response)


async def test_a_connection_that_is_not_in_use_after_all_is_no_success(person: Person) -> None:
    instance = await person.instance()
    state = await person.state(instance, return_url=RETURN_URL)
    answer = {"status": "AUTH_ERROR", "error": {"code": "AUTH_ERROR", "message": "refused with 403"}}
    async with standing_in(person.world.temporal, instance, {"status": answer}):
        response = await person.comes(state=state, code="c")
    assert response.status_code == 502
    assert "AUTH_ERROR" in response.text
    assert "Refused with 403." in response.text


async def test_a_state_that_is_not_pending_sends_nothing(person: Person) -> None:
    instance, other = await person.instance(), await person.instance()
    used = await person.state(instance)
    await Authorizations(person.world.database, person.keyring).claim(state_hash(used), instance.id, claimant="x")
    unknown = f"{instance.id}.{secrets.token_urlsafe(32)}"
    expired = await person.state(other, lifetime=timedelta(seconds=-1))
    async with (
        standing_in(person.world.temporal, instance, {}) as workflow,
        standing_in(person.world.temporal, other, {}) as its,
    ):
        for state in (used, unknown, expired):
            for answer in ({"code": "c"}, {"error": "access_denied"}):
                response = await person.comes(state=state, **answer)
                assert (response.status_code, response.text) == (400, pages.UNKNOWN_STATE.html())
                assert_safe(response)
        assert await workflow.seen() == await its.seen() == []


async def test_an_address_that_cannot_be_right_sends_nothing_and_uses_nothing_up(person: Person) -> None:
    instance = await person.instance()
    state = await person.state(instance)
    async with standing_in(person.world.temporal, instance, {}) as workflow:
        for query in (
            "",
            "?code=c",
            "?state=x&code=c",
            f"?state={state}",
            f"?state={state}&access_token=x",
            f"?state={state}&code=c&code=d",
            f"?state={state}&state={state}&code=c",
            f"?state={state}&code={'c' * 9000}",
            f"?state={state}&code=%ff",
        ):
            response = await person.asks(query)
            assert response.status_code == 400, query[:80]
            assert_safe(response)
        assert await workflow.seen() == []
    assert await person.is_pending(state)


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_only_get_is_served(person: Person, method: str) -> None:
    instance = await person.instance()
    state = await person.state(instance)
    response = await person.comes(method, state=state, code="c")
    assert (response.status_code, response.headers["allow"]) == (405, "GET")
    assert_safe(response)
    assert await person.is_pending(state)


async def test_an_instance_without_its_workflow_is_named(person: Person) -> None:
    response = await person.comes(state=await person.state(await person.instance()), code="c")
    assert response.status_code == 502
    assert "INSTANCE_NOT_FOUND" in response.text


async def test_without_temporal_the_person_may_reload(world: World, keyring: Keyring) -> None:
    async with serving(build_app(settings(world), temporal={"target_host": "127.0.0.1:1"})) as url:
        person = Person(url, world, keyring)
        state = await person.state(await person.instance())
        response = await person.comes(state=state, code="c")
    assert (response.status_code, response.text) == (503, pages.TRY_AGAIN.html())
    assert_safe(response)
    assert await person.is_pending(state)


async def test_without_a_database_too(world: World, keyring: Keyring) -> None:
    lost = Settings(database_url="postgresql://u@127.0.0.1:1/d")
    async with serving(build_app(lost, temporal={"target_host": world.stack.ready.temporal})) as url:
        response = await Person(url, world, keyring).comes(state=f"{uuid.uuid4()}.{'r' * 43}", code="c")
    assert (response.status_code, response.text) == (503, pages.TRY_AGAIN.html())


async def test_a_workflow_that_takes_too_long_is_not_waited_for(world: World, keyring: Keyring) -> None:
    connections = Connections({"target_host": world.stack.ready.temporal}, within=timedelta(seconds=1))
    await connections.open()
    callback = Callback(world.database, connections, return_urls=())

    async def endpoint(request: Request) -> object:
        return await callback(request)

    async with serving(Starlette(routes=[Route("/oauth/callback", endpoint)])) as url:
        person = Person(url, world, keyring)
        instance = await person.instance()
        state = await person.state(instance)
        workflow: StandIn
        async with standing_in(world.temporal, instance, {"hang": True}) as workflow:
            response = await person.comes(state=state, code="c")
            assert len(await workflow.seen()) == 1
    assert (response.status_code, response.text) == (504, pages.STILL_AT_WORK.html())
