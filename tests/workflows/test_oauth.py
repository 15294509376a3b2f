"""OAuth against a real provider with rotating refresh tokens: connect, stay connected, lose nothing."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from temporalio.client import WorkflowExecutionStatus

from integration_service.contracts.calls import MethodCall
from integration_service.contracts.credentials import CredentialPayload
from integration_service.contracts.definitions import IntegrationAuthType
from integration_service.contracts.errors import IntegrationError
from integration_service.contracts.instances import ConnectInstanceInput
from integration_service.contracts.names import connection_workflow_id, refresh_workflow_id
from integration_service.contracts.wire import JsonObject
from integration_service.storage.credentials import Credentials
from integration_service.storage.vault.keyring import Keyring
from tests.identity import Identity, identity_provider
from tests.oauth_setting import Setting
from tests.waiting import eventually
from tests.world import World, method

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
async def identity() -> AsyncIterator[Identity]:
    with tempfile.TemporaryDirectory(prefix="integrations-idp-") as folder:
        async with identity_provider(Path(folder) / "idp") as provider:
            yield provider


@pytest.fixture
def setting(world: World, identity: Identity, keyring: Keyring, name: str) -> Setting:
    return Setting(world, identity, keyring, name)


def refreshes(identity: Identity) -> int:
    return len(identity.token_requests(grant_type="refresh_token"))


async def test_a_person_connects_an_instance(setting: Setting, world: World) -> None:
    await setting.publish()
    instance = await setting.instance()
    assert instance["status"] == "PENDING_AUTHENTICATION"
    begun = await world.connection(instance).authorize()
    assert (await world.connection(instance).status())["authorizationUrl"] == begun["authorizationUrl"]
    page = await setting.identity.connect(begun["authorizationUrl"])
    assert page.status_code == 200
    assert "connected" in page.text.lower()
    status = await world.connection(instance).status()
    assert status["status"] == "CONNECTED"
    assert status["grantedScope"] == "openid read write"
    assert "authorizationUrl" not in status
    assert status["expiresAt"]
    assert (await world.call(instance, "whoami")).data == {"user": "ada"}
    running = world.temporal.get_workflow_handle(refresh_workflow_id(instance["id"]))
    assert (await running.describe()).status.name == "RUNNING"
    # It ran before CONNECTED was to be seen: nobody meets a connection that nothing keeps fresh.
    history = await world.temporal.get_workflow_handle(connection_workflow_id(instance["id"])).fetch_history()
    done = [event.activity_task_scheduled_event_attributes.activity_type.name for event in history.events]
    assert [name for name in done if name in ("StartRefresh", "WriteConnection")][-2:] == [
        "StartRefresh",
        "WriteConnection",
    ]


async def test_a_refresh_by_hand_rotates_the_token(setting: Setting, world: World) -> None:
    instance = await setting.connected()
    before = refreshes(setting.identity)
    answer = await world.integrations.refresh(instance["id"])
    assert answer["generation"] == 2
    again = await world.integrations.refresh(instance["id"], seen_generation=1)
    assert again["generation"] == 2
    assert refreshes(setting.identity) == before + 1
    assert (await world.call(instance, "whoami")).status_code == 200


async def test_many_calls_on_a_refused_token_make_one_token_request(
    setting: Setting, world: World, identity: Identity
) -> None:
    """The upstream refuses the first generation: each of the calls meets a 401, and all of them go on."""
    instance, good = await _behind_upstream(setting, world)
    before = refreshes(identity)
    results = await asyncio.gather(*(world.call(instance, "get", {"id": number}) for number in range(60)))
    assert {result.attempts for result in results} == {1}
    assert refreshes(identity) == before + 1
    assert len(good) == 2


async def test_a_post_whose_token_is_refused_waits_for_a_provider_in_trouble(
    setting: Setting, world: World, identity: Identity
) -> None:
    """A 401 had no effect: what must not be sent twice is sent again all the same, once there is a token."""
    instance, _ = await _behind_upstream(setting, world)
    identity.fault("status", status=503, body="<html>")
    result = await world.call(instance, "post", {"id": 1})
    assert (result.status_code, result.attempts) == (200, 1)
    assert [seen.method for seen in world.upstream.seen] == ["POST"] * len(world.upstream.seen)
    assert len(world.upstream.seen) >= 2


async def test_manual_strategy_refreshes_by_hand_only(setting: Setting, world: World, identity: Identity) -> None:
    instance, _ = await _behind_upstream(setting, world, refreshTokenConfig={"strategy": "manual"})
    before = refreshes(identity)
    with pytest.raises(IntegrationError) as caught:
        await world.call(instance, "get", {"id": 1})
    assert caught.value.code == "AUTH_ERROR"
    assert refreshes(identity) == before
    await eventually(lambda: _with_status(world, instance, "AUTH_ERROR"))
    await world.integrations.refresh(instance["id"])
    assert refreshes(identity) == before + 1
    # The new token is proved by itself: nobody has to say that it is good again.
    status = await eventually(lambda: _with_status(world, instance, "CONNECTED"))
    assert "nextRefreshAt" not in status
    assert (await world.call(instance, "get", {"id": 1})).status_code == 200


async def test_a_revoked_connection_waits_for_its_person_and_goes_on(
    setting: Setting, world: World, identity: Identity
) -> None:
    instance = await setting.connected()
    await setting.revoke_elsewhere(instance)
    parked = await world.integrations.start_call(
        MethodCall(instance_id=instance["id"], method="whoami", on_auth_error="wait")
    )
    status = await eventually(lambda: _with_status(world, instance, "AUTH_ERROR"))
    assert status["error"]["code"] == "REAUTH_REQUIRED"
    assert status["error"]["details"] == {"cause": "revoked"}
    with pytest.raises(IntegrationError) as caught:
        await world.call(instance, "whoami")
    assert caught.value.code == "REAUTH_REQUIRED"
    again = await setting.authorized(instance)
    assert again["status"] == "CONNECTED"
    assert (await world.integrations.result_of(parked)).data == {"user": "ada"}


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 500, "body": "<html>oops</html>"},
        {"kind": "status", "status": 429, "headers": {"Retry-After": "1"}, "body": "{}"},
        {"kind": "status", "status": 200, "headers": {"Content-Type": "text/html"}, "body": "<html>login</html>"},
    ],
    ids=["500", "429", "html"],
)
async def test_a_provider_in_trouble_changes_no_status(
    setting: Setting, world: World, identity: Identity, fault: dict[str, Any]
) -> None:
    instance = await setting.connected()
    identity.fault(**fault)
    answer = await world.integrations.refresh(instance["id"])
    assert answer["generation"] == 1
    assert answer["retryAfterMs"] > 0
    assert (await world.connection(instance).status())["status"] == "CONNECTED"
    assert (await world.integrations.refresh(instance["id"]))["generation"] == 2


async def test_a_lost_answer_is_told_from_a_revocation(setting: Setting, world: World, identity: Identity) -> None:
    """Without grace the provider takes the second send for theft; the connection says what happened."""
    instance = await setting.connected()
    identity.fault("lose")
    answer = await world.integrations.refresh(instance["id"])
    assert answer["generation"] == 1
    held_back = await world.integrations.refresh(instance["id"])
    assert held_back["retryAfterMs"] > 10_000  # the lease: nothing is sent while an answer may be on its way

    async def refused() -> IntegrationError | None:
        try:
            await world.integrations.refresh(instance["id"])
        except IntegrationError as error:
            return error
        return None

    error = await eventually(refused, within_s=60)
    assert error.details == {"cause": "outcome_unknown"}
    status = await eventually(lambda: _with_status(world, instance, "AUTH_ERROR"))
    assert status["error"]["details"] == {"cause": "outcome_unknown"}


async def test_what_a_callback_must_not_bring(setting: Setting, world: World, identity: Identity) -> None:
    await setting.publish()
    instance, other = await setting.instance(), await setting.instance()
    begun = await world.connection(instance).authorize()
    back = await identity.authorize(begun["authorizationUrl"])
    url = httpx2.URL(back)
    before = len(identity.token_requests())
    async with httpx2.AsyncClient(trust_env=False) as http:
        params = dict(url.params)
        foreign = f"{other['id']}.{params['state'].split('.')[1]}"
        for changed in (
            {"state": None},
            {"state": foreign},
            {"state": params["state"][:-2] + "xx"},
            {"code": None},
        ):
            query = {key: value for key, value in {**params, **changed}.items() if value is not None}
            answer = await http.get(url.copy_with(params=query))
            assert answer.status_code == 400, changed
        wrong_issuer = await http.get(url.copy_with(params={**params, "iss": "https://evil.example"}))
        assert wrong_issuer.status_code == 400
        assert len(identity.token_requests()) == before
        # The state is used up by then: what came from elsewhere was no honest answer.
        assert (await http.get(url)).status_code == 400
    assert len(identity.token_requests()) == before
    assert (await setting.authorized(instance))["status"] == "CONNECTED"


async def test_a_person_says_no(setting: Setting, world: World, identity: Identity) -> None:
    await setting.publish()
    instance = await setting.instance()
    begun = await world.connection(instance).authorize()
    before = len(identity.token_requests())
    page = await identity.connect(begun["authorizationUrl"], consent=False)
    assert page.status_code == 400
    status = await world.connection(instance).status()
    assert status["status"] == "PENDING_AUTHENTICATION"
    assert status["error"]["details"] == {"error": "access_denied"}
    assert len(identity.token_requests()) == before


async def test_another_account_is_refused_unless_asked_for(setting: Setting, world: World, identity: Identity) -> None:
    instance = await setting.connected()
    connection = world.connection(instance)
    begun = await connection.authorize()
    page = await identity.connect(begun["authorizationUrl"], user=identity.other_user)
    assert page.status_code == 502
    assert "another account" in page.text.lower()
    assert (await world.call(instance, "whoami")).data == {"user": "ada"}
    begun = await connection.authorize({"allowDifferentAccount": True})
    assert (await identity.connect(begun["authorizationUrl"], user=identity.other_user)).status_code == 200
    assert (await world.call(instance, "whoami")).data == {"user": "bob"}


async def test_a_machine_needs_nobody(setting: Setting, world: World, identity: Identity) -> None:
    file = identity.definition(
        setting.name, grantType="client_credentials", authorizationUrl=None, scope="read", issuer=None
    )
    await world.publish({**file, "connectionTest": "whoami"})
    await setting.register(identity.machine)
    instance = await setting.instance()
    assert instance["status"] == "CONNECTED", instance
    assert (await world.call(instance, "whoami")).data == {"user": None}
    assert (await world.integrations.refresh(instance["id"]))["generation"] == 2


async def test_a_password_grant_renews_by_itself(setting: Setting, world: World, identity: Identity) -> None:
    file = identity.definition(setting.name, grantType="password", authorizationUrl=None, issuer=None, scope="read")
    await world.publish({**file, "connectionTest": "whoami"})
    await setting.register(identity.legacy)
    instance = await setting.instance()
    who = {"username": identity.user.username, "password": identity.user.password}
    wrong = await world.submit(instance, {"type": "oauth2", "basicAuth": {**who, "password": "not it"}})
    assert wrong["status"] == "AUTH_ERROR"
    status = await world.submit(instance, {"type": "oauth2", "basicAuth": who})
    assert status["status"] == "CONNECTED", status
    assert (await world.call(instance, "whoami")).data == {"user": "ada"}
    assert (await world.integrations.refresh(instance["id"]))["generation"] == 2


async def test_a_device_shows_a_code(setting: Setting, world: World, identity: Identity) -> None:
    await setting.publish(
        identity.device,
        grantType="device_code",
        tokenEndpointAuthMethod="none",
        authorizationUrl=None,
        issuer=None,
        scope="openid read",
        deviceAuthorizationUrl="{config.url}/o/device-authorization/",
    )
    instance = await setting.instance()
    begun = await world.connection(instance).authorize()
    assert begun["userCode"]
    assert (await world.connection(instance).status())["userCode"] == begun["userCode"]
    await identity.approve_device(begun["authorizationUrl"], begun["userCode"])
    await eventually(lambda: _with_status(world, instance, "CONNECTED"))
    assert (await world.call(instance, "whoami")).data == {"user": "ada"}


async def test_disconnect_revokes_at_the_provider(setting: Setting, world: World, identity: Identity) -> None:
    instance = await setting.connected()
    refresher = world.temporal.get_workflow_handle(refresh_workflow_id(instance["id"]))
    token = (await setting.tokens(instance)).access_token
    assert await _whoami(identity, token) == 200
    status = await world.connection(instance).update("disconnect")
    assert status["status"] == "DISCONNECTED"
    assert "expiresAt" not in status
    await refresher.result()
    assert await _whoami(identity, token) in (401, 403)


async def test_what_was_terminated_is_started_by_whoever_needs_it(setting: Setting, world: World) -> None:
    instance, _ = await _behind_upstream(setting, world)
    refresher = world.temporal.get_workflow_handle(refresh_workflow_id(instance["id"]))
    await refresher.terminate("by an operator")
    assert (await world.call(instance, "get", {"id": 1})).attempts == 1  # it meets a 401
    assert (await refresher.describe()).status is WorkflowExecutionStatus.RUNNING
    await refresher.terminate("by an operator")
    await world.temporal.get_workflow_handle(connection_workflow_id(instance["id"])).terminate("by an operator")
    adopted = ConnectInstanceInput(instance_id=instance["id"], definition=setting.name, name=instance["name"])
    assert (await world.integrations.connect(adopted))["status"] == "CONNECTED"
    assert (await refresher.describe()).status is WorkflowExecutionStatus.RUNNING


async def test_disconnect_and_authorise_again(setting: Setting, world: World) -> None:
    instance = await setting.connected()
    await world.connection(instance).update("disconnect")
    again = await setting.authorized(instance)
    assert again["status"] == "CONNECTED"
    refresher = world.temporal.get_workflow_handle(refresh_workflow_id(instance["id"]))
    assert (await refresher.describe()).status is WorkflowExecutionStatus.RUNNING
    answer = await world.integrations.refresh(instance["id"])
    assert answer["generation"] == 3  # generations never restart


async def test_an_upstream_that_refuses_every_token_causes_no_endless_refreshing(
    setting: Setting, world: World, identity: Identity
) -> None:
    instance, _ = await _behind_upstream(setting, world, tests="get")
    assert instance["status"] == "AUTH_ERROR"  # it refuses the first token that it sees
    world.upstream.handler = _refuses_all
    before = refreshes(identity)
    await world.integrations.refresh(instance["id"])
    sends = len(world.upstream.seen)
    await eventually(lambda: _more_sends(world, sends))  # the new token is proved, and refused
    for _ in range(5):
        await world.connection(instance).update("await_settled")
    assert (await world.connection(instance).status())["status"] == "AUTH_ERROR"
    assert refreshes(identity) == before + 1


async def test_a_machines_first_token_is_asked_for_until_it_comes(
    setting: Setting, world: World, identity: Identity
) -> None:
    file = identity.definition(
        setting.name, grantType="client_credentials", authorizationUrl=None, scope="read", issuer=None
    )
    await world.publish({**file, "connectionTest": "whoami"})
    await setting.register(identity.machine)
    identity.fault("status", status=500, body="<html>")
    instance = await setting.instance()
    assert (instance["status"], instance["error"]["code"]) == ("PENDING_AUTHENTICATION", "UNAVAILABLE")
    await eventually(lambda: _with_status(world, instance, "CONNECTED"))


async def test_a_token_that_the_refresher_was_not_told_of_is_learnt_and_refreshed(
    setting: Setting, world: World, identity: Identity
) -> None:
    """The activity stored it, and its answer to Temporal was lost with its worker."""
    instance, good = await _behind_upstream(setting, world)
    held = await setting.tokens(instance)
    payload = CredentialPayload(type=IntegrationAuthType.OAUTH2, oauth2=held)
    credentials = Credentials(world.database, setting.keyring)
    await credentials.store(instance_id=instance["id"], scope="global", payload=payload, renewable=True)
    before = refreshes(identity)
    assert (await world.call(instance, "get", {"id": 1})).status_code == 200
    assert refreshes(identity) == before + 1
    assert len(good) == 2


async def test_one_refusal_does_not_end_a_token_that_cannot_be_refreshed(
    setting: Setting, world: World, identity: Identity
) -> None:
    """As GitHub gives them: no expiry, no refresh token. The proof decides, not one odd endpoint."""

    async def odd(request: Request) -> Response:
        return JSONResponse({}, 401 if request.url.path == "/odd" else 200)

    world.upstream.handler = odd
    file = identity.definition(setting.name)
    file["configSchema"]["properties"]["api"] = {"type": "string"}
    methods = [method("get", "GET", "/things"), method("odd", "GET", "/odd")]
    await world.publish({**file, "baseUrl": "{config.api}", "connectionTest": "get", "methods": methods})
    await setting.register(identity.app)
    instance = await world.connect(setting.name, config={"url": identity.url, "api": world.upstream.url})
    status = await world.submit(instance, {"type": "oauth2", "oauth2": {"accessToken": "gho-planted"}})
    assert status["status"] == "CONNECTED"
    with pytest.raises(IntegrationError) as caught:
        await world.call(instance, "odd")
    assert caught.value.code == "AUTH_ERROR"
    await world.integrations.refresh(instance["id"])
    for _ in range(3):
        await world.connection(instance).update("await_settled")
    assert (await world.connection(instance).status())["status"] == "CONNECTED"
    assert (await world.call(instance, "get")).status_code == 200


# What tests share


async def _refuses_all(_: Request) -> Response:
    return JSONResponse({}, 401)


async def _more_sends(world: World, before: int) -> bool:
    return len(world.upstream.seen) > before


async def _behind_upstream(
    setting: Setting, world: World, *, tests: str | None = None, **oauth2: Any
) -> tuple[JsonObject, set[str]]:
    """A connection whose upstream refuses the first access token that it ever sees, and takes any other."""
    tokens: list[str] = []

    async def refuses_the_first(request: Request) -> Response:
        token = request.headers.get("authorization", "")
        if token not in tokens:
            tokens.append(token)
        good.add(token)
        return JSONResponse({}, 401 if token == tokens[0] else 200)

    good: set[str] = set()
    world.upstream.handler = refuses_the_first
    file = setting.identity.definition(setting.name, **oauth2)
    config_schema = file["configSchema"]
    config_schema["properties"]["api"] = {"type": "string"}
    await world.publish(
        {
            **{key: value for key, value in file.items() if key != "connectionTest"},
            "baseUrl": "{config.api}",
            "methods": [
                method("get", "GET", "/things" if tests else "/things/{id}"),
                method("post", "POST", "/things"),
            ],
            **({"connectionTest": tests} if tests else {}),
        }
    )
    await setting.register(setting.identity.app)
    instance = await world.connect(setting.name, config={"url": setting.identity.url, "api": world.upstream.url})
    return await setting.authorized(instance, refused=tests is not None), good


async def _with_status(world: World, instance: JsonObject, status: str) -> JsonObject | None:
    found = await world.connection(instance).status()
    return found if found["status"] == status else None


async def _whoami(identity: Identity, token: str) -> int:
    async with httpx2.AsyncClient(trust_env=False) as http:
        answer = await http.get(f"{identity.url}/whoami/", headers={"Authorization": f"Bearer {token}"})
        return answer.status_code
