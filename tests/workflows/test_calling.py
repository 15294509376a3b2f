"""Another service's workflow calls a method: as a child, as its own activity, and from another namespace by Nexus."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.workflowservice.v1 import RegisterNamespaceRequest
from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import NexusOperationError
from temporalio.service import RPCError
from temporalio.worker import Worker

from integration_service.contracts.errors import from_failure
from integration_service.devstack.stack import Stack
from integration_service.storage.vault.keyring import Keyring
from tests.caller_workflows import Asks, Calls
from tests.identity import identity_provider
from tests.oauth_setting import Setting
from tests.upstream import json_answer
from tests.waiting import eventually
from tests.world import World, definition_file, method

_NO_RETRY = {"maxRetries": 0, "backoffMultiplier": 1, "initialDelayMs": 10, "maxDelayMs": 10}


@pytest.fixture(scope="module")
async def elsewhere(stack: Stack, temporal: Client) -> AsyncIterator[Client]:
    """A client of another namespace, in which a caller's worker runs."""
    namespace = f"callers-{uuid.uuid4().hex[:8]}"
    request = RegisterNamespaceRequest(namespace=namespace)
    request.workflow_execution_retention_period.FromTimedelta(timedelta(days=1))
    await temporal.workflow_service.register_namespace(request)
    client = await Client.connect(stack.ready.temporal, namespace=namespace)

    async def is_known() -> bool:
        try:
            return await client.count_workflows() is not None
        except RPCError:
            return False

    await eventually(is_known)
    async with Worker(client, task_queue="callers", workflows=[Calls, Asks]):
        yield client


@pytest.fixture(scope="module")
async def here(stack: Stack) -> AsyncIterator[Client]:
    """A client of our namespace, with a caller's worker."""
    client = await Client.connect(stack.ready.temporal)
    async with Worker(client, task_queue="callers", workflows=[Calls, Asks]):
        yield client


@pytest.fixture
def callers(request: pytest.FixtureRequest, here: Client, elsewhere: Client) -> dict[str, Client]:
    return {"child": here, "activity": here, "nexus": elsewhere}


async def run(client: Client, what: Any, *arguments: Any) -> Any:
    return await asyncio.wait_for(
        client.execute_workflow(what, args=list(arguments), id=f"caller-{uuid.uuid4()}", task_queue="callers"), 60
    )


async def failing(client: Client, what: Any, *arguments: Any) -> WorkflowFailureError:
    with pytest.raises(WorkflowFailureError) as caught:
        await run(client, what, *arguments)
    return caught.value


@pytest.mark.parametrize("way", ["child", "activity", "nexus"])
async def test_a_workflow_gets_a_typed_result_and_failures_with_a_code(
    world: World, name: str, way: str, callers: dict[str, Client]
) -> None:
    schema = {"type": "object", "properties": {"id": {"type": "integer"}}}
    methods = [method("get", "GET", "/things/{id}", paramSchema=schema, retryConfig=_NO_RETRY)]
    instance = await world.instance(definition_file(name, methods=methods))
    call = {"instanceId": instance["id"], "method": "get", "params": {"id": 7}}
    world.upstream.answers = [json_answer({"id": 7}), json_answer({}, 404)]

    result = await run(callers[way], "Calls", way, name, {**call, "plan": "wanted"})
    assert (result["data"], result["statusCode"], result["definition"]) == ({"id": 7}, 200, name)
    # A plan names the activity that runs: another namespace does not choose it.
    assert ("plan" in result) == (way == "child")
    assert (await run(callers[way], "Calls", way, name, call))["caught"] == "HTTP_404"

    # One that is not caught fails the caller's workflow, with all four fields.
    error = from_failure((await failing(callers[way], "Calls", way, name, {**call, "params": {"id": "x"}})).cause)
    assert error is not None
    assert (error.code, error.path) == ("VALIDATION_ERROR", "params.id")


async def test_over_nexus_the_first_application_failure_carries_the_code(
    world: World, name: str, elsewhere: Client
) -> None:
    failure = await failing(elsewhere, "Asks", "connection_status", {"instanceId": "nobody's"})
    assert isinstance(failure.cause, NexusOperationError)
    error = from_failure(failure.cause)
    assert error is not None
    assert (error.code, error.details) == ("INSTANCE_NOT_FOUND", {"path": "instanceId"})

    instance = await world.instance(definition_file(name))
    by_name = await run(elsewhere, "Asks", "connection_status", {"instanceId": instance["name"]})
    assert (by_name["id"], by_name["status"]) == (instance["id"], "CONNECTED")
    error = from_failure((await failing(elsewhere, "Asks", "refresh", {"instanceId": instance["id"]})).cause)
    assert error is not None
    assert error.code == "INSTANCE_NOT_CONNECTED"
    error = from_failure((await failing(elsewhere, "Asks", "authorize", {"instanceId": instance["id"]})).cause)
    assert error is not None
    assert error.code == "VALIDATION_ERROR"


@pytest.mark.slow
async def test_over_nexus_an_instance_is_authorised_and_its_token_refreshed(
    world: World, keyring: Keyring, name: str, elsewhere: Client, tmp_path: Path
) -> None:
    async with identity_provider(tmp_path / "idp") as identity:
        setting = Setting(world, identity, keyring, name)
        await setting.publish()
        instance = await setting.instance()
        begun = await run(elsewhere, "Asks", "authorize", {"instanceId": instance["name"]})
        page = await identity.connect(begun["authorizationUrl"])
        assert page.status_code == 200, page.text
        refreshed = await run(elsewhere, "Asks", "refresh", {"instanceId": instance["id"], "seenGeneration": 1})
        assert refreshed["generation"] == 2
        assert await setting.generation(instance) == 2


async def test_a_call_over_nexus_that_cannot_be_read_fails_and_does_not_hang(elsewhere: Client) -> None:
    failure: BaseException = await failing(elsewhere, "Asks", "execute_method", {"nonsense": "planted-value"})
    told, error = "", failure.__cause__
    while error is not None:
        told, error = f"{told} {error}", error.__cause__
    assert "instanceId" in told
    assert "planted-value" not in told
