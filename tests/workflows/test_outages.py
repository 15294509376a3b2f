"""A call meets a database that is away: it waits on a timer and goes on, whichever of its steps met it."""

from __future__ import annotations

import uuid

import pytest
from temporalio.client import Client
from temporalio.worker import Worker

from integration_service.client import Integrations
from integration_service.contracts.calls import MethodCall
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.workflows.execute_method import ExecuteMethod
from tests.call_stand_in import CallStandIn


def away() -> IntegrationError:
    return IntegrationError(ErrorCode.UNAVAILABLE, "the database does not answer")


@pytest.mark.slow
async def test_no_step_of_a_call_fails_for_an_outage(temporal: Client) -> None:
    queue, service = f"outages-{uuid.uuid4().hex[:8]}", CallStandIn()
    service.connected = True
    unauthorised = IntegrationError(ErrorCode.REAUTH_REQUIRED, "somebody must authorise it")
    service.trouble = {"resolve": [away()], "park": [away()], "run": [away(), unauthorised]}
    call = MethodCall(instance_id=service.instance_id, method="get", on_auth_error="wait")
    async with Worker(temporal, task_queue=queue, workflows=[ExecuteMethod], activities=service.activities):
        result = await Integrations(temporal, task_queue=queue).call(call)
    assert result.status_code == 200
    assert service.asked == {"resolve": 2, "park": 2, "run": 3}
