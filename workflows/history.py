"""Keeping histories short: when a run is long enough, and how the next one is started."""

from __future__ import annotations

from typing import Any, NoReturn

from temporalio import workflow
from temporalio.common import RawValue

with workflow.unsafe.imports_passed_through():
    from integration_service.contracts.errors import ErrorCode, IntegrationError
    from integration_service.contracts.wire import JsonObject, WireModel

MAX_EVENTS = 1_000
"""Half of what a history may have: handlers that run to their end add to it."""


def is_long() -> bool:
    """Whether this run should hand on to the next."""
    info = workflow.info()
    return info.is_continue_as_new_suggested() or info.get_current_history_length() > MAX_EVENTS


def hand_on(wanted: WireModel | JsonObject, state: WireModel) -> NoReturn:
    """Continue as new with the workflow's input and its state; the caller has waited for its handlers.

    Search attributes stay by themselves; a memo is passed on, payloads as they are, since they are not ours to read.
    """
    memo = {name: RawValue(payload) for name, payload in workflow.info().raw_memo.items()}
    workflow.continue_as_new({"wanted": wanted, "state": state}, memo=memo or None)


def handed_on(given: Any) -> tuple[Any, Any]:
    """What `hand_on` gave, as (wanted, state); state is None in a first run.

    A run that a retry policy or a schedule of its starter began continues another too, and has the starter's input.
    """
    if workflow.info().continued_run_id is None or not isinstance(given, dict) or "state" not in given:
        return given, None
    if given.keys() != {"wanted", "state"}:
        raise IntegrationError(ErrorCode.VALIDATION_ERROR, "what the run before handed on cannot be read")
    return given["wanted"], given["state"]
