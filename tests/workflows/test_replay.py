"""Every workflow replays: the histories of released versions, and those that this run has just made."""

from __future__ import annotations

import base64
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from integration_service.contracts.calls import MethodCall, MethodResult
from integration_service.contracts.names import connection_workflow_id, refresh_workflow_id
from integration_service.contracts.wire import JsonObject
from integration_service.plugin import IntegrationPlugin
from integration_service.storage.vault.keyring import Keyring
from tests.identity import identity_provider
from tests.oauth_setting import Setting
from tests.upstream import json_answer
from tests.waiting import eventually
from tests.world import World, definition_file, method

_STORED = sorted((Path(__file__).parent.parent / "histories").glob("*.json"))


# Names of secrets in token requests and answers, a JSON Web Token, folders, a trace.
_TELLTALE = re.compile(
    r"access_?token|refresh_?token\"|client_?secret|password|code_verifier|\beyJ[\w-]+\.eyJ|Bearer |"
    r"/(?:home|root|tmp|Users|work)/|site-packages|Traceback",
    re.IGNORECASE,
)


def _replayer() -> Replayer:
    return Replayer(workflows=[], plugins=[IntegrationPlugin()])


@pytest.mark.parametrize("path", _STORED, ids=lambda path: path.stem)
async def test_a_stored_history_replays(path: Path) -> None:
    """With no database, no keyring and no settings: a Replayer needs none."""
    stored = json.loads(path.read_text())
    await _replayer().replay_workflow(WorkflowHistory.from_json(stored["workflowId"], stored["history"]))


def test_there_is_a_stored_history_of_every_workflow() -> None:
    assert {path.stem.split("-")[0] for path in _STORED} == {
        "ConnectInstance",
        "DeliverEvents",
        "ExecuteMethod",
        "MaintainStorage",
        "RefreshOAuth",
        "RotateKeys",
    }


@pytest.mark.parametrize("path", _STORED, ids=lambda path: path.stem)
def test_a_stored_history_tells_no_secret_and_no_folder(path: Path) -> None:
    for text in _texts(json.loads(path.read_text())):
        assert not _TELLTALE.search(text), text


async def test_new_histories_replay(world: World, name: str) -> None:
    world.upstream.answers = [
        json_answer({}, 503),
        json_answer({}, 429, Retry_After="1"),
        json_answer({"id": 1}),
    ]
    await world.publish(definition_file(name))
    instance = await world.connect(name, config={})
    await world.connection(instance).configure({"url": world.upstream.url})
    await world.integrations.call(_call(instance), workflow_id=f"{name}-call")
    await world.connection(instance).update("disconnect")
    await world.connection(instance).update("delete")
    await _replay(world, "ExecuteMethod-retry-throttle", f"{name}-call")
    await _replay(world, "ConnectInstance-configure-delete", connection_workflow_id(instance["id"]))


async def test_a_cached_call_is_one_workflow_task_and_replays(world: World, name: str) -> None:
    world.upstream.answers = [json_answer({"id": 1})]
    instance = await world.instance(
        definition_file(name, methods=[method("get", "GET", "/things/{id}", cache={"ttlMs": 60_000})])
    )
    await world.integrations.call(_call(instance))
    await world.integrations.call(_call(instance), workflow_id=f"{name}-cached")
    history = await world.temporal.get_workflow_handle(f"{name}-cached").fetch_history()
    kinds = [event.WhichOneof("attributes") for event in history.events]
    assert "activity_task_scheduled_event_attributes" not in kinds
    assert kinds.count("workflow_task_completed_event_attributes") == 1
    await _replay(world, "ExecuteMethod-cached", f"{name}-cached")


async def test_a_planned_call_replays_whether_its_plan_is_right_or_late(world: World, name: str) -> None:
    instance = await world.instance(definition_file(name))
    wanted = await world.temporal.execute_workflow(
        "ExecuteMethod",
        _call(instance).model_copy(update={"plan": "wanted"}).to_wire(),
        id=f"{name}-wanted",
        task_queue="integrations",
        result_type=MethodResult,
    )
    planned = _call(instance).model_copy(update={"plan": wanted.plan})
    await world.integrations.call(planned, workflow_id=f"{name}-planned")
    await world.publish(definition_file(name, version="2.0.0"))
    await world.connection(instance).upgrade("2.0.0")
    await world.integrations.call(planned, workflow_id=f"{name}-late")
    await _replay(world, "ExecuteMethod-planned", f"{name}-planned")
    await _replay(world, "ExecuteMethod-planned-late", f"{name}-late")


@pytest.mark.slow
async def test_new_histories_of_oauth_replay(world: World, name: str, keyring: Keyring) -> None:
    """Authorise, call, refresh by hand, meet trouble, lose the grant, wait parked, authorise again, delete."""
    with tempfile.TemporaryDirectory(prefix="integrations-idp-") as folder:
        async with identity_provider(Path(folder) / "idp") as identity:
            setting = Setting(world, identity, keyring, name)
            instance = await setting.connected()
            identity.fault("status", status=500, body="<html>")
            await world.integrations.refresh(instance["id"])
            await world.integrations.refresh(instance["id"])
            await setting.revoke_elsewhere(instance)
            call = MethodCall(instance_id=instance["id"], method="whoami", on_auth_error="wait")
            await world.integrations.start_call(call, workflow_id=f"{name}-parked")
            await eventually(lambda: _is_lost(world, instance))
            await setting.authorized(instance)
            await world.temporal.get_workflow_handle(f"{name}-parked").result()
            await world.connection(instance).update("delete")
            await world.temporal.get_workflow_handle(refresh_workflow_id(instance["id"])).result()
    await _replay(world, "ExecuteMethod-parked", f"{name}-parked")
    await _replay(world, "ConnectInstance-oauth", connection_workflow_id(instance["id"]))
    await _replay(world, "RefreshOAuth-trouble-revoked", refresh_workflow_id(instance["id"]))


async def _is_lost(world: World, instance: JsonObject) -> bool:
    return (await world.connection(instance).status())["status"] == "AUTH_ERROR"


async def _replay(world: World, kind: str, workflow_id: str) -> None:
    history = await world.temporal.get_workflow_handle(workflow_id).fetch_history()
    await _replayer().replay_workflow(history)
    if folder := os.environ.get("STORE_HISTORIES"):
        stored = {"workflowId": workflow_id, "history": _without_traces(history.to_json_dict())}
        (Path(folder) / f"{kind}.json").write_text(json.dumps(stored, indent=1) + "\n")


def _without_traces(value: Any) -> Any:
    """Stack traces name the folders of the machine that made them."""
    if isinstance(value, dict):
        return {key: _without_traces(item) for key, item in value.items() if key != "stackTrace"}
    return [_without_traces(item) for item in value] if isinstance(value, list) else value


def _texts(value: Any) -> Iterator[str]:
    """All text of a history, payloads decoded."""
    match value:
        case str():
            yield value
        case list():
            for item in value:
                yield from _texts(item)
        case dict():
            for key, item in value.items():
                yield from _texts(base64.b64decode(item).decode() if key == "data" and isinstance(item, str) else item)


def _call(instance: JsonObject) -> MethodCall:
    return MethodCall(instance_id=instance["id"], method="get", params={"id": 1})
