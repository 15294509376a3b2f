"""What the workflow of an instance stands on: its row as it is known, written by nobody else, and its activities."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TypeVar

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError

from integration_service.workflows.breakers import BreakersSeen

with workflow.unsafe.imports_passed_through():
    from integration_service.contracts import connections as names
    from integration_service.contracts.connection_page import connection_page
    from integration_service.contracts.connections import (
        ConnectionRef,
        ConnectionState,
        WriteConnection,
    )
    from integration_service.contracts.errors import (
        ErrorCode,
        IntegrationError,
        from_failure,
    )
    from integration_service.contracts.instances import (
        ConnectInstanceInput,
        InstanceError,
        IntegrationInstanceStatus,
    )
    from integration_service.contracts.names import (
        INTEGRATION_DEFINITION,
        INTEGRATION_INSTANCE,
        INTEGRATION_STATUS,
        control_queue,
    )
    from integration_service.contracts.oauth import PendingAuthorization
    from integration_service.contracts.wire import JsonObject, WireModel

Status = IntegrationInstanceStatus
Result = TypeVar("Result")

_STORAGE_TIMEOUT = timedelta(seconds=30)
_HEARTBEAT_TIMEOUT = timedelta(seconds=15)


class ConnectionOwner:
    """Owns one instance's row. The workflow builds its decisions upon this."""

    def __init__(self) -> None:
        self._input: ConnectInstanceInput
        self._state: ConnectionState | None = None
        self._writing = asyncio.Lock()
        self._breakers = BreakersSeen()

    @property
    def _known(self) -> ConnectionState:
        if self._state is None:
            raise IntegrationError(ErrorCode.UNAVAILABLE, "the instance is not open yet")
        return self._state

    def _ref(self) -> ConnectionRef:
        return ConnectionRef(instance_id=self._input.instance_id, scope=self._input.scope)

    def _see(self, state: ConnectionState) -> None:
        """Take over what the row says, and show it to whoever looks at the workflow."""
        self._state = state
        instance = state.instance
        self._show()
        workflow.upsert_search_attributes(
            [
                INTEGRATION_DEFINITION.value_set(instance.definition),
                INTEGRATION_INSTANCE.value_set(instance.id),
                INTEGRATION_STATUS.value_set(instance.status.value),
            ]
        )

    def _error(self) -> InstanceError | None:
        """What is wrong with the instance, or with its upstream."""
        return self._known.instance.error or self._breakers.error(workflow.now())

    def _show(self) -> None:
        workflow.set_current_details(connection_page(self._known, self._error(), self._under_way()))

    def _under_way(self) -> PendingAuthorization | None:
        """An authorization that somebody is to give."""
        return None

    async def _write(
        self,
        status: Status,
        error: InstanceError | None,
        *,
        config: JsonObject | None = None,
        definition_id: str | None = None,
    ) -> None:
        """Write the row; when another writer came between, read it again and go on."""
        while True:
            instance = self._known.instance
            wanted = WriteConnection(
                instance=instance,
                status=status,
                error=error,
                config=instance.config if config is None else config,
                definition_id=definition_id or instance.integration_definition_id,
            )
            if (status, error, config, definition_id) == (instance.status, instance.error, None, None):
                return
            try:
                return self._see(await self._activity(names.WRITE_CONNECTION, wanted, ConnectionState))
            except ActivityError as failure:
                conflict = from_failure(failure)
                if conflict is None or conflict.code != ErrorCode.VERSION_CONFLICT:
                    raise
                self._see(await self._activity(names.LOAD_CONNECTION, self._ref(), ConnectionState))

    async def _activity(
        self,
        name: str,
        argument: WireModel,
        result: type[Result],
        *,
        within: timedelta | None = None,
        queue: str | None = None,
        attempts: int = 0,
        beats: bool = False,
    ) -> Result:
        answer: Result = await workflow.execute_activity(
            name,
            argument,
            result_type=result,
            task_queue=queue or control_queue(workflow.info().task_queue),
            start_to_close_timeout=within or _STORAGE_TIMEOUT,
            schedule_to_close_timeout=within,
            heartbeat_timeout=_HEARTBEAT_TIMEOUT if beats else None,
            retry_policy=RetryPolicy(
                initial_interval=timedelta(milliseconds=500),
                maximum_interval=_STORAGE_TIMEOUT,
                maximum_attempts=attempts,
            ),
            summary=self._input.name,
        )
        return answer
