"""The key set of payloads: which key stands in what Temporal keeps, how another becomes active, when one may go."""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import DeleteWorkflowExecutionRequest
from temporalio.client import Client, Schedule, ScheduleActionStartWorkflow, ScheduleSpec

from integration_service.cli.payload_keys import (
    activate_payload_key,
    add_payload_key,
    payload_rows,
    retire_payload_key,
)
from integration_service.cli.session import Session
from integration_service.contracts.errors import IntegrationError
from integration_service.devstack.stack import Stack
from integration_service.plugin import IntegrationClientPlugin
from integration_service.settings import Settings
from integration_service.storage.vault.key_file import KeyringFile
from integration_service.storage.vault.keyring import KeyRef, generate_keyring_file
from tests.acceptance.test_cli_keys import run
from tests.waiting import eventually


@pytest.fixture
def session(stack: Stack, tmp_path: Path) -> Session:
    """As a command has it that holds a key set of its own."""
    path = tmp_path / "payload-keyring.json"
    generate_keyring_file(path)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("INTEGRATIONS_")},
        "INTEGRATIONS_DATABASE_URL": stack.ready.database,
        "INTEGRATIONS_KEYRING": stack.environment["INTEGRATIONS_KEYRING"],
        "INTEGRATIONS_PAYLOAD_KEYRING": str(path),
        "INTEGRATIONS_PAYLOAD_ENCRYPTION": "on",
        "TEMPORAL_ADDRESS": stack.ready.temporal,
    }
    return Session(Settings.from_environment(environment), environment, as_json=True)


async def _speaker(session: Session) -> Client:
    return await Client.connect(
        session.environment["TEMPORAL_ADDRESS"], plugins=[IntegrationClientPlugin(session.settings)]
    )


def _path(session: Session) -> Path:
    return Path(session.settings.payload_keyring)


async def test_a_key_goes_when_nothing_that_temporal_keeps_is_under_it(session: Session) -> None:
    old = KeyringFile.open(_path(session)).active
    new, name = KeyRef(old.key_id, 2), f"payload-keys-{uuid.uuid4().hex[:8]}"
    client = await _speaker(session)
    # Nobody serves this queue: what is kept are the inputs.
    await client.start_workflow("Nobody", {"a": "planted"}, id=name, task_queue=name)
    schedule = await client.create_schedule(
        name,
        Schedule(action=ScheduleActionStartWorkflow("Nobody", {"a": 1}, id=name, task_queue=name), spec=ScheduleSpec()),
    )

    async def histories(ref: KeyRef) -> int:
        rows = {row["key"]: row for row in await payload_rows(session, at_most=5_000)}
        return int(rows[str(ref)]["histories"])

    async def both() -> bool:
        return await histories(old) == 2

    await eventually(both)
    assert add_payload_key(session) == new
    activate_payload_key(session, new)
    # The process that encrypted before takes the new key with its next payload.
    later = await client.start_workflow("Nobody", {"a": "planted"}, id=f"{name}-later", task_queue=name)
    [event] = (await later.fetch_history()).events[:1]
    [sent] = event.workflow_execution_started_event_attributes.input.payloads
    assert sent.metadata["encryption-key-version"] == b"2"

    with pytest.raises(IntegrationError, match=f"the first found in schedule {name}"):
        await retire_payload_key(session, old)
    await schedule.delete()

    async def is_refused_for(text: str) -> bool:
        try:
            await retire_payload_key(session, old)
        except IntegrationError as error:
            return text in error.message
        raise AssertionError("it went although it is needed")

    await eventually(lambda: is_refused_for(f"the first found in workflow {name}"))
    code, out, err = await run(dict(session.environment), "status", "--json", "--histories", "5000")
    assert code == 0, err
    rows = {row["key"]: row for row in json.loads(out)}
    assert {
        key: (row["active"], row["held"], row["histories"]) for key, row in rows.items() if row["set"] == "payloads"
    } == {
        str(old): (False, True, 1),
        str(new): (True, True, 1),
    }
    assert {row["set"] for row in rows.values()} >= {"keyring", "payloads"}
    for one in (name, f"{name}-later"):
        await client.workflow_service.delete_workflow_execution(
            DeleteWorkflowExecutionRequest(
                namespace=client.namespace, workflow_execution=WorkflowExecution(workflow_id=one)
            )
        )

    async def nothing() -> bool:
        return await histories(old) == 0

    await eventually(nothing)
    code, out, err = await run(dict(session.environment), "retire", str(old))
    assert (code, out) == (0, f"retired: {old}\n"), err
    assert "other namespaces, standalone activities and exported histories were not looked at" in err
    assert KeyringFile.open(_path(session)).refs == (new,)
    with pytest.raises(IntegrationError, match="active payload key"):
        await retire_payload_key(session, new)


async def test_a_payload_key_is_used_only_after_everybody_can_hold_it(session: Session) -> None:
    with pytest.raises(IntegrationError, match="keys add --payloads"):
        activate_payload_key(session, None)
    with pytest.raises(IntegrationError, match="holds no key"):
        activate_payload_key(session, KeyRef("kek-none", 7))


async def test_an_inline_set_is_its_owners_to_change(session: Session) -> None:
    inline = replace(
        session,
        settings=session.settings.model_copy(update={"payload_keyring": _path(session).read_text()}),
    )
    active = KeyringFile.open(_path(session)).active
    for change in (lambda: add_payload_key(inline), lambda: activate_payload_key(inline, active)):
        with pytest.raises(IntegrationError, match="is inline"):
            change()
    with pytest.raises(IntegrationError, match="is inline"):
        await retire_payload_key(inline, active)


async def test_without_temporal_keys_are_shown_and_not_counted(
    session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    away = replace(session, environment={**session.environment, "TEMPORAL_ADDRESS": "127.0.0.1:1"})
    [row] = await payload_rows(away, at_most=10)
    assert (row["active"], row["held"], row["histories"]) == (True, True, None)
    assert "payload keys are not counted: no Temporal answers" in capsys.readouterr().err
    made = add_payload_key(away)
    with pytest.raises(IntegrationError, match="no Temporal answers"):
        await retire_payload_key(away, made)
    assert made in KeyringFile.open(_path(away)).refs
