"""A call meets a database that is away: it waits on a timer and goes on, whichever of its steps met it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import Client
from temporalio.common import RawValue
from temporalio.worker import Worker

from integration_service.client import Integrations
from integration_service.contracts.calls import Continuation, MethodCall, MethodResult, Park, Parked, ResolvedMethod
from integration_service.contracts.errors import ErrorCode, IntegrationError, to_application_error
from integration_service.contracts.retry import DEFAULT_RETRY
from integration_service.workflows.execute_method import ExecuteMethod

_INSTANCE = str(uuid.uuid4())


class _Away:
    """Activities whose database is away when each first asks it."""

    def __init__(self) -> None:
        self.asked = {"resolve": 0, "park": 0, "method": 0}

    def _ask(self, who: str) -> None:
        self.asked[who] += 1
        if self.asked[who] == 1:
            raise to_application_error(IntegrationError(ErrorCode.UNAVAILABLE, "the database does not answer"))

    @activity.defn(name="resolve")
    async def resolve(self, _call: MethodCall, _continuation: Continuation) -> ResolvedMethod:
        self._ask("resolve")
        return ResolvedMethod(
            instance_id=_INSTANCE,
            definition="d",
            definition_version="1.0.0",
            method="get",
            retry=DEFAULT_RETRY,
            timeout_ms=1_000,
        )

    @activity.defn(name="park")
    async def park(self, _wanted: Park) -> Parked:
        self._ask("park")
        return Parked(connected=True, generation=2)

    @activity.defn(dynamic=True)
    async def method(self, _arguments: Sequence[RawValue]) -> MethodResult:
        self._ask("method")
        if self.asked["method"] == 2:
            raise to_application_error(IntegrationError(ErrorCode.REAUTH_REQUIRED, "somebody must authorise it"))
        return MethodResult(
            data={},
            status_code=200,
            cached=False,
            attempts=1,
            duration_ms=1,
            definition="d",
            definition_version="1.0.0",
        )

    @property
    def all(self) -> list[Callable[..., Any]]:
        return [self.resolve, self.park, self.method]


@pytest.mark.slow
async def test_no_step_of_a_call_fails_for_an_outage(temporal: Client) -> None:
    queue, away = f"outages-{uuid.uuid4().hex[:8]}", _Away()
    call = MethodCall(instance_id=_INSTANCE, method="get", on_auth_error="wait")
    async with Worker(temporal, task_queue=queue, workflows=[ExecuteMethod], activities=away.all):
        result = await Integrations(temporal, task_queue=queue).call(call)
    assert result.status_code == 200
    assert away.asked == {"resolve": 2, "park": 2, "method": 3}
