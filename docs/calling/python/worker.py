"""Runs both workflows once, on a worker of its own."""

import asyncio
import os
import uuid

from report_workflow import Report
from temporalio.client import Client
from temporalio.worker import Worker
from typed_workflow import TypedReport


async def main() -> None:
    client = await Client.connect(os.environ.get("TEMPORAL_ADDRESS", "127.0.0.1:7233"))
    async with Worker(client, task_queue="reports", workflows=[Report, TypedReport]):
        for workflow in (Report.run, TypedReport.run):
            print(
                await client.execute_workflow(
                    workflow, "my temporal", id=f"report-{uuid.uuid4()}", task_queue="reports"
                )
            )
    await asyncio.sleep(0.5)  # the SDK's threads may crash an interpreter that ends right after a call


asyncio.run(main())
