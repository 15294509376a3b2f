"""A workflow that stands where `ConnectInstance` would, and remembers what it was told."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from temporalio import workflow
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from integration_service.contracts.errors import IntegrationError, to_application_error
from integration_service.contracts.instances import IntegrationInstance
from integration_service.contracts.names import connection_workflow_id
from integration_service.contracts.wire import JsonObject


@workflow.defn(name="StandInConnection")
class StandInConnection:
    """Input ``{"status"?, "failure"?: [code, message], "begun"?}``: what its updates answer."""

    @workflow.init
    def __init__(self, answers: JsonObject) -> None:
        self._answers = answers
        self._seen: list[JsonObject] = []
        self._ended = False

    @workflow.run
    async def run(self, answers: JsonObject) -> None:
        await workflow.wait_condition(lambda: self._ended and workflow.all_handlers_finished())

    @workflow.update
    async def complete_authorization(self, message: JsonObject) -> JsonObject:
        self._seen.append(message)
        if self._answers.get("hang"):
            await workflow.wait_condition(lambda: self._ended)
        if failure := self._answers.get("failure"):
            raise to_application_error(IntegrationError(*failure, path="state"))
        self._answers.get("begun", {}).pop("authorizationUrl", None)
        return self._status()

    @workflow.update
    async def authorize(self, message: JsonObject) -> JsonObject:
        self._seen.append(message)
        begun: JsonObject = self._answers["begun"]
        return dict(begun)

    @workflow.update
    async def await_settled(self, message: Any = None) -> JsonObject:
        return self._status()

    @workflow.query
    def status(self) -> JsonObject:
        return self._status()

    @workflow.query
    def seen(self) -> list[JsonObject]:
        return self._seen

    @workflow.signal
    def end(self) -> None:
        self._ended = True

    def _status(self) -> JsonObject:
        url = self._answers.get("begun", {}).get("authorizationUrl")
        if url is not None:
            return {"status": "PENDING_AUTHENTICATION", "authorizationUrl": url}
        return dict(self._answers.get("status") or {"status": "CONNECTED"})


@dataclass
class StandIn:
    """The running stand-in of one instance."""

    handle: WorkflowHandle[Any, Any]

    async def seen(self) -> list[JsonObject]:
        """The messages that came, oldest first."""
        found: list[JsonObject] = await self.handle.query(StandInConnection.seen)
        return found


@asynccontextmanager
async def standing_in(client: Client, instance: IntegrationInstance, answers: JsonObject) -> AsyncIterator[StandIn]:
    """Inside, a stand-in owns `instance` on a worker and a queue of its own."""
    queue = f"stand-in-{uuid.uuid4()}"
    worker = Worker(
        client, task_queue=queue, workflows=[StandInConnection], workflow_runner=UnsandboxedWorkflowRunner()
    )
    async with worker:
        handle = await client.start_workflow(
            StandInConnection.run, answers, id=connection_workflow_id(instance.id), task_queue=queue
        )
        try:
            yield StandIn(handle)
        finally:
            await handle.signal(StandInConnection.end)
            await handle.result()
