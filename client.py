"""A typed client for other Python services: thin over the contract, no more than names and shapes.

Inside a workflow use `integration_service.workflows.calling` instead: a workflow has no client.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from temporalio.client import (
    Client,
    WithStartWorkflowOperation,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowUpdateFailedError,
)
from temporalio.common import Priority, WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from integration_service.contracts.answers import Authorization, ConnectionStatus, TokenRefresh
from integration_service.contracts.calls import MethodCall, MethodResult, ResultRef
from integration_service.contracts.credentials import Sealed
from integration_service.contracts.errors import ErrorCode, IntegrationError, from_failure
from integration_service.contracts.failures import Refusal
from integration_service.contracts.instances import ConnectInstanceInput
from integration_service.contracts.known_methods import KnownMethods
from integration_service.contracts.markdown import code
from integration_service.contracts.names import (
    CONNECT_INSTANCE,
    EXECUTE_METHOD,
    TASK_QUEUE,
    connection_workflow_id,
    fairness_key,
    refresh_workflow_id,
)
from integration_service.contracts.wire import JsonObject, parse

_FETCH_WITHIN = timedelta(seconds=60)


class Integrations:
    """Calls methods and owns connections, over any Temporal client.

    Failures come back as IntegrationError with the code of the contract, whatever Temporal wrapped them in.
    """

    def __init__(self, client: Client, *, task_queue: str = TASK_QUEUE) -> None:
        self._client = client
        self._task_queue = task_queue
        self._known = KnownMethods()

    async def call(self, call: MethodCall, *, workflow_id: str | None = None) -> MethodResult:
        """Run `ExecuteMethod` to its end. The same `workflow_id` twice runs once."""
        planned = call
        if call.plan is None:
            planned = call.model_copy(update={"plan": self._known.plan(call) or "wanted"})
        result = await self.result_of(await self.start_call(planned, workflow_id=workflow_id))
        self._known.learn(call, result)
        asked = call.plan is not None
        return result if asked or result.plan is None else result.model_copy(update={"plan": None})

    async def start_call(self, call: MethodCall, *, workflow_id: str | None = None) -> WorkflowHandle[Any, JsonObject]:
        """Start `ExecuteMethod`; attaches where a call of that id runs, or ran within the namespace's retention."""
        name = workflow_id or f"call:{uuid.uuid4()}"
        try:
            return await self._start(call, name)
        except WorkflowAlreadyStartedError:
            return self._client.get_workflow_handle(name, result_type=dict)

    async def _start(self, call: MethodCall, name: str) -> WorkflowHandle[Any, JsonObject]:
        async with _failures(already_started=False):
            handle: WorkflowHandle[Any, JsonObject] = await self._client.start_workflow(
                EXECUTE_METHOD,
                call.to_wire(),
                id=name,
                task_queue=self._task_queue,
                result_type=dict,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                static_summary=f"{call.method} of {call.instance_id}",
                static_details=_details(
                    {"Method": call.method, "Instance": call.instance_id, "Correlation id": call.correlation_id}
                ),
                # Beside an instance with thousands of calls that wait, another one's call goes next.
                priority=Priority(fairness_key=fairness_key(call.scope, call.instance_id)),
                search_attributes=self._known.search_attributes(call),
            )
        return handle

    async def result_of(self, handle: WorkflowHandle[Any, JsonObject]) -> MethodResult:
        """Wait for a call that was started."""
        async with _failures():
            return parse(MethodResult, await handle.result())

    async def fetch(self, reference: ResultRef, *, token: str) -> bytes:
        """What a large result's `resultRef` names, checked: the JSON of `data`, or the raw bytes of a binary result.

        `token` is one of the gateway's (RFC 6750). Raises IntegrationError as the gateway refuses, INTEGRITY_ERROR
        where other bytes arrive than were stored.
        """
        return (await fetch_result(reference.url, token=token, sha256=reference.sha256)).body

    async def connect(self, wanted: ConnectInstanceInput) -> ConnectionStatus:
        """Start `ConnectInstance` and return its status once the start has settled."""
        async with _failures():
            start: WithStartWorkflowOperation[Any, Any] = WithStartWorkflowOperation(
                CONNECT_INSTANCE,
                wanted.to_wire(),
                id=connection_workflow_id(wanted.instance_id),
                task_queue=self._task_queue,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                static_summary=f"{wanted.name} ({wanted.definition})",
                static_details=_details({"Definition": wanted.definition, "Instance": wanted.instance_id}),
            )
            # `await_settled` changes nothing: it is answered after the start, in the same round trip.
            settled: ConnectionStatus = await self._client.execute_update_with_start_workflow(
                "await_settled", start_workflow_operation=start, result_type=dict
            )
        return settled

    async def refresh(self, instance_id: str, *, seen_generation: int | None = None) -> TokenRefresh:
        """Get a new access token; with `seen_generation` only if that one is still current.

        Returns ``{"generation", "expiresAt"?, "retryAfterMs"?}``; never a token.
        """
        message = {} if seen_generation is None else {"seenGeneration": seen_generation}
        handle = self._client.get_workflow_handle(refresh_workflow_id(instance_id))
        nobody = IntegrationError(
            ErrorCode.INSTANCE_NOT_CONNECTED, "it has no OAuth token to refresh; authorise it first", path="instanceId"
        )
        async with _failures(missing=nobody):
            answer: TokenRefresh = await handle.execute_update("refresh", message, result_type=dict)
        return answer

    def connection(self, instance_id: str) -> Connection:
        """The connection of an instance by its UUID."""
        return Connection(self._client, instance_id)


class Connection:
    """One instance's `ConnectInstance` workflow."""

    def __init__(self, client: Client, instance_id: str) -> None:
        self._handle = client.get_workflow_handle(connection_workflow_id(instance_id))

    async def status(self) -> ConnectionStatus:
        """The status object, without a write."""
        async with _failures():
            found: ConnectionStatus = await self._handle.query("status", result_type=dict)
        return found

    async def settled(self) -> ConnectionStatus:
        """The status object once the start has settled; changes nothing."""
        return await self._status_after("await_settled")

    async def configure(self, config: JsonObject) -> ConnectionStatus:
        """Replace the instance's config."""
        return await self._status_after("configure", {"config": config})

    async def submit_credentials(self, sealed: Sealed) -> ConnectionStatus:
        """Store a sealed credential and prove it; a wrong one gives status AUTH_ERROR and no failure."""
        return await self._status_after("submit_credentials", {"sealed": sealed.to_wire()})

    async def authorize(self, message: JsonObject | None = None) -> Authorization:
        """Begin an authorization.

        `message` is ``{"returnUrl"?, "redirectUri"?, "allowDifferentAccount"?}``.
        """
        answer: Authorization = await self._send("authorize", message)
        return answer

    async def complete_authorization(self, message: JsonObject) -> ConnectionStatus:
        """End it with what the provider sent: the state or its hash, and `sealed` or `error`."""
        return await self._status_after("complete_authorization", message)

    async def test(self) -> ConnectionStatus:
        """Prove the credential again."""
        return await self._status_after("test")

    async def upgrade(self, version: str) -> ConnectionStatus:
        """Pin the instance to another published version of its definition."""
        return await self._status_after("upgrade", {"version": version})

    async def disconnect(self, *, revoke: bool = True) -> ConnectionStatus:
        """Erase the credential and stop using the instance; `revoke` asks the provider to revoke, where it can."""
        return await self._status_after("disconnect", {"revoke": revoke})

    async def reconnect(self) -> ConnectionStatus:
        """Take a disconnected instance into use again."""
        return await self._status_after("reconnect")

    async def delete(self) -> ConnectionStatus:
        """Erase the instance, free its name and end its workflow."""
        return await self._status_after("delete")

    async def update(self, name: str, message: JsonObject | None = None) -> JsonObject:
        """Send an update by name, such as one that a newer service has, and wait for it."""
        answer: JsonObject = await self._send(name, message)
        return answer

    async def _status_after(self, name: str, message: JsonObject | None = None) -> ConnectionStatus:
        answer: ConnectionStatus = await self._send(name, message)
        return answer

    async def _send(self, name: str, message: JsonObject | None) -> Any:
        async with _failures():
            return await self._handle.execute_update(name, message or {}, result_type=dict)


@dataclass(frozen=True)
class FetchedResult:
    """A large result as the gateway handed it over."""

    body: bytes
    sha256: str
    content_type: str


async def fetch_result(url: str, *, token: str, sha256: str | None = None) -> FetchedResult:
    """`Integrations.fetch` for who has no Temporal client; without `sha256` the gateway's own (ETag) must fit."""
    import httpx2  # by those who fetch: callers' workflows import this module

    headers = {"Authorization": f"Bearer {token}"}
    try:
        async with httpx2.AsyncClient(trust_env=False, timeout=_FETCH_WITHIN.total_seconds()) as http:
            answer = await http.get(url, headers=headers)
    except httpx2.HTTPError:
        where = urlsplit(url)._replace(path="", query="", fragment="").geturl()
        raise IntegrationError(ErrorCode.UNAVAILABLE, f"no gateway answers at {where}", path="url") from None
    if answer.status_code != 200:
        raise _refused(answer.status_code, answer.content)
    expected = answer.headers.get("etag", "").strip('"') if sha256 is None else sha256
    found = hashlib.sha256(answer.content).hexdigest()
    if found != expected:
        raise IntegrationError(ErrorCode.INTEGRITY_ERROR, "the result arrived changed: its hash is another")
    return FetchedResult(answer.content, found, answer.headers.get("content-type", ""))


def _refused(status: int, body: bytes) -> IntegrationError:
    try:
        told = parse(Refusal, json.loads(body))
    except (ValueError, RecursionError, IntegrationError):
        return IntegrationError(ErrorCode.UNAVAILABLE, f"the gateway answered {status}")
    return IntegrationError(told.code, told.message, path=told.path)


@asynccontextmanager
async def _failures(*, already_started: bool = True, missing: IntegrationError | None = None) -> AsyncIterator[None]:
    try:
        yield
    except (WorkflowFailureError, WorkflowUpdateFailedError) as error:
        raise from_failure(error.cause) or IntegrationError(
            ErrorCode.UNAVAILABLE, f"it ended without a result: {error.cause}"
        ) from error
    except WorkflowAlreadyStartedError as error:
        if not already_started:
            raise
        raise IntegrationError(
            ErrorCode.VALIDATION_ERROR, f"{error.workflow_id} runs already", path="instanceId"
        ) from error
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            raise missing or IntegrationError(
                ErrorCode.INSTANCE_NOT_FOUND, "no workflow owns that instance", path="instanceId"
            ) from error
        raise IntegrationError(ErrorCode.UNAVAILABLE, f"Temporal answered {error.status.name}") from error


def _details(facts: dict[str, str | None]) -> str:
    """What the Web UI shows of a workflow from its start on."""
    return "\n".join(f"- {name}: {code(value)}" for name, value in facts.items() if value is not None)
