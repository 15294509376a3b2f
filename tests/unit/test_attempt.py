"""Who asks: the default idempotency key of each way to call, and which tries count."""

from __future__ import annotations

import dataclasses
import uuid
from typing import Any

import pytest
from temporalio.testing import ActivityEnvironment

from integration_service.activities.execution.attempt import Attempt
from integration_service.contracts.calls import Continuation

_KEYS = uuid.UUID("8f6b1d5e-3a52-4f0e-9d39-6a1f3a2f7c10")
"""Never to change: a call that is under way would send another key after the deployment."""
_WORKFLOW = {"namespace": "n", "workflow_id": "w", "workflow_run_id": "r", "activity_id": "a", "activity_run_id": None}
_STANDALONE = {"workflow_id": None, "workflow_run_id": None, "activity_id": "a", "activity_run_id": "ar"}


async def current(continuation: Continuation | None = None, **info: Any) -> Attempt:
    environment = ActivityEnvironment()
    environment.info = dataclasses.replace(ActivityEnvironment.default_info(), **info)

    async def read() -> Attempt:
        return Attempt.current(continuation)

    return await environment.run(read)


@pytest.mark.parametrize(
    ("info", "parts"), [(_WORKFLOW, "n/w/r/a"), (_STANDALONE, "a/ar")], ids=["of a workflow", "standalone"]
)
async def test_a_direct_callers_key_is_of_its_execution_at_every_attempt(info: dict[str, Any], parts: str) -> None:
    attempts = [await current(**info, attempt=number) for number in (1, 2)]
    assert {one.execution_key for one in attempts} == {str(uuid.uuid5(_KEYS, parts))}
    assert [(one.number, one.tries, one.parks) for one in attempts] == [(1, 1, False), (2, 2, False)]


async def test_execute_method_brings_its_key_and_what_was_spent() -> None:
    key = str(uuid.uuid4())
    attempt = await current(Continuation(execution_key=key, tries_spent=2), **_WORKFLOW, attempt=1)
    assert (attempt.execution_key, attempt.number, attempt.tries, attempt.parks) == (key, 3, 3, True)


async def test_a_direct_callers_throttles_are_no_tries() -> None:
    attempt = await current(**_WORKFLOW, attempt=4, heartbeat_details=[2, True])
    assert (attempt.number, attempt.tries, attempt.throttles, attempt.reserved) == (4, 2, 2, True)
