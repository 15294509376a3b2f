"""`ConnectInstance`: the statuses of the data model, and what moves between them."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from integration_service.contracts.errors import IntegrationError
from integration_service.contracts.instances import ConnectInstanceInput
from integration_service.contracts.names import connection_workflow_id
from integration_service.contracts.wire import JsonObject
from tests.upstream import json_answer
from tests.world import World, definition_file, method

BASIC = {"type": "basic", "basicAuth": {"username": "ada", "password": "planted-pass-1"}}
HEADER_KEY = {"type": "api_key", "apiKey": {"key": "planted-key-1", "headerOrParam": "X-Key", "inHeader": True}}
QUERY_KEY = {"type": "api_key", "apiKey": {"key": "planted/key+2", "headerOrParam": "key", "inHeader": False}}


def _file(name: str, auth: str, **changes: Any) -> JsonObject:
    return definition_file(
        name,
        authType=auth,
        connectionTest="whoami",
        methods=[method("whoami", "GET", "/me"), method("get", "GET", "/things/{id}")],
        **changes,
    )


def _only(header: str, value: str) -> Any:
    async def handler(request: Request) -> Response:
        return JSONResponse({"ok": True}, 200 if request.headers.get(header) == value else 401)

    return handler


async def test_none_goes_on_to_connected(world: World, name: str) -> None:
    status = await world.instance(definition_file(name))
    assert status["status"] == "CONNECTED"
    assert status["lastConnectedAt"].endswith("Z")
    assert await world.connection(status).status() == status


async def test_missing_config_then_configured_then_connected(world: World, name: str) -> None:
    await world.publish(definition_file(name))
    pending = await world.connect(name, config={})
    assert (pending["status"], pending.get("error")) == ("PENDING_CONFIGURATION", None)
    connected = await world.connection(pending).configure({"url": world.upstream.url})
    assert connected["status"] == "CONNECTED"
    assert connected["config"] == {"url": world.upstream.url}


async def test_invalid_config_is_config_error_with_the_path_and_calls_say_so(world: World, name: str) -> None:
    await world.publish(definition_file(name))
    broken = await world.connect(name, config={"url": 5})
    assert broken["status"] == "CONFIG_ERROR"
    assert broken["error"]["details"]["errors"] == [{"path": "config.url", "rule": "type"}]
    with pytest.raises(IntegrationError) as caught:
        await world.call(broken, "get", {"id": 1})
    assert caught.value.code == "CONFIG_ERROR"


@pytest.mark.parametrize(
    ("auth", "credential", "header", "value"),
    [
        ("basic", BASIC, "authorization", "Basic YWRhOnBsYW50ZWQtcGFzcy0x"),
        ("api_key", HEADER_KEY, "x-key", "planted-key-1"),
    ],
)
async def test_a_credential_is_proved_and_used(
    world: World, name: str, auth: str, credential: JsonObject, header: str, value: str
) -> None:
    world.upstream.handler = _only(header, value)
    pending = await world.instance(_file(name, auth))
    assert pending["status"] == "PENDING_AUTHENTICATION"
    connected = await world.submit(pending, credential)
    assert connected["status"] == "CONNECTED"
    await world.call(connected, "get", {"id": 1})
    assert [seen.headers[header] for seen in world.upstream.seen] == [value, value]


async def test_an_api_key_goes_into_the_query_as_the_credential_says(world: World, name: str) -> None:
    connected = await world.submit(await world.instance(_file(name, "api_key")), QUERY_KEY)
    await world.call(connected, "get", {"id": 1, "a": "b"})
    assert world.upstream.seen[-1].query == "a=b&key=planted%2Fkey%2B2"


async def test_a_wrong_secret_is_auth_error_and_a_right_one_mends_it(world: World, name: str) -> None:
    world.upstream.handler = _only("x-key", "planted-key-1")
    pending = await world.instance(_file(name, "api_key"))
    wrong = {"type": "api_key", "apiKey": {**HEADER_KEY["apiKey"], "key": "no"}}
    refused = await world.submit(pending, wrong)
    assert refused["status"] == "AUTH_ERROR"
    assert refused["error"]["code"] == "AUTH_ERROR"
    with pytest.raises(IntegrationError) as caught:
        await world.call(refused, "get", {"id": 1})
    assert caught.value.code == "REAUTH_REQUIRED"
    mended = await world.submit(refused, HEADER_KEY)
    assert (mended["status"], mended.get("error")) == ("CONNECTED", None)


async def test_an_upstream_that_is_down_keeps_the_status_and_sets_the_error(world: World, name: str) -> None:
    world.upstream.answers = [json_answer({}, 500)]
    pending = await world.instance(_file(name, "api_key"))
    kept = await world.submit(pending, HEADER_KEY)
    assert (kept["status"], kept["error"]["code"]) == ("PENDING_AUTHENTICATION", "HTTP_500")
    world.upstream.answers = [json_answer({})]
    assert (await world.connection(kept).update("test"))["status"] == "CONNECTED"


async def test_a_call_that_is_refused_makes_the_owner_look_again(world: World, name: str) -> None:
    world.upstream.handler = _only("x-key", "planted-key-1")
    connected = await world.submit(await world.instance(_file(name, "api_key")), HEADER_KEY)
    world.upstream.handler = _only("x-key", "rotated by the provider")
    with pytest.raises(IntegrationError) as caught:
        await world.call(connected, "get", {"id": 1})
    assert caught.value.code == "AUTH_ERROR"

    # `await_settled` queues behind what the signal started.
    async def status() -> str:
        return str((await world.connection(connected).update("await_settled"))["status"])

    for _ in range(50):
        if await status() == "AUTH_ERROR":
            break
    assert await status() == "AUTH_ERROR"


@pytest.mark.parametrize(
    "secret",
    [
        {"type": "basic", "basicAuth": {"username": "a", "password": "b"}},
        {"type": "api_key", "apiKey": {"key": "k"}},
        {"type": "api_key", "basicAuth": {"username": "a", "password": "b"}},
        ["planted"],
    ],
)
async def test_a_secret_of_the_wrong_shape_fails_the_update_and_loses_nothing(
    world: World, name: str, secret: Any
) -> None:
    connected = await world.submit(await world.instance(_file(name, "api_key")), HEADER_KEY)
    with pytest.raises(IntegrationError) as caught:
        await world.submit(connected, secret)
    assert caught.value.code == "VALIDATION_ERROR"
    assert (await world.connection(connected).status())["status"] == "CONNECTED"


async def test_a_seal_for_another_instance_does_not_open(world: World, name: str) -> None:
    one = await world.instance(_file(name, "api_key"))
    other = await world.connect(name)
    sealed = await world.sealed(one["id"], HEADER_KEY)
    with pytest.raises(IntegrationError, match="does not open") as caught:
        await world.connection(other).submit_credentials(sealed)
    assert caught.value.code == "VALIDATION_ERROR"


async def test_disconnect_erases_the_credential_and_reconnect_asks_for_one(world: World, name: str) -> None:
    connected = await world.submit(await world.instance(_file(name, "api_key")), HEADER_KEY)
    gone = await world.connection(connected).update("disconnect")
    assert gone["status"] == "DISCONNECTED"
    rows = await world.database.all(
        "SELECT id FROM vault.credentials WHERE instance_id = %(id)s", {"id": connected["id"]}
    )
    assert rows == []
    with pytest.raises(IntegrationError) as caught:
        await world.call(connected, "get", {"id": 1})
    assert caught.value.code == "INSTANCE_NOT_CONNECTED"
    assert (await world.connection(connected).update("reconnect"))["status"] == "PENDING_AUTHENTICATION"


async def test_delete_frees_the_name_ends_the_workflow_and_keeps_the_log(world: World, name: str) -> None:
    await world.publish(definition_file(name))
    first = await world.connect(name, name="the one")
    await world.call(first, "get", {"id": 1})
    await world.connection(first).update("delete")
    handle = world.temporal.get_workflow_handle(connection_workflow_id(first["id"]))
    await handle.result()
    assert len(await world.audit(first)) == 1
    second = await world.connect(name, name="the one")
    await world.connection(second).update("delete")


async def test_upgrade_pins_another_version_and_keeps_the_credential(world: World, name: str) -> None:
    connected = await world.submit(await world.instance(_file(name, "api_key")), HEADER_KEY)
    await world.publish(_file(name, "api_key", version="1.1.0"))
    upgraded = await world.connection(connected).update("upgrade", {"version": "1.1.0"})
    assert (upgraded["status"], upgraded["definitionVersion"]) == ("CONNECTED", "1.1.0")
    assert (await world.call(connected, "get", {"id": 1})).definition_version == "1.1.0"


async def test_a_failed_upgrade_changes_nothing(world: World, name: str) -> None:
    connected = await world.instance(definition_file(name))
    with pytest.raises(IntegrationError) as caught:
        await world.connection(connected).update("upgrade", {"version": "9.0.0"})
    assert caught.value.code == "DEFINITION_NOT_FOUND"
    assert await world.connection(connected).status() == connected


async def test_a_terminated_owner_is_started_again_and_adopts_the_row(world: World, name: str) -> None:
    connected = await world.submit(await world.instance(_file(name, "api_key")), HEADER_KEY)
    await world.temporal.get_workflow_handle(connection_workflow_id(connected["id"])).terminate()
    again = ConnectInstanceInput(instance_id=connected["id"], definition=name, name=connected["name"])
    adopted = await world.integrations.connect(again)
    assert (adopted["status"], adopted["version"]) == ("CONNECTED", connected["version"])
    await world.call(connected, "get", {"id": 1})


async def test_a_write_from_outside_is_caught_and_the_owner_goes_on(world: World, name: str) -> None:
    connected = await world.instance(definition_file(name))
    await world.database.one(
        "UPDATE integrations.instances SET version = version + 5 WHERE id = %(id)s", {"id": connected["id"]}
    )
    gone = await world.connection(connected).update("disconnect")
    assert (gone["status"], gone["version"]) == ("DISCONNECTED", connected["version"] + 6)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"definition": "no-such-definition"}, "DEFINITION_NOT_FOUND"),
        ({"version": "9.9.9"}, "DEFINITION_NOT_FOUND"),
        ({"name": "taken"}, "VALIDATION_ERROR"),
    ],
)
async def test_what_cannot_be_connected_fails_the_workflow(
    world: World, name: str, change: JsonObject, code: str
) -> None:
    await world.publish(definition_file(name))
    holder = await world.connect(name, name="taken", scope=name)
    wanted = {"definition": name, "name": "free", "scope": name, "instance_id": str(uuid.uuid4()), **change}
    with pytest.raises(IntegrationError) as caught:
        await world.integrations.connect(ConnectInstanceInput(**wanted))
    assert caught.value.code == code
    await world.connection(holder).update("delete")


async def test_under_any_other_id_it_fails_at_once_and_says_why(world: World, name: str) -> None:
    from temporalio.client import WorkflowFailureError

    from integration_service.contracts.errors import from_failure

    await world.publish(definition_file(name))
    asked = {"instanceId": str(uuid.uuid4()), "definition": name, "name": "x"}
    with pytest.raises(WorkflowFailureError) as caught:
        await world.temporal.execute_workflow("ConnectInstance", asked, id=str(uuid.uuid4()), task_queue="integrations")
    error = from_failure(caught.value.cause)
    assert error is not None
    assert f"connection:{asked['instanceId']}" in error.message


async def test_drafts_are_not_connected(world: World, name: str) -> None:
    from integration_service.contracts.definitions import DefinitionFile
    from integration_service.contracts.wire import parse
    from integration_service.storage.definitions import Definitions

    await Definitions(world.database).apply(parse(DefinitionFile, definition_file(name)))
    with pytest.raises(IntegrationError) as caught:
        await world.connect(name)
    assert caught.value.code == "DEFINITION_NOT_PUBLISHED"
