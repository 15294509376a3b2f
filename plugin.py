"""The composition root: builds every part, opens it while a worker runs, and registers what that worker serves.

`IntegrationPlugin` makes any Temporal worker one of ours. `IntegrationClientPlugin` gives a client our converter and
codec and nothing else: a client's plugins reach the workers made from it, and a caller's worker must not get our
activities.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.converter import DataConverter
from temporalio.plugin import SimplePlugin
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Worker, WorkerConfig, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from integration_service.activities.capacity import Capacity
from integration_service.activities.maintenance_schedule import ensure_maintenance_schedule
from integration_service.activities.parts import Parts
from integration_service.activities.worker_health import WorkerHealth
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.events import DELIVER_EVENTS, deliver_events_workflow_id
from integration_service.contracts.names import SEARCH_ATTRIBUTES, connection_tests_queue, control_queue
from integration_service.settings import Settings
from integration_service.storage.temporal_converter import temporal_converter
from integration_service.telemetry.process import Telemetry
from integration_service.workflows.connect_instance import ConnectInstance
from integration_service.workflows.deliver_events import DeliverEvents
from integration_service.workflows.execute_method import ExecuteMethod
from integration_service.workflows.maintain_storage import MaintainStorage
from integration_service.workflows.pinned import PinnedExecuteMethod
from integration_service.workflows.refresh_oauth import RefreshOAuth
from integration_service.workflows.rotate_keys import RotateKeysWorkflow

_NAME = "integration-service.IntegrationPlugin"
_CONTROL_WORKFLOWS = (RefreshOAuth, MaintainStorage, DeliverEvents, RotateKeysWorkflow)
_WORKFLOWS = (ConnectInstance, ExecuteMethod, *_CONTROL_WORKFLOWS)
_VERSIONED = (ConnectInstance, PinnedExecuteMethod, *_CONTROL_WORKFLOWS)
_PASSED_THROUGH = ("integration_service.contracts", "pydantic", "pydantic_core", "annotated_types", "opentelemetry")


class IntegrationClientPlugin(SimplePlugin):
    """For `Client.connect(plugins=[…])`: our values on the wire, encrypted where the environment or `settings` say so
    (``INTEGRATIONS_PAYLOAD_ENCRYPTION``); a user's codec is kept, inside ours."""

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__(f"{_NAME}.Client", data_converter=lambda converter: _speaking(converter, settings))


class IntegrationPlugin(SimplePlugin):
    """For `Worker(plugins=[…])`: our workflows and activities on that worker's queue, and beside it workers of
    its own for the control queue and for connection tests, so that neither a flood of calls nor slow upstreams delay a
    refresh.

    One plugin serves one worker. A Replayer gets the workflows and the converter, and needs no database. `telemetry` is
    what the process tells of itself. A worker with Worker Versioning must name AUTO_UPGRADE as its default behaviour.
    """

    def __init__(self, settings: Settings | None = None, *, telemetry: Telemetry | None = None) -> None:
        self._settings = settings
        self._telemetry = telemetry or Telemetry()
        self._capacity: Capacity | None = None
        self._health: WorkerHealth | None = None
        self._parts: Parts | None = None
        super().__init__(
            _NAME,
            data_converter=lambda converter: _speaking(converter, settings),
            workflows=_WORKFLOWS,
            workflow_runner=_passing_through,
        )

    def configure_worker(self, config: WorkerConfig) -> WorkerConfig:
        """Builds the parts. Raises IntegrationError when a setting is missing."""
        if self._parts is not None:
            raise ValueError("an IntegrationPlugin serves one worker: make another for another worker")
        settings = self._settings = self._settings or Settings.from_environment()
        deployment = config.get("deployment_config")
        self._capacity = Capacity.of(settings).within(deployment)
        self._parts = Parts.build(
            settings, task_queue=config["task_queue"], capacity=self._capacity, telemetry=self._telemetry
        )
        self.activities = self._parts.method_activities
        self.nexus_service_handlers = [self._parts.nexus]
        self.interceptors = self._parts.interceptors
        if deployment is not None and deployment.use_worker_versioning:
            self.workflows = _VERSIONED
        config = super().configure_worker(config)
        config["client"] = _client_speaking(config["client"], self._settings)
        return config

    def stopping(self) -> None:
        """The worker's owner is about to shut it down: `/readyz` says so while it finishes what it holds."""
        if self._health is not None:
            self._health.stop()

    async def run_worker(self, worker: Worker, next: Callable[[Worker], Awaitable[None]]) -> None:  # noqa: A002
        """Opens the parts, serves the queues, closes the parts."""
        parts, capacity, settings = self._parts, self._capacity, self._settings
        if parts is None or capacity is None or settings is None:
            raise RuntimeError("run_worker before configure_worker")
        health = self._health = WorkerHealth(parts.database, worker)
        async with health.listening(settings.worker_listen, self._telemetry), parts.opened():
            await _ensure_search_attributes(worker.client)
            control = Worker(
                worker.client,
                task_queue=control_queue(worker.task_queue),
                activities=parts.control_activities,
                workflows=_CONTROL_WORKFLOWS,
                workflow_runner=_passing_through(None),
                interceptors=parts.interceptors,
                **capacity.control(),
            )
            tests = Worker(
                worker.client,
                task_queue=connection_tests_queue(worker.task_queue),
                activities=parts.test_activities,
                interceptors=parts.interceptors,
                **capacity.tests(),
            )
            async with control, tests:
                await ensure_maintenance_schedule(worker.client, task_queue=control_queue(worker.task_queue))
                await _ensure_events_are_delivered(worker.client, worker.task_queue)
                health.serve_with(control, tests)
                await super().run_worker(worker, next)


def _speaking(converter: DataConverter | None, settings: Settings | None) -> DataConverter:
    return temporal_converter(settings or Settings.from_environment(), converter)


def _client_speaking(client: Client, settings: Settings | None) -> Client:
    """The same connection with our converter, where the worker's owner did not use `IntegrationClientPlugin`."""
    wanted = _speaking(client.data_converter, settings)
    if wanted is client.data_converter:
        return client
    config = client.config(active_config=True)
    config["data_converter"], config["plugins"] = wanted, []
    return Client(**config)


def _passing_through(runner: WorkflowRunner | None) -> WorkflowRunner:
    if not isinstance(runner, SandboxedWorkflowRunner):
        return runner or SandboxedWorkflowRunner()
    return dataclasses.replace(runner, restrictions=runner.restrictions.with_passthrough_modules(*_PASSED_THROUGH))


async def _ensure_events_are_delivered(client: Client, task_queue: str) -> None:
    """Start `DeliverEvents` unless it runs: whichever worker is first does it."""
    await client.start_workflow(
        DELIVER_EVENTS,
        id=deliver_events_workflow_id(task_queue),
        task_queue=control_queue(task_queue),
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        static_summary="delivers events to those who subscribe",
    )


async def _ensure_search_attributes(client: Client) -> None:
    """Register what is missing. Raises IntegrationError with the command to run where we may not."""
    wanted = {key.name: IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD for key in SEARCH_ATTRIBUTES}
    try:
        known = await client.operator_service.list_search_attributes(
            ListSearchAttributesRequest(namespace=client.namespace)
        )
        missing = {name: kind for name, kind in wanted.items() if name not in known.custom_attributes}
        if missing:
            await client.operator_service.add_search_attributes(
                AddSearchAttributesRequest(namespace=client.namespace, search_attributes=missing)
            )
    except RPCError as error:
        if error.status is RPCStatusCode.ALREADY_EXISTS:
            return  # another worker that started at the same time was first
        names = " ".join(f"--name {name}" for name in wanted)
        raise IntegrationError(
            ErrorCode.UNAVAILABLE,
            f"search attributes could not be checked ({error.status.name}); register them with "
            f"`temporal operator search-attribute create {names} --type Keyword`",
        ) from error
