"""`RefreshOAuth` on the time-skipping server: a stand-in for provider and database, and one for the owner."""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from temporalio import activity, workflow
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHandle, WorkflowHistory
from temporalio.common import RawValue
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from integration_service.activities.failures import typed
from integration_service.contracts.connections import LOAD_CONNECTION, ConnectionRef, ConnectionState
from integration_service.contracts.definitions import IntegrationAuthType
from integration_service.contracts.instances import IntegrationInstance, IntegrationInstanceStatus
from integration_service.contracts.names import (
    REFRESH_OAUTH,
    connection_workflow_id,
    refresh_workflow_id,
)
from integration_service.contracts.oauth import (
    REFRESH_TOKEN,
    CredentialChanged,
    RefreshAnswer,
    RefreshInput,
    RefreshToken,
    TokenState,
)
from integration_service.contracts.wire import JsonObject
from integration_service.plugin import _passing_through
from integration_service.workflows.refresh_oauth import RefreshOAuth
from tests.skipping import histories, skipping_server
from tests.waiting import eventually

HOUR = timedelta(hours=1)
_QUEUE = "stand-ins"
_STRIDE = timedelta(days=2)
"""The server answers a request within 30 s: no longer a time is skipped at once."""

_PAGE = 1000
"""A year's news is more than one answer may hold."""


@workflow.defn(name="Owner", sandboxed=False)
class Owner:
    """Keeps what it is told, under the id of the connection."""

    def __init__(self) -> None:
        self._heard: list[JsonObject] = []
        self._left = False

    @workflow.run
    async def run(self) -> None:
        await workflow.wait_condition(lambda: self._left)

    @workflow.signal
    def leave(self) -> None:
        self._left = True

    @workflow.signal
    def observed(self, news: Any) -> None:
        self._heard.append(news)

    @workflow.query
    def heard(self, start: int) -> list[JsonObject]:
        return self._heard[start : start + _PAGE]


@dataclass(frozen=True)
class Request:
    """One token request: which generation was spent, when it expires, and when the request was made."""

    generation: int
    at: datetime
    expires_at: datetime | None


class Stage:
    """One instance. Its provider gives what stands in `script`, and after that a fresh token each time."""

    def __init__(self, clock: Clock, **token: Any) -> None:
        self.clock = clock
        self.instance_id = str(uuid.uuid4())
        self.workflow_id = refresh_workflow_id(self.instance_id)
        self.requests: list[Request] = []
        self.loads = 0
        self.script: deque[Exception | None] = deque()
        self.open = asyncio.Event()
        """While it is clear, activities wait."""
        self.open.set()
        self.lives: timedelta | None = token.pop("lives", HOUR)
        self._traits = token
        self.current: TokenState | None = None

    @property
    def refresher(self) -> WorkflowHandle[Any, Any]:
        return self.clock.client.get_workflow_handle(self.workflow_id)

    @property
    def owner(self) -> WorkflowHandle[Any, Any]:
        return self.clock.client.get_workflow_handle(connection_workflow_id(self.instance_id))

    def token(self, generation: int, now: datetime) -> TokenState:
        expires_at = None if self.lives is None else now + self.lives
        return TokenState(generation=generation, obtained_at=now, expires_at=expires_at, **self._traits)

    async def replace(self) -> TokenState:
        """Somebody authorised again: a newer token is in the vault, and nobody knows yet."""
        known = self.current.generation if self.current else 0
        self.current = self.token(known + 1, await self.clock.now())
        return self.current

    async def changed(self, token: TokenState) -> None:
        await self.refresher.signal("credential_changed", CredentialChanged(token=token))

    async def ask(self, seen: int | None = None) -> RefreshAnswer:
        message = {} if seen is None else {"seenGeneration": seen}
        answer: RefreshAnswer = await self.refresher.execute_update("refresh", message, result_type=RefreshAnswer)
        return answer

    async def status(self) -> JsonObject:
        found: JsonObject = await self.refresher.query("status")
        return found

    async def heard(self) -> list[JsonObject]:
        found: list[JsonObject] = []
        while page := await self.owner.query("heard", len(found)):
            found.extend(page)
        return found

    async def has_ended(self, handle: WorkflowHandle[Any, Any]) -> bool:
        return (await handle.describe()).status is not WorkflowExecutionStatus.RUNNING

    async def histories(self) -> list[WorkflowHistory]:
        """The runs' histories, oldest first."""
        return await histories(self.clock.client, self.workflow_id)

    # What stands in for the activities

    async def load(self) -> ConnectionState:
        await self.open.wait()
        self.loads += 1
        now = activity.info().started_time
        instance = IntegrationInstance(
            id=self.instance_id,
            integration_definition_id=str(uuid.uuid4()),
            name="stand-in",
            config={},
            status=IntegrationInstanceStatus.CONNECTED,
            created_at=now,
            updated_at=now,
            definition="things",
            definition_version="1.0.0",
            auth_type=IntegrationAuthType.OAUTH2,
            version=1,
        )
        generation = self.current.generation if self.current else 0
        return ConnectionState(instance=instance, generation=generation, token=self.current)

    async def request(self, wanted: RefreshToken) -> TokenState:
        now = activity.info().started_time
        assert self.current is not None
        if wanted.generation != self.current.generation:
            return self.current
        self.requests.append(Request(wanted.generation, now, self.current.expires_at))
        await self.open.wait()
        answer = self.script.popleft() if self.script else None
        if answer is not None:
            raise answer
        if self.current.generation == wanted.generation:
            self.current = self.token(wanted.generation + 1, now)
        return self.current


@dataclass
class Clock:
    """The server's time. It stands still unless a test lets it pass, or waits for a workflow's result."""

    environment: WorkflowEnvironment
    stages: dict[str, Stage] = field(default_factory=dict)

    @property
    def client(self) -> Client:
        return self.environment.client

    async def now(self) -> datetime:
        return await self.environment.get_current_time()

    async def passes(self, span: timedelta) -> None:
        while span > timedelta(0):
            await self.environment.sleep(min(span, _STRIDE))
            span -= _STRIDE

    @asynccontextmanager
    async def stage(self, *, loads: bool = False, **token: Any) -> AsyncIterator[Stage]:
        """An instance whose refresher runs and knows its first token; with `loads` it has to ask for it."""
        stage = Stage(self, **token)
        self.stages[stage.instance_id] = stage
        first = await stage.replace()
        told = {} if loads else {"start_signal": "credential_changed", "start_signal_args": [{"token": first}]}
        await self.client.start_workflow(
            "Owner", id=connection_workflow_id(stage.instance_id), task_queue=_QUEUE, result_type=type(None)
        )
        await self.start(RefreshInput(instance_id=stage.instance_id, scope="global"), id=stage.workflow_id, **told)
        try:
            yield stage
        finally:
            # Not by termination: the time of this server stands still for the task of a workflow that is terminated.
            stage.open.set()
            for handle, word in ((stage.refresher, "stop"), (stage.owner, "leave")):
                if not await stage.has_ended(handle):
                    await handle.signal(word)
                await eventually(lambda handle=handle: stage.has_ended(handle))

    async def start(self, *wanted: Any, id: str, **more: Any) -> WorkflowHandle[Any, Any]:  # noqa: A002
        return await self.client.start_workflow(REFRESH_OAUTH, args=wanted, id=id, task_queue=_QUEUE, **more)

    @activity.defn(name=LOAD_CONNECTION)
    async def load(self, ref: ConnectionRef) -> ConnectionState:
        async with typed():
            return await self.stages[ref.instance_id].load()

    @activity.defn(name=REFRESH_TOKEN)
    async def refresh(self, wanted: RefreshToken) -> TokenState:
        async with typed(retry=False):
            return await self.stages[wanted.instance_id].request(wanted)


@asynccontextmanager
async def running_clock() -> AsyncIterator[Clock]:
    """The server, and a worker with the sandbox that production has."""
    async with skipping_server() as environment:
        clock = Clock(environment)
        async with Worker(
            environment.client,
            task_queue=_QUEUE,
            workflows=[RefreshOAuth, Owner],
            activities=[clock.load, clock.refresh],
            workflow_runner=_passing_through(SandboxedWorkflowRunner()),
        ):
            yield clock


def raw(text: bytes) -> RawValue:
    """An input that no JSON reader takes."""
    from temporalio.api.common.v1 import Payload

    return RawValue(Payload(metadata={"encoding": b"json/plain"}, data=text))
