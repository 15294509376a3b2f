"""Calls a method from a program. Nothing of ours is installed, only `temporalio`."""

import asyncio
import os
import uuid
from datetime import timedelta
from typing import Any

from temporalio.client import ActivityFailureError, Client, WorkflowFailureError
from temporalio.exceptions import ApplicationError

CALL = {"instanceId": "my temporal", "method": "list_workflows", "params": {"pageSize": 5}}


def failure_of(error: BaseException | None) -> dict[str, Any]:
    """The first application failure in the cause chain: code, message, retryable, details."""
    while error is not None:
        if isinstance(error, ApplicationError) and error.details:
            failure: dict[str, Any] = error.details[0]
            return failure
        error = error.__cause__
    return {"code": "UNAVAILABLE", "message": "it ended without a result", "retryable": True, "details": {}}


async def main() -> None:
    client = await Client.connect(os.environ.get("TEMPORAL_ADDRESS", "127.0.0.1:7233"))

    # Start it, do something else, read the result.
    handle = await client.start_workflow(
        "ExecuteMethod", CALL, id=f"report-{uuid.uuid4()}", task_queue="integrations", result_type=dict
    )
    result = await handle.result()
    print("workflow", result["statusCode"], result["definition"])

    # Handle an error by its code.
    wrong = {**CALL, "params": {"pageSize": "five"}}
    try:
        await client.execute_workflow("ExecuteMethod", wrong, id=f"report-{uuid.uuid4()}", task_queue="integrations")
    except WorkflowFailureError as error:
        failure = failure_of(error)
        if failure["code"] != "VALIDATION_ERROR":
            raise
        print("refused", failure["details"]["path"])

    # Without a workflow: the method as a standalone activity.
    try:
        result = await client.execute_activity(
            "temporal.list_workflows",
            CALL,
            id=f"report-{uuid.uuid4()}",
            task_queue="integrations",
            start_to_close_timeout=timedelta(seconds=45),
            schedule_to_close_timeout=timedelta(minutes=5),
            heartbeat_timeout=timedelta(seconds=10),
            result_type=dict,
        )
        print("activity", result["statusCode"])
    except ActivityFailureError as error:
        print("failed", failure_of(error)["code"])

    await asyncio.sleep(0.5)  # the SDK's threads may crash an interpreter that ends right after a call


asyncio.run(main())
