"""JSON Schemas: nothing fetched, nothing slow, nothing quoted."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from integration_service.activities.schemas import Schema
from integration_service.contracts.errors import ErrorCode, IntegrationError

MARKER = "planted-value-3d"


def check(schema: Any, value: Any) -> None:
    Schema(schema, at="paramSchema").check(value, at="params", code=ErrorCode.VALIDATION_ERROR, what="params")


def broken(schema: Any, value: Any) -> IntegrationError:
    with pytest.raises(IntegrationError) as error:
        check(schema, value)
    return error.value


@pytest.mark.parametrize(
    "reference",
    [
        "http://127.0.0.1:1/x",
        "https://example.com/s.json",
        "file:///etc/passwd",
        "other.json",
        "/etc/passwd",
        "urn:x:y",
    ],
)
@pytest.mark.parametrize("key", ["$ref", "$dynamicRef"])
def test_a_reference_out_of_the_schema_is_refused_when_it_is_compiled(reference: str, key: str) -> None:
    with pytest.raises(IntegrationError) as refused:
        Schema({"properties": {"a": {key: reference}}}, at="paramSchema")
    assert refused.value.code == ErrorCode.VALIDATION_ERROR
    assert (refused.value.path or "").startswith("paramSchema")


def test_a_file_beside_is_not_read_either(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('{"type": "string"}')
    with pytest.raises(IntegrationError):
        Schema({"$ref": (tmp_path / "s.json").as_uri()}, at="paramSchema")


async def test_no_connection_is_made_for_a_reference() -> None:
    connections: list[object] = []
    server = await asyncio.start_server(lambda *pair: connections.append(pair), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        for schema in ({"$ref": f"http://127.0.0.1:{port}/x"}, {"$schema": f"http://127.0.0.1:{port}/meta"}):
            with pytest.raises(IntegrationError):
                await asyncio.to_thread(Schema, schema, at="paramSchema")
    assert connections == []


def test_references_within_the_schema_work() -> None:
    schema = {"$defs": {"n": {"type": "integer"}}, "properties": {"a": {"$ref": "#/$defs/n"}}}
    check(schema, {"a": 1})
    assert broken(schema, {"a": "x"}).path == "params.a"


@pytest.mark.parametrize("pattern", ["^(a+)+$", "^(a|aa)+$", "^(a*)*b$", "(x+x+)+y", "^([a-z]+)*$"])
def test_a_catastrophic_pattern_is_fast(pattern: str) -> None:
    started = time.perf_counter()
    broken({"pattern": f"{pattern}"}, "a" * 30_000 + "!" if "x" not in pattern else "x" * 5_000)
    assert time.perf_counter() - started < 3


@pytest.mark.parametrize(
    "schema", [{"type": "nothing"}, {"required": "a"}, {"pattern": "("}, {"minimum": "x"}, {"properties": []}]
)
def test_what_is_no_schema_is_refused_with_its_place(schema: Any) -> None:
    with pytest.raises(IntegrationError) as refused:
        Schema(schema, at="methods[3].resultSchema")
    assert refused.value.code == ErrorCode.VALIDATION_ERROR
    assert (refused.value.path or "").startswith("methods[3].resultSchema")


@pytest.mark.parametrize(
    ("schema", "value", "path", "rule"),
    [
        ({"type": "string"}, 1, "params", "type"),
        ({"properties": {"a": {"items": {"type": "string"}}}}, {"a": ["x", 1]}, "params.a[1]", "type"),
        ({"required": ["a"]}, {}, "params.a", "required"),
        ({"properties": {"a": {"required": ["b"]}}}, {"a": {}}, "params.a.b", "required"),
        ({"properties": {"b": {}}, "additionalProperties": False}, {"a": 1}, "params.a", "additionalProperties"),
        ({"properties": {"a": {"format": "email"}}}, {"a": MARKER}, "params.a", "format"),
        ({"properties": {"a": {"enum": [1]}}}, {"a": MARKER}, "params.a", "enum"),
        ({"properties": {"a": {"pattern": "^x$"}}}, {"a": MARKER}, "params.a", "pattern"),
        ({"properties": {"a": {"maxLength": 3}}}, {"a": MARKER}, "params.a", "maxLength"),
        ({"properties": {"a": {"const": 1}}}, {"a": MARKER}, "params.a", "const"),
        ({"properties": {"a": {"anyOf": [{"type": "null"}]}}}, {"a": MARKER}, "params.a", "anyOf"),
        (False, {"a": MARKER}, "params", "falseSchema"),
    ],
)
def test_a_failure_names_path_and_rule_and_no_value(schema: Any, value: Any, path: str, rule: str) -> None:
    error = broken(schema, value)
    assert (error.path, error.details["errors"][0]["rule"]) == (path, rule)
    assert MARKER not in f"{error} {error.details}"


def test_true_takes_anything() -> None:
    for value in (None, 1, "x", [], {"a": None}):
        check(True, value)


def test_at_most_ten_errors_are_listed() -> None:
    error = broken({"items": {"type": "string"}}, list(range(1000)))
    assert 1 < len(error.details["errors"]) <= 10


def test_a_wrong_result_has_the_code_it_is_asked_for() -> None:
    with pytest.raises(IntegrationError) as error:
        Schema({"type": "object"}, at="resultSchema").check(
            [MARKER], at="data", code=ErrorCode.RESULT_VALIDATION_ERROR, what="the result"
        )
    assert (error.value.code, error.value.path) == ("RESULT_VALIDATION_ERROR", "data")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.just(MARKER),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
STRICT = {
    "type": "object",
    "properties": {"a": {"type": "integer", "maximum": 5}, "b": {"type": "array", "items": {"enum": ["x"]}}},
    "required": ["c"],
    "additionalProperties": {"minLength": 100, "type": "string"},
}


@given(JSON)
@settings(max_examples=150)
def test_no_value_is_ever_quoted(value: Any) -> None:
    said = ""
    try:
        check(STRICT, value)
    except IntegrationError as error:
        said = f"{error} {error.details}"
    assert MARKER not in said


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400])
def test_what_only_pythons_json_reads_is_accepted_or_refused_but_breaks_nothing(value: Any) -> None:
    for schema in (True, {"type": ["string", "number", "object"], "maxLength": 5, "maximum": 5, "maxProperties": 2}):
        code = None
        try:
            check(schema, value)
        except IntegrationError as error:
            code = error.code
        assert code in (None, ErrorCode.VALIDATION_ERROR)
