"""The gateway's way to the workflows that own the instances."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from temporalio.client import Client, RPCTimeoutOrCancelledError, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DataConverter
from temporalio.envconfig import ClientConnectConfig
from temporalio.service import RPCError, RPCStatusCode

from integration_service.contracts.errors import ErrorCode, IntegrationError, from_failure
from integration_service.contracts.names import connection_workflow_id
from integration_service.contracts.wire import JsonObject

COMPLETE_WITHIN = timedelta(seconds=60)
_log = logging.getLogger(__name__)


class TemporalDown(Exception):
    """Temporal does not answer: nothing was sent."""


class TooLong(Exception):
    """No answer in time; the workflow may be at it still."""


class Connections:
    """Sends updates to `ConnectInstance`. Connects with the first of them, so that the gateway starts without
    Temporal and outlives it."""

    def __init__(
        self,
        config: ClientConnectConfig,
        *,
        converter: DataConverter = pydantic_data_converter,
        within: timedelta = COMPLETE_WITHIN,
    ) -> None:
        self._config = config
        self._converter = converter
        self._within = within
        self._client: Client | None = None

    async def open(self) -> None:
        """Before the first update. Connects nothing."""
        self._client = await Client.connect(**self._config, lazy=True, data_converter=self._converter)

    async def complete(self, instance_id: str, message: JsonObject) -> JsonObject:
        """Update `complete_authorization`; returns the status object. Raises as `update` does."""
        return await self.update(instance_id, "complete_authorization", message)

    async def update(self, instance_id: str, name: str, message: JsonObject) -> JsonObject:
        """An update by name; returns its answer. No plaintext secret may stand in `message`.

        Raises IntegrationError where the workflow refuses or is not there, TemporalDown and TooLong.
        """
        async with self._asking():
            answer: JsonObject = await self._handle(instance_id).execute_update(name, message, result_type=dict)
        return answer

    async def status(self, instance_id: str) -> JsonObject:
        """Query `status`: the status object. Raises as `update` does."""
        async with self._asking():
            found: JsonObject = await self._handle(instance_id).query("status", result_type=dict)
        return found

    async def answers(self, within: timedelta = timedelta(seconds=3)) -> bool:
        """Whether Temporal serves."""
        if self._client is None:
            return False
        try:
            async with asyncio.timeout(within.total_seconds()):
                return await self._client.service_client.check_health()
        except (TimeoutError, RPCError, RuntimeError):
            return False

    def _handle(self, instance_id: str) -> WorkflowHandle[Any, Any]:
        if self._client is None:
            raise RuntimeError("not opened")
        return self._client.get_workflow_handle(connection_workflow_id(instance_id))

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._within.total_seconds()):
                yield
        except WorkflowUpdateFailedError as error:
            raise from_failure(error.cause) or IntegrationError(
                ErrorCode.UNAVAILABLE, "the connection could not be changed"
            ) from error
        except (TimeoutError, RPCTimeoutOrCancelledError) as error:
            raise TooLong from error
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                raise IntegrationError(
                    ErrorCode.INSTANCE_NOT_FOUND, "no workflow owns that instance", path="instanceId"
                ) from error
            _log.warning("Temporal answered %s", error.status.name)
            raise TemporalDown from error
        except RuntimeError as error:
            # What the SDK raises where the first connection cannot be made.
            _log.warning("no Temporal answers at %s", self._config.get("target_host"))
            raise TemporalDown from error
