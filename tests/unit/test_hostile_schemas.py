"""Schemas that mean harm, and values that do: refused, or done within their bound, in a process that keeps its size."""

from __future__ import annotations

import ctypes
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from integration_service.activities.schemas import Schema
from integration_service.contracts.errors import ErrorCode, IntegrationError

BOUND_S = 3.0  # on a busy machine
MAX_GROWTH = 64 * 1024 * 1024
LOCAL = "http://127.0.0.1:1/x"
D2019 = "https://json-schema.org/draft/2019-09/schema"
D7 = "http://json-schema.org/draft-07/schema#"


def nest(keyword: str, times: int) -> Any:
    schema: Any = {}
    for _ in range(times):
        schema = {keyword: [schema] if keyword.endswith("Of") or keyword == "prefixItems" else schema}
    return schema


def deep(times: int) -> Any:
    value: Any = 1
    for _ in range(times):
        value = {"a": value}
    return value


def fan(times: int, keyword: str = "anyOf") -> Any:
    defs: dict[str, Any] = {"d0": {"type": "string"}}
    for index in range(1, times):
        defs[f"d{index}"] = {keyword: [{"$ref": f"#/$defs/d{index - 1}"}, {"$ref": f"#/$defs/d{index - 1}"}]}
    return {"$defs": defs, "$ref": f"#/$defs/d{times - 1}"}


def split(keyword: str) -> Any:
    return {keyword: [{"properties": {"a": {"$ref": "#"}}, "required": [name]} for name in "xy"]}


REFUSED: list[Any] = [
    # references out of the schema
    {"$ref": LOCAL},
    {"$ref": "HTTP://127.0.0.1:1/x"},
    {"$ref": "//127.0.0.1:1/x"},
    {"$ref": "file:///etc/passwd"},
    {"$ref": "file:/etc/passwd"},
    {"$ref": "FILE:///etc/passwd"},
    {"$ref": "/etc/passwd"},
    {"$ref": "../../etc/passwd"},
    {"$ref": "ftp://127.0.0.1/x"},
    {"$ref": "data:application/json,{}"},
    {"$ref": "urn:uuid:6a7e4c1c-0000-0000-0000-000000000000"},
    {"$ref": "http://169.254.169.254/latest/meta-data"},
    {"$ref": f"{LOCAL}#/a"},
    {"$ref": "other.json#/definitions/a"},
    {"$id": "file:///etc/", "$ref": "passwd"},
    {"$id": "http://127.0.0.1:1/", "$ref": "x"},
    {"$id": "http://127.0.0.1:1/", "properties": {"a": {"$ref": "y#/z"}}},
    {"properties": {"a": {"$id": "file:///etc/", "items": {"$ref": "passwd"}}}},
    {"$dynamicRef": LOCAL},
    {"$schema": D2019, "$recursiveRef": LOCAL},
    {"$schema": LOCAL},
    {"$schema": "file:///etc/passwd"},
    {"$schema": "urn:x:y"},
    {"$schema": D7, "$ref": LOCAL},
    {"$ref": D7},
    {"$schema": "http://json-schema.org/draft-04/schema#", "id": "file:///etc/", "$ref": "passwd"},
    {"contentMediaType": "application/json", "contentSchema": {"$ref": LOCAL}},
    {"not": {"$ref": LOCAL}},
    {"if": {"$ref": LOCAL}},
    {"$defs": {"a": {"$ref": LOCAL}}, "$ref": "#/$defs/a"},
    {"propertyNames": {"$ref": LOCAL}},
    {"unevaluatedProperties": {"$ref": LOCAL}},
    {"$ref": "#/nowhere"},
    {"$ref": "#nowhere"},
    {"$ref": "#" + "/a" * 50_000},
    # references that go in circles
    {"$ref": "#"},
    {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    {"allOf": [{"$ref": "#"}]},
    {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]},
    {"not": {"$ref": "#"}},
    {"if": {"$ref": "#"}},
    {"dependentSchemas": {"a": {"$ref": "#"}}},
    {"$anchor": "x", "$ref": "#x"},
    {"$dynamicAnchor": "a", "anyOf": [{"$dynamicRef": "#a"}, {"$dynamicRef": "#a"}]},
    {"$schema": D2019, "$recursiveAnchor": True, "allOf": [{"$recursiveRef": "#"}]},
    {"$id": "http://x/a", "allOf": [{"$ref": "http://x/a#"}]},
    {"$id": "urn:x:y", "allOf": [{"$ref": "#"}]},
    # ways that multiply
    fan(20),
    fan(30, "allOf"),
    fan(40, "oneOf"),
    fan(200),
    {"$defs": {"a": {"$id": "http://x/a"}, "b": {"$id": "http://x/a", "type": "string"}}, "$ref": "http://x/a"},
    # size
    nest("allOf", 300),
    nest("not", 900),
    nest("items", 900),
    nest("prefixItems", 900),
    {"enum": [{"a": index} for index in range(40_000)]},
    {"properties": {f"k{index}": {"type": "string"} for index in range(50_000)}},
    {"allOf": [{}] * 30_000},
    {"description": "x" * 300_000},
    {"required": ["a"] * 10_000},
    {"maximum": 10**5000},
    {"maximum": float("nan")},
    {"minimum": float("inf")},
    # patterns
    {"pattern": "(x{1000}){1000}"},
    {"pattern": "((((x{100}){100}){100}){100}){100}"},
    {"pattern": "\\p{L}{900}"},
    {"pattern": "(?=a)b"},
    {"pattern": "(?<!a)b"},
    {"pattern": "(a)\\1"},
    {"pattern": "(" * 5000 + ")" * 5000},
    {"pattern": "a|" * 100_000},
    {"pattern": "["},
    {"patternProperties": {"(x{1000}){1000}": {}}},
    # types
    {"type": "everything"},
    {"type": ["string", 5]},
    {"properties": [1]},
    {"items": "x"},
    {"multipleOf": 0},
    {"minLength": -1},
    {"required": {"a": 1}},
    {"enum": "a"},
    {"$ref": 5},
    {"$id": 5},
    {"allOf": []},
    {"allOf": {"a": 1}},
    {"$defs": 1},
]

REGEXES = ["^(a+)+$", "^(a|aa)+$", "^(a*)*b$", "(a|a)*b", "^(([a-z])+.)+[A-Z]([a-z])+$", "(.*)*=.*", "[01]*1[01]{300}!"]
FORMATS = {
    "email": "a" * 500_000 + "@",
    "idn-email": "ü" * 300_000 + "@",
    "uri": "http://" + "a:" * 500_000,
    "iri": "http://" + "ü:" * 300_000,
    "uri-template": "{a}" * 100_000 + "{",
    "uri-reference": "../" * 300_000 + "%",
    "hostname": "a." * 500_000,
    "idn-hostname": "ü." * 100_000,
    "date-time": "9" * 1_000_000,
    "date": "2020-" * 100_000,
    "time": "1:" * 300_000,
    "duration": "P" + "1Y" * 500_000,
    "ipv4": "1." * 500_000,
    "ipv6": ":" * 1_000_000,
    "uuid": "a-" * 500_000,
    "json-pointer": "/~0" * 300_000 + "~",
    "relative-json-pointer": "1" * 1_000_000 + "x",
    "regex": "(" * 100_000,
}

Case = tuple[Any, Callable[[], Any], str | None]
VALUES: list[Case] = [
    *((({"pattern": pattern}), lambda: "a" * 500_000 + "\n", "pattern") for pattern in REGEXES),
    *(({"format": name}, lambda text=text: text, "format") for name, text in FORMATS.items()),  # type: ignore[misc]
    ({"propertyNames": {"pattern": "^(a+)+$"}}, lambda: {"a" * 5000 + "!": 1}, "propertyNames"),
    ({"additionalProperties": {"$ref": "#"}}, lambda: deep(5000), "depth"),
    ({"additionalProperties": {"$ref": "#"}}, lambda: deep(50), None),
    ({"items": {"$ref": "#"}, "unevaluatedItems": False}, lambda: json.loads("[" * 900 + "]" * 900), "depth"),
    (True, lambda: deep(100_000), "depth"),
    (True, lambda: deep(300), None),
    (split("anyOf"), lambda: deep(40), "depth"),
    (split("oneOf"), lambda: deep(40), "depth"),
    (split("allOf"), lambda: deep(40), "depth"),
    (split("anyOf"), lambda: deep(3), "anyOf"),
    (fan(12), lambda: 1, "anyOf"),
    (fan(12), lambda: "x", None),
    ({"items": fan(12)} | {"$defs": fan(12)["$defs"]}, lambda: [1] * 100_000, "size"),
    ({"anyOf": [{"items": {"type": "string"}}, {"type": "null"}]}, lambda: list(range(300_000)), "schema"),
    ({"items": {"type": "string"}}, lambda: list(range(500_000)), "type"),
    ({"items": {"enum": [{"a": index} for index in range(3000)]}}, lambda: [{"a": -1}] * 3000, "enum"),
    ({"items": {"enum": [{"a": index} for index in range(9000)]}}, lambda: [{"a": 8999}] * 9000, "size"),
    ({"items": {"enum": ["a", "b"]}}, lambda: ["a"] * 200_000, None),
    ({"uniqueItems": True}, lambda: [{"a": [index]} for index in range(100_000)], None),
    ({"uniqueItems": True}, lambda: [[index, [index]] for index in range(50_000)] + [[0, [0]]], "uniqueItems"),
    ({"required": [f"k{index}" for index in range(9_000)]}, dict, "required"),
    ({"contains": {"contains": {"const": 0}}}, lambda: [[1] * 300] * 300, "schema"),
    ({"multipleOf": 1e-300}, lambda: 1e300, None),
    ({"multipleOf": 5e-324}, lambda: 1.7e308, None),
    ({"multipleOf": 0.0001}, lambda: 10**300, None),
    ({"minLength": 10**30}, lambda: "x", "minLength"),
    (
        {"patternProperties": {f"^(a|b)*{n}$": {} for n in range(900)}},
        lambda: {f"ab{n}": 1 for n in range(9000)},
        "size",
    ),
    ({"allOf": [{"pattern": f"\\w{{50}}{n}"} for n in range(1000)]}, lambda: "a" * 1_000_000, "size"),
    ({"$schema": D7, "contentMediaType": "application/json"}, lambda: "[" * 1_000_000, "contentMediaType"),
    ({"maxProperties": 3}, lambda: {str(index): index for index in range(200_000)}, "maxProperties"),
    ({"type": "string"}, lambda: 10**4000, "type"),
]

HARMLESS: list[Any] = [
    {"properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}, "additionalProperties": False},
    {"$id": "http://x/tree", "$defs": {"n": {"$anchor": "n", "items": {"$ref": "#n"}}}, "$ref": "#n"},
    {"$defs": {"a": {"$id": "http://x/a", "type": "object"}}, "properties": {"a": {"$ref": "http://x/a"}}},
    {
        "$id": "http://x/s/",
        "$defs": {"a": {"$id": "a", "$defs": {"b": {}}}},
        "properties": {"a": {"$ref": "a#/$defs/b"}},
    },
    {"$id": "urn:x:y", "$defs": {"a": {"type": "object"}}, "properties": {"a": {"$ref": "#/$defs/a"}}},
    {"properties": {"$id": {"type": "object"}, "$ref": {"type": "object"}, "enum": {"type": "object"}}},
    {"$defs": {"a/b~c %": {}}, "$ref": "#/$defs/a~1b~0c%20%25"},
    {"$schema": D7, "definitions": {"a": {}}, "dependencies": {"a": ["b"], "c": {"$ref": "#/definitions/a"}}},
    {"$schema": D2019, "$recursiveAnchor": True, "additionalProperties": {"$recursiveRef": "#"}},
    {"$dynamicAnchor": "n", "additionalProperties": {"$dynamicRef": "#n"}},
    {"oneOf": [{"properties": {"and": {"items": {"$ref": "#"}}}, "required": ["and"]}, {"not": {"required": ["and"]}}]},
    {"default": {"$ref": LOCAL}, "examples": [{"$ref": "file:///etc/passwd"}], "const": {}},
    {"properties": {f"p{index}": {"type": ["string", "null"], "format": "date-time"} for index in range(2000)}},
]


@pytest.fixture(scope="module", autouse=True)
def memory() -> Iterator[None]:
    process = psutil.Process()
    before = process.memory_info().rss
    yield
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)  # what is free, and only not given back, nobody holds
    assert process.memory_info().rss - before < MAX_GROWTH


def numbered(cases: list[Any]) -> list[Any]:
    """With ids that do not hold the case: some are a megabyte."""
    return [pytest.param(*(case if isinstance(case, tuple) else (case,)), id=str(n)) for n, case in enumerate(cases)]


@pytest.mark.parametrize("schema", numbered(REFUSED))
def test_it_is_refused_when_it_is_compiled(schema: Any) -> None:
    started = time.monotonic()
    with pytest.raises(IntegrationError) as refused:
        Schema(schema, at="methods[0].paramSchema")
    assert time.monotonic() - started < BOUND_S
    assert refused.value.code == ErrorCode.VALIDATION_ERROR
    assert (refused.value.path or "").startswith("methods[0].paramSchema")
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize(("schema", "value", "rule"), numbered(VALUES))
def test_a_value_is_judged_within_its_bound(schema: Any, value: Callable[[], Any], rule: str | None) -> None:
    compiled, given = Schema(schema, at="paramSchema"), value()
    started = time.monotonic()
    found = None
    try:
        compiled.check(given, at="params", code=ErrorCode.VALIDATION_ERROR, what="params")
    except IntegrationError as error:
        found = error
    assert time.monotonic() - started < BOUND_S
    assert (found.details["errors"][0]["rule"] if found else None) == rule
    assert found is None or len(str(found.details)) < 10_000


@pytest.mark.parametrize("schema", numbered(HARMLESS))
def test_what_only_looks_hostile_works(schema: Any) -> None:
    Schema(schema, at="paramSchema").check({}, at="params", code=ErrorCode.VALIDATION_ERROR, what="params")


@st.composite
def schemas(draw: st.DrawFn) -> Any:
    """Definitions that refer to each other in any way."""
    names = [f"d{index}" for index in range(draw(st.integers(1, 6)))]
    reference = st.sampled_from(names).map(lambda name: {"$ref": f"#/$defs/{name}"})
    of = st.lists(reference, min_size=1, max_size=3)
    node = st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(("allOf", "anyOf", "oneOf"), of),
            **dict.fromkeys(("not", "additionalProperties", "items", "contains"), reference),
            "properties": st.dictionaries(st.sampled_from("ab"), reference, max_size=2),
            "patternProperties": st.dictionaries(st.sampled_from(["a", "."]), reference, max_size=2),
            "type": st.sampled_from(["object", "array", "string"]),
        },
    )
    return {"$defs": {name: draw(node) for name in names}, "$ref": "#/$defs/d0"}


@given(schema=schemas(), depth=st.integers(0, 60))
@settings(max_examples=100, deadline=None)
def test_no_web_of_references_takes_long(schema: Any, depth: int) -> None:
    started = time.monotonic()
    try:
        compiled = Schema(schema, at="s")
        for value in (deep(depth), json.loads("[" * depth + "1" + "]" * depth), [deep(depth // 2)] * 20):
            compiled.check(value, at="v", code=ErrorCode.VALIDATION_ERROR, what="v")
    except IntegrationError as error:
        assert error.code == ErrorCode.VALIDATION_ERROR  # noqa: PT017
    assert time.monotonic() - started < BOUND_S
