"""What other services rely on: names and shapes of the wire, by Temporal's own client with nothing of ours in it."""

from __future__ import annotations

import base64
import uuid
from typing import Any

import httpx2
import pytest
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle

from integration_service.contracts.errors import IntegrationError, from_failure
from integration_service.contracts.wire import JsonObject
from tests.world import World, definition_file, method

KEY = {"type": "api_key", "apiKey": {"key": "planted-key-1", "headerOrParam": "X-Key", "inHeader": True}}


@pytest.fixture
async def plain(world: World) -> Client:
    return await Client.connect(world.stack.ready.temporal)


async def start_call(plain: Client, **call: Any) -> WorkflowHandle[Any, Any]:
    return await plain.start_workflow(
        "ExecuteMethod", call, id=f"promise-{uuid.uuid4()}", task_queue="integrations", result_type=dict
    )


async def failure(handle: WorkflowHandle[Any, Any]) -> IntegrationError:
    with pytest.raises(WorkflowFailureError) as caught:
        await handle.result()
    error = from_failure(caught.value.cause)
    assert error is not None
    return error


async def attributes(handle: WorkflowHandle[Any, Any]) -> JsonObject:
    found = (await handle.describe()).search_attributes
    return {name: list(values) for name, values in found.items() if name.startswith("Integration")}


async def test_the_gateway_tells_the_seal_key(world: World) -> None:
    async with httpx2.AsyncClient(trust_env=False) as http:
        answer = await http.get(f"{world.stack.ready.gateway}/v1/seal-key")
    key = answer.json()
    assert set(key) == {"keyId", "publicKey", "suite"}
    assert len(base64.b64decode(key["publicKey"], validate=True)) == 32
    assert key["suite"] == "HPKE-X25519-HKDF-SHA256-AES-256-GCM"


async def test_a_connection_is_started_configured_and_found_by_name(world: World, plain: Client, name: str) -> None:
    await world.publish(definition_file(name))
    id_ = str(uuid.uuid4())
    wanted = {"instanceId": id_, "definition": name, "name": f"of {name}"}
    connection: WorkflowHandle[Any, Any] = await plain.start_workflow(
        "ConnectInstance", wanted, id=f"connection:{id_}", task_queue="integrations", result_type=dict
    )
    # Right after the start: it waits until there is an instance.
    waits = await connection.execute_update("test", {}, result_type=dict)
    assert (waits["status"], waits.get("error")) == ("PENDING_CONFIGURATION", None)
    config = {"url": world.upstream.url}
    status = await connection.execute_update("configure", {"config": config}, result_type=dict)
    assert {key: status[key] for key in ("id", "name", "config", "status", "authType", "definitionVersion")} == {
        "id": id_, "name": f"of {name}", "config": config, "status": "CONNECTED", "authType": "none",
        "definitionVersion": "1.0.0",
    }  # fmt: skip
    assert await connection.query("status", result_type=dict) == status
    assert await attributes(connection) == {
        "IntegrationDefinition": [name],
        "IntegrationInstance": [id_],
        "IntegrationStatus": ["CONNECTED"],
    }


async def test_a_call_by_the_instances_name_is_found_and_logged(world: World, plain: Client, name: str) -> None:
    instance = await world.instance(definition_file(name))
    call = await start_call(
        plain, instanceId=instance["name"], method="get", params={"id": 7}, correlationId="order A-17"
    )
    result = await call.result()
    assert isinstance(result["durationMs"], int)
    assert {key: value for key, value in result.items() if key != "durationMs"} == {
        "data": {"ok": True}, "statusCode": 200, "cached": False, "attempts": 1, "definition": name,
        "definitionVersion": "1.0.0",
    }  # fmt: skip
    assert await attributes(call) == {
        "IntegrationDefinition": [name],
        "IntegrationInstance": [instance["id"]],
        "IntegrationMethod": ["get"],
    }
    [row] = await world.audit(instance)
    assert (row["correlation_id"], row["workflow_id"], row["method"]) == ("order A-17", call.id, "get")


async def test_what_is_not_there_says_so(world: World, plain: Client, name: str) -> None:
    instance = await world.instance(definition_file(name))
    no_method = await failure(await start_call(plain, instanceId=instance["id"], method="nobody"))
    assert (no_method.code, no_method.path) == ("METHOD_NOT_FOUND", "method")
    elsewhere = await failure(await start_call(plain, instanceId=instance["id"], method="get", scope=name))
    assert elsewhere.code == "INSTANCE_NOT_FOUND"


async def test_a_scopes_own_definition_comes_before_the_global_one(world: World, plain: Client, name: str) -> None:
    await world.publish(definition_file(name))
    await world.publish(definition_file(name, scope=name, version="0.9.0"))
    own = await world.connect(name, scope=name)
    assert (own["scope"], own["definitionVersion"]) == (name, "0.9.0")
    call = await start_call(plain, instanceId=own["name"], method="get", params={"id": 1}, scope=name)
    assert (await call.result())["definitionVersion"] == "0.9.0"
    assert (await world.connect(name))["definitionVersion"] == "1.0.0"


async def test_a_deprecated_version_serves_whom_it_has_and_nobody_new(world: World, name: str) -> None:
    instance = await world.instance(definition_file(name))
    await world.move(name, "DEPRECATED")
    assert (await world.call(instance, "get", {"id": 1})).status_code == 200
    with pytest.raises(IntegrationError) as caught:
        await world.connect(name)
    assert caught.value.code == "DEFINITION_NOT_PUBLISHED"


async def test_config_lies_upon_the_definitions_default_object_by_object(world: World, name: str) -> None:
    """The row keeps what was given; templates see both."""
    default = {"url": world.upstream.url, "paths": {"a": "one", "b": "two"}, "list": [1, 2]}
    file = definition_file(
        name,
        defaultConfig=default,
        configSchema={"type": "object", "required": ["url"]},
        methods=[method("get", "GET", "/{config.paths.a}/{config.paths.b}")],
    )
    await world.publish(file)
    instance = await world.connect(name, config={"paths": {"b": "three"}})
    assert instance["config"] == {"paths": {"b": "three"}}
    await world.call(instance, "get")
    assert world.upstream.seen[-1].path == "/one/three"


async def test_under_config_error_a_credential_is_kept_and_proved_later(world: World, name: str) -> None:
    file = definition_file(
        name, authType="api_key", connectionTest="me", methods=[method("me", "GET", "/me"), method("get", "GET", "/x")]
    )
    await world.publish(file)
    broken = await world.connect(name, config={"url": 5})
    assert broken["status"] == "CONFIG_ERROR"
    assert (await world.submit(broken, KEY))["status"] == "CONFIG_ERROR"
    assert world.upstream.seen == []
    mended = await world.connection(broken).configure({"url": world.upstream.url})
    assert mended["status"] == "CONNECTED"
    assert [seen.headers["x-key"] for seen in world.upstream.seen] == ["planted-key-1"]


async def test_a_value_that_is_missing_is_pending_only_while_nothing_was_given(world: World, name: str) -> None:
    schema = {"type": "object", "required": ["url", "tenant"]}
    await world.publish(definition_file(name, configSchema=schema))
    assert (await world.connect(name, config={}))["status"] == "PENDING_CONFIGURATION"
    half = await world.connect(name, config={"url": world.upstream.url})
    assert (half["status"], half["error"]["details"]["errors"]) == (
        "CONFIG_ERROR", [{"path": "config.tenant", "rule": "required"}],
    )  # fmt: skip
