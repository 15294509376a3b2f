"""A worker registers our search attributes where a namespace lacks them."""

from __future__ import annotations

import uuid

from google.protobuf.duration_pb2 import Duration
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.api.workflowservice.v1 import RegisterNamespaceRequest
from temporalio.client import Client

from integration_service.devstack.stack import Stack
from integration_service.plugin import _ensure_search_attributes


async def _known(client: Client) -> dict[str, int]:
    asked = ListSearchAttributesRequest(namespace=client.namespace)
    found = await client.operator_service.list_search_attributes(asked)
    return dict(found.custom_attributes)


async def test_what_a_namespace_lacks_is_registered_once(stack: Stack, temporal: Client) -> None:
    namespace = f"n{uuid.uuid4().hex[:8]}"
    day = Duration(seconds=86_400)
    await temporal.workflow_service.register_namespace(
        RegisterNamespaceRequest(namespace=namespace, workflow_execution_retention_period=day)
    )
    client = await Client.connect(stack.ready.temporal, namespace=namespace)
    assert await _known(client) == {}
    for _ in range(2):
        await _ensure_search_attributes(client)
        assert await _known(client) == dict.fromkeys(
            ("IntegrationDefinition", "IntegrationInstance", "IntegrationStatus", "IntegrationMethod"),
            IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
        )
