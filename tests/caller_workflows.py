"""Workflows of another service: sandboxed, with Temporal's own converter, and nothing of ours passed through."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from temporalio import workflow

from integration_service.contracts.calls import MethodCall
from integration_service.contracts.nexus import NEXUS_ENDPOINT, NEXUS_SERVICE
from integration_service.contracts.wire import JsonObject, parse
from integration_service.workflows import calling


@workflow.defn
class Calls:
    """Calls a method one way or another."""

    @workflow.run
    async def run(self, way: str, definition: str, wanted: JsonObject) -> JsonObject:
        call = parse(MethodCall, wanted)
        try:
            if way == "child":
                result = await calling.execute_method(call)
            elif way == "activity":
                result = await calling.execute_activity(definition, call)
            else:
                result = await calling.execute_over_nexus(call)
        except calling.MethodFailed as failure:
            if failure.code == "HTTP_404":
                return {"caught": failure.code, "path": failure.error.path}
            raise
        return result.to_wire()


@workflow.defn
class Asks:
    """Sends one operation of the Nexus service."""

    @workflow.run
    async def run(self, operation: str, wanted: Any) -> Any:
        client = workflow.create_nexus_client(service=NEXUS_SERVICE, endpoint=NEXUS_ENDPOINT)
        return await client.execute_operation(
            operation, wanted, output_type=dict, schedule_to_close_timeout=timedelta(seconds=30)
        )
