"""`GET /v1/schemas…` of a real gateway: what it tells, to whom, and that what really goes over the wire fits it."""

from __future__ import annotations

import httpx2
import jsonschema
import pytest

from integration_service.contracts.calls import MethodCall
from integration_service.contracts.definitions import DefinitionFile
from integration_service.contracts.schemas import NEXUS_OPERATIONS, WIRE_TYPES, WORKFLOWS
from integration_service.contracts.wire import parse
from integration_service.storage.definitions import Definitions
from tests.upstream import json_answer
from tests.world import World, definition_file, method

_PARAMS = {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]}


async def ask(world: World, path: str, token: str | None = None, **query: str) -> httpx2.Response:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(trust_env=False) as http:
        return await http.get(f"{world.stack.ready.gateway}/v1/schemas{path}", headers=headers, params=query)


async def validator(world: World, path: str) -> jsonschema.Draft202012Validator:
    schema = (await ask(world, path)).json()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())


async def test_what_goes_over_the_wire_fits_its_schema(world: World, name: str) -> None:
    methods = [method("get", "GET", "/things/{id}", paramSchema=_PARAMS, resultSchema={"type": "object"})]
    instance = await world.instance(definition_file(name, methods=methods))
    connection = world.connection(instance)
    world.upstream.answers = [json_answer({"id": 7})]
    call = {"instanceId": instance["id"], "method": "get", "params": {"id": 7}}
    result = (await world.integrations.call(parse(MethodCall, call))).to_wire()

    (await validator(world, "/MethodCall")).validate(call)
    (await validator(world, "/MethodResult")).validate(result)
    status = await validator(world, "/ConnectionStatus")
    for told in (await connection.status(), await connection.test(), await connection.disconnect()):
        status.validate(told)
        assert set(told) <= set(status.schema["properties"])

    told = (await ask(world, f"/methods/{name}/1.0.0/get")).json()
    jsonschema.Draft202012Validator(told["params"]).validate(call["params"])
    jsonschema.Draft202012Validator(told["result"]).validate(result["data"])
    assert not jsonschema.Draft202012Validator(told["params"]).is_valid({"id": "seven"})
    whole = (await ask(world, f"/methods/{name}/1.0.0")).json()
    assert whole["methods"] == {"get": told}
    jsonschema.Draft202012Validator(whole["config"]).validate(instance["config"])


async def test_the_index_tells_what_there_is(world: World) -> None:
    told = (await ask(world, "")).json()
    assert told["types"] == list(WIRE_TYPES)
    assert set(told["workflows"]) == set(WORKFLOWS)
    assert told["workflows"]["ConnectInstance"]["updates"]["upgrade"] == ["Upgrade", "ConnectionStatus"]
    assert set(told["nexus"]) == set(NEXUS_OPERATIONS)


async def test_what_is_not_there_is_404(world: World, name: str) -> None:
    await world.publish(definition_file(name))
    for path in ("/Nobody", f"/methods/{name}/2.0.0", f"/methods/{name}/1.0.0/nobody", "/methods/nobody/1.0.0/get"):
        assert (await ask(world, path)).status_code == 404, path
    refusal = await validator(world, "/Refusal")
    refusal.validate((await ask(world, f"/methods/{name}/1.0.0/nobody")).json())


async def test_a_draft_is_not_shown(world: World, name: str) -> None:
    await Definitions(world.database).apply(parse(DefinitionFile, definition_file(name)))
    assert (await ask(world, f"/methods/{name}/1.0.0")).status_code == 404


async def test_another_scope_is_for_who_has_a_token(world: World, name: str) -> None:
    await world.publish(definition_file(name, scope="acme"))
    path, token = f"/methods/{name}/1.0.0/get", world.stack.environment["INTEGRATIONS_GATEWAY_TOKENS"]
    assert (await ask(world, path)).status_code == 404  # it is not of the global scope
    assert (await ask(world, path, scope="acme")).status_code == 401
    assert (await ask(world, path, "x" * 40, scope="acme")).status_code == 401
    told = await ask(world, path, token, scope="acme")
    assert told.status_code == 200
    assert told.headers["cache-control"] == "private, no-store"
    assert ":acme:" in told.json()["params"]["$id"]
    assert (await ask(world, path, token, scope="other")).status_code == 404


@pytest.mark.parametrize("verb", ["POST", "PUT", "DELETE"])
async def test_nothing_else_is_allowed(world: World, verb: str) -> None:
    async with httpx2.AsyncClient(trust_env=False) as http:
        assert (await http.request(verb, f"{world.stack.ready.gateway}/v1/schemas")).status_code == 405
