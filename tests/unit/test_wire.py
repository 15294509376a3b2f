"""How values look on the wire, and that refusals quote nothing."""

from __future__ import annotations

import json
import uuid
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from integration_service.contracts.calls import Continuation, MethodCall, MethodResult
from integration_service.contracts.definitions import DefinitionFile, IntegrationDefinition
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.instances import ConnectInstanceInput
from integration_service.contracts.wire import format_time, parse
from tests.unit.test_definitions import DEFINITION
from tests.world import definition_file

RFC3339_MS = r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z"


@given(st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)), st.integers(-14 * 60, 14 * 60))  # noqa: DTZ001
@settings(max_examples=100)
def test_a_time_is_utc_with_three_digits_and_a_z(naive: datetime, offset: int) -> None:
    moment = naive.replace(tzinfo=timezone(timedelta(minutes=offset)))
    text = format_time(moment)
    assert text.endswith("Z")
    assert len(text) == len("2026-01-02T03:04:05.678Z")
    assert abs(datetime.fromisoformat(text) - moment) < timedelta(milliseconds=1)


@pytest.mark.parametrize(
    ("given_", "shown"),
    [
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05.000Z"),
        ("2026-01-02T05:04:05.5+02:00", "2026-01-02T03:04:05.500Z"),
        ("2026-01-02T03:04:05.678901Z", "2026-01-02T03:04:05.678Z"),
    ],
)
def test_times_come_back_in_one_spelling(given_: str, shown: str) -> None:
    assert parse(IntegrationDefinition, {**DEFINITION, "createdAt": given_}).to_wire()["createdAt"] == shown


def test_a_time_without_an_offset_is_refused() -> None:
    with pytest.raises(IntegrationError) as refused:
        parse(IntegrationDefinition, {**DEFINITION, "createdAt": "2026-01-02T03:04:05"})
    assert refused.value.path == "createdAt"


def test_a_naive_datetime_is_refused() -> None:
    with pytest.raises(IntegrationError):
        parse(IntegrationDefinition, {**DEFINITION, "createdAt": datetime(2026, 1, 1)})  # noqa: DTZ001


def test_absent_fields_are_left_out() -> None:
    wire = parse(DefinitionFile, definition_file("t")).to_wire()
    assert not {"title", "oauth2Config", "defaultConfig", "connectionTest"} & set(wire)
    assert None not in wire.values()


def test_a_results_data_stands_even_when_it_is_null() -> None:
    wire = MethodResult(
        data=None, status_code=204, attempts=1, duration_ms=3, definition="t", definition_version="1.0.0"
    ).to_wire()
    assert wire == {
        "data": None,
        "statusCode": 204,
        "cached": False,
        "attempts": 1,
        "durationMs": 3,
        "definition": "t",
        "definitionVersion": "1.0.0",
    }


def test_nulls_inside_free_values_are_kept() -> None:
    call = parse(MethodCall, {"instanceId": "x", "method": "m", "params": {"a": None, "b": [None]}})
    assert call.to_wire()["params"] == {"a": None, "b": [None]}


def test_the_defaults_of_a_call_are_the_contracts() -> None:
    assert parse(MethodCall, {"instanceId": "x", "method": "m"}).to_wire() == {
        "instanceId": "x",
        "scope": "global",
        "method": "m",
        "params": {},
        "cache": "use",
        "onAuthError": "fail",
        "deadlineMs": 24 * 3600 * 1000,
        "largeResult": "fail",
    }


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("cache", "never"),
        ("onAuthError", "retry"),
        ("largeResult", "stream"),
        ("deadlineMs", 0),
        ("waitTimeoutMs", 0),
        ("idempotencyKey", ""),
        ("idempotencyKey", "a\r\nb"),
        ("idempotencyKey", "a b"),
        ("method", "a.b"),
        ("scope", ""),
        ("params", []),
        ("instanceId", ""),
        ("instanceId", "a\x00b"),
        ("correlationId", "a\x00b"),
    ],
)
def test_a_bad_call_is_refused_at_its_key(key: str, value: Any) -> None:
    with pytest.raises(IntegrationError) as refused:
        parse(MethodCall, {"instanceId": "x", "method": "m", key: value})
    assert refused.value.path == key


@pytest.mark.parametrize("value", [None, [], "text", 5, True])
def test_what_is_no_object_is_refused_in_words(value: Any) -> None:
    with pytest.raises(IntegrationError) as refused:
        parse(MethodCall, value, at="params")
    assert (refused.value.code, refused.value.path) == (ErrorCode.VALIDATION_ERROR, "params")


def test_values_are_frozen() -> None:
    call = parse(MethodCall, {"instanceId": "x", "method": "m"})
    with pytest.raises(ValueError, match="frozen"):
        call.scope = "other"


def places(document: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    found = [path] if path else []
    if isinstance(document, dict):
        for key, value in document.items():
            found += places(value, (*path, key))
    elif isinstance(document, list):
        for index, value in enumerate(document):
            found += places(value, (*path, index))
    return found


def put(document: Any, path: tuple[str | int, ...], value: Any) -> Any:
    changed = json.loads(json.dumps(document))
    place = changed
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    return changed


MARKER = "MARKER-5ac19e"
CONNECT = {
    "instanceId": "2f1f6f0a-0f7c-4b7e-9a43-0d6e6f6f0a11",
    "scope": "s",
    "definition": "d",
    "version": "1.0.0",
    "name": "n",
    "config": {},
}
CALL = {"instanceId": "x", "scope": "s", "method": "m", "params": {}, "cache": "use", "deadlineMs": 5}
CASES = [
    (model, document, path)
    for model, document in ((IntegrationDefinition, DEFINITION), (ConnectInstanceInput, CONNECT), (MethodCall, CALL))
    for path in places(document)
]
VALUES = st.sampled_from(
    [MARKER, f" {MARKER}\n", [MARKER], {"a": MARKER}, [{"b": [MARKER]}], {"$env": [MARKER]}, {"$file": {"a": MARKER}}]
)


@given(st.sampled_from(CASES), VALUES)
@settings(max_examples=400)
def test_a_refusal_never_quotes_a_value(case: tuple[Any, Any, tuple[str | int, ...]], value: Any) -> None:
    model, document, path = case
    said = ""
    try:
        parse(model, put(document, path, value))
    except IntegrationError as refused:
        said = f"{refused} {refused.message} {refused.path} {refused.details} {refused!r} {refused.__cause__}"
    assert MARKER not in said


def test_what_we_answer_is_readable_to_an_older_reader_and_what_we_are_asked_is_read_strictly() -> None:
    """In a rolling deployment a worker of one version reads what one of another wrote."""
    assert parse(Continuation, {"executionKey": str(uuid.UUID(int=1)), "fromTheFuture": 1}).tries_spent == 0
    with pytest.raises(IntegrationError):
        parse(MethodCall, {"instanceId": "x", "fromTheFuture": 1})
