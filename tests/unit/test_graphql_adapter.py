"""GraphQL documents at registration, variables into a request, an answer into data or the failure that it tells."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from integration_service.activities.adapters import adapter_for
from integration_service.activities.adapters.graphql import GraphqlAdapter
from integration_service.activities.adapters.graphql_cost import cost_delay
from integration_service.activities.adapters.graphql_document import MAX_CHARACTERS, MAX_NESTING
from integration_service.activities.adapters.protocol import Adapter, Parsed
from integration_service.activities.outbound.messages import InboundResponse
from integration_service.contracts.definitions import DefinitionFile, GraphqlRequest
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.wire import parse

BASE = "https://api.test/graphql"
QUERY = (
    "query Q($id: ID!, $n: Int = 3, $tags: [String!]) { a(id: $id, n: $n, tags: $tags) { ...F } } fragment F on T { x }"
)


def adapter(document: str = QUERY, base: str = BASE) -> GraphqlAdapter:
    return GraphqlAdapter(base, GraphqlRequest(document=document), at="methods[0].request")


def registered(document: str, schema: Any, **more: Any) -> Adapter:
    """The adapter as registration makes it, the method's `paramSchema` beside the document."""
    method = {"name": "m", "description": "", "paramSchema": schema, "resultSchema": {}, **more}
    definition = parse(
        DefinitionFile,
        {
            "name": "g",
            "description": "",
            "version": "1.0.0",
            "type": "graphql",
            "authType": "none",
            "baseUrl": BASE,
            "configSchema": {},
            "methods": [{**method, "request": {"document": document}}],
        },
    )
    return adapter_for(definition, definition.methods[0], at="methods[0]")


def refused(document: str) -> IntegrationError:
    with pytest.raises(IntegrationError) as error:
        adapter(document)
    assert (error.value.code, error.value.path) == (ErrorCode.VALIDATION_ERROR, "methods[0].request.document")
    return error.value


def respond(body: Any, status: int = 200, kind: str = "application/json") -> InboundResponse:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return InboundResponse(status=status, headers={"content-type": kind}, body=raw)


def parsed(body: Any, **more: Any) -> Parsed:
    return adapter().parse(respond(body, **more))


def failed(body: Any, **more: Any) -> IntegrationError:
    with pytest.raises(IntegrationError) as error:
        parsed(body, **more)
    return error.value


def error(code: str | None = None, message: str = "no", **more: Any) -> dict[str, Any]:
    return {"message": message, **({"extensions": {"code": code}} if code else {}), **more}


def cost(asked: Any, there: Any, maximum: Any = 1000, rate: Any = 50) -> dict[str, Any]:
    status = {"maximumAvailable": maximum, "currentlyAvailable": there, "restoreRate": rate}
    return {"cost": {"requestedQueryCost": asked, "actualQueryCost": None, "throttleStatus": status}}


# Registration


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("query {\n  a(\n}", "3:1: Syntax Error"),
        ("", "1:1: Syntax Error"),
        ("{ a", "1:4: Syntax Error"),
        ("\x00", "1:1: Syntax Error"),
        ("query A { a } query B { b }", "holds 2 operations"),
        ("fragment F on T { x }", "holds 0 operations"),
        ("subscription { a }", "subscription"),
        ("{ a } type T { a: Int }", "1:7: "),
        ("{ ...F }", "1:6: Unknown fragment 'F'"),
        ("{ a }\nfragment F on T { x }", "2:1: Fragment 'F' is never used"),
        ("{ ...F } fragment F on T { x } fragment F on T { y }", "only one fragment named 'F'"),
        ("{ ...A } fragment A on T { ...B } fragment B on T { ...A }", "within itself"),
        ("{ a(x: $y) }", "1:8: Variable '$y' is not defined"),
        ("query ($y: Int) { ...F } fragment F on T { a(x: $y, z: $w) }", "Variable '$w' is not defined"),
        ("query ($y: Int) { a }", "1:8: Variable '$y' is never used"),
        ("query ($y: Int, $y: Int) { a(x: $y) }", "only one variable named '$y'"),
        ("{ a(x: 1, x: 2) }", "only one argument named 'x'"),
        ("{ a(x: {y: 1, y: 2}) }", "only one input field named 'y'"),
    ],
)
def test_a_document_that_can_never_run_is_refused_by_line_and_column(document: str, said: str) -> None:
    assert said in refused(document).message


HOSTILE = {
    "braces": "{a" * 4_000 + "}" * 4_000,
    "just too deep": "{a" * (MAX_NESTING + 1) + "}" * (MAX_NESTING + 1),
    "lists": "{a(x:" + "[" * 4_000 + "]" * 4_000 + ")}",
    "objects": "{a(x:" + "{x:" * 3_000 + "1" + "}" * 3_000 + ")}",
    "types": "query($x: " + "[" * 3_000 + "Int" + "]" * 3_000 + "){a(x:$x)}",
    "tokens": "{" + "a " * 30_000 + "}",
    "comments": "#\n" * 49_000 + "{a}",
    "length": "{a}" + " " * MAX_CHARACTERS,
    "a row of fragments": "{...F0}"
    + "".join(f"fragment F{i} on T{{...F{i + 1}}}" for i in range(1_000))
    + "fragment F1000 on T{a}",
    "doubling fragments": "{...F0}" + "".join(f"fragment F{i} on T{{...F{i + 1} ...F{i + 1}}}" for i in range(500)),
    "an open string": '{a(x:"""' + '"' * 90_000,
    "byte order marks": "\ufeff" * 90_000,
}


@pytest.mark.parametrize("document", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_document_is_refused_at_once(document: str) -> None:
    began = time.process_time()
    assert len(refused(document).message) < 300
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    "document",
    [
        "{a" * MAX_NESTING + "}" * MAX_NESTING,
        "{" + "...F " * 2_000 + "} fragment F on T {" + "...G " * 2_000 + "} fragment G on T {a}",
        "{" + " ".join(f"a{i}: x" for i in range(3_000)) + "}",
        '{a(x: "' + "y" * 90_000 + '")}',
        'query ($x: Int) @live { a(x: $x, text: """block""") @include(if: true) { ... on T { b } } }',
    ],
    ids=["deep", "fragments", "wide", "long string", "directives"],
)
def test_a_large_document_is_taken(document: str) -> None:
    began = time.process_time()
    adapter(document)
    assert time.process_time() - began < 2


@given(st.text(st.sampled_from('{}()[]$:!=@."#\\ \nabquery fragment on'), max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_text_is_taken_or_refused(document: str) -> None:
    code = None
    try:
        adapter(document)
    except IntegrationError as failure:
        code = failure.code
    assert code in (None, ErrorCode.VALIDATION_ERROR)


def test_queries_may_be_sent_twice_and_mutations_not() -> None:
    assert adapter("{ a }").idempotent
    assert adapter("query Q { a }").idempotent
    assert not adapter("mutation { a }").idempotent


def test_a_definition_without_a_base_url_is_refused() -> None:
    for base in ("api.test", "ftp://api.test", "https://api.test/?q=1"):
        with pytest.raises(IntegrationError) as failure:
            adapter(base=base)
        assert failure.value.path == "baseUrl"


def test_a_param_that_is_no_variable_is_refused_at_registration() -> None:
    with pytest.raises(IntegrationError) as failure:
        registered(QUERY, {"type": "object", "properties": {"id": {}, "Tags": {}}})
    assert failure.value.path == "methods[0].paramSchema.properties.Tags"


def test_a_variable_that_no_param_can_fill_is_refused_at_registration() -> None:
    closed = {"type": "object", "properties": {"n": {}}, "additionalProperties": False}
    with pytest.raises(IntegrationError) as failure:
        registered(QUERY, closed)
    assert failure.value.path == "methods[0].paramSchema.properties"
    assert "id" in failure.value.message


@pytest.mark.parametrize(
    "schema",
    [
        True,
        {},
        {"type": "object"},
        {"type": "object", "additionalProperties": False, "patternProperties": {".": {}}},
        {"properties": {"n": {}}},
        {"properties": {"n": {}}, "additionalProperties": False, "patternProperties": {"^i": {}}},
        {"properties": {"id": {}, "tags": {}}, "required": ["id"], "additionalProperties": False},
        {"allOf": [{"properties": {"other": {}}}]},
    ],
)
def test_a_schema_that_may_fit_is_taken(schema: Any) -> None:
    registered(QUERY, schema)


def test_a_transform_makes_the_variables_whatever_the_params_are() -> None:
    registered(QUERY, {"properties": {"other": {}}, "additionalProperties": False}, requestTransform="{'id': other}")


# The request


def test_params_are_the_variables() -> None:
    params = {"id": "1", "tags": ["ä", 'q"'], "n": None}
    request = adapter().build(params=params, config={}, connection={})
    assert (request.method, request.url) == ("POST", BASE)
    assert request.header("content-type") == "application/json"
    assert request.header("accept") == "application/graphql-response+json, application/json"
    assert json.loads(request.body or b"") == {"query": QUERY, "variables": params, "operationName": "Q"}


def test_an_operation_without_a_name_sends_none() -> None:
    body = adapter("{ a }").build(params={}, config={}, connection={}).body
    assert json.loads(body or b"") == {"query": "{ a }", "variables": {}}


@pytest.mark.parametrize("params", [{}, {"id": None}, {"Id": 1}])
def test_a_variable_that_needs_a_value_gets_one(params: dict[str, Any]) -> None:
    with pytest.raises(IntegrationError) as failure:
        adapter().build(params=params, config={}, connection={})
    assert (failure.value.code, failure.value.path) == (ErrorCode.VALIDATION_ERROR, "params.id")


def test_the_url_is_filled_from_config_and_connection() -> None:
    made = adapter("{ a }", "https://{config.shop}.api.test/{connection.v}/graphql")
    assert made.build(params={}, config={"shop": "s"}, connection={"v": "7"}).url == "https://s.api.test/7/graphql"
    with pytest.raises(IntegrationError) as failure:
        made.build(params={}, config={"shop": "evil.test/"}, connection={"v": "7"})
    assert failure.value.code == ErrorCode.CONFIG_ERROR


# The answer


@pytest.mark.parametrize("errors", [{}, {"errors": []}, {"errors": None}])
@pytest.mark.parametrize("kind", ["application/json", "application/graphql-response+json; charset=utf-8", ""])
def test_data_alone_is_success(errors: dict[str, Any], kind: str) -> None:
    assert parsed({"data": {"a": 1}, **errors}, kind=kind) == Parsed({"a": 1})
    assert parsed({"data": None, **errors}, kind=kind) == Parsed(None)


def test_partial_data_keeps_its_errors_as_they_are() -> None:
    errors = [error("X", path=["a", 0], extra=[1]), error("THROTTLED")]
    assert parsed({"data": {"a": [None]}, "errors": errors}) == Parsed({"a": [None]}, errors)


@pytest.mark.parametrize("data", [{}, {"data": None}])
def test_errors_without_data_are_a_failure(data: dict[str, Any]) -> None:
    failure = failed({**data, "errors": [error("BAD_USER_INPUT", path=["a", 0]), error()]})
    assert failure.code == ErrorCode.GRAPHQL_ERROR
    assert failure.message == "the upstream answered 2 errors and no data"
    assert failure.details == {
        "errors": [
            {"message": "no", "path": ["a", 0], "extensions": {"code": "BAD_USER_INPUT"}},
            {"message": "no"},
        ],
        "data": None,
        "statusCode": 200,
    }


def test_a_failure_carries_a_bounded_part_of_the_errors() -> None:
    large = error(
        "C" * 9_000,
        "m" * 9_000,
        path=["p" * 9_000, 1, {"no": 1}, 10**4_000, True] * 50,
        locations=[{"line": 1, "column": 2, "other": "x" * 9_000}, {"line": "1"}, {"line": 10**4_000, "column": 1}, 7]
        * 50,
        stacktrace="s" * 9_000,
    )
    failure = failed({"errors": [large] * 12})
    assert len(failure.details["errors"]) == 10
    shown = failure.details["errors"][0]
    assert shown["message"] == "m" * 256
    assert shown["extensions"] == {"code": "C" * 100}
    assert shown["path"] == ["p" * 100, 1] * 4
    assert shown["locations"][0] == {"line": 1, "column": 2}
    assert shown.keys() == {"message", "path", "locations", "extensions"}
    assert len(json.dumps(failure.details)) < 50_000


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"{",
        b'{"data": {"a": NaN}}',
        b"[" * 100_000,
        b"\xff\xfe",
        [],
        7,
        None,
        "data",
        {},
        {"errors": []},
        {"errors": None},
        {"message": "no"},
        {"data": [1]},
        {"data": "x"},
        {"data": {}, "errors": "no"},
        {"data": {}, "errors": {"message": "no"}},
    ],
    ids=repr,
)
def test_what_is_no_graphql_answer_is_malformed(body: Any) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    for kind in ("application/json", "text/html"):
        assert failed(raw, kind=kind).code == ErrorCode.MALFORMED_RESPONSE


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["data", "errors", "message", "path", "locations", "extensions", "code", "type", "cost"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
ANSWERS = st.fixed_dictionaries({}, optional={"data": JSON, "errors": st.lists(JSON, max_size=3), "extensions": JSON})


@given(ANSWERS, st.sampled_from([200, 400, 404, 422]))
@settings(max_examples=300, deadline=None)
def test_any_answer_is_data_or_a_failure_that_json_can_carry(body: dict[str, Any], status: int) -> None:
    response = respond(json.dumps(body).encode(), status)
    failure = adapter().refusal(response)
    try:
        adapter().parse(response)
    except IntegrationError as raised:
        failure = raised
    if failure is not None:
        assert failure.code in ("GRAPHQL_ERROR", "MALFORMED_RESPONSE", "RATE_LIMITED", "AUTH_ERROR")
        json.dumps(failure.details)


@pytest.mark.parametrize("code", ["UNAUTHENTICATED", "unauthenticated"])
def test_a_refused_credential_is_told_by_its_code(code: str) -> None:
    assert failed({"data": None, "errors": [error("X"), error(code)]}).code == ErrorCode.AUTH_ERROR


def test_a_forbidden_field_is_no_refused_credential() -> None:
    assert failed({"errors": [error("FORBIDDEN")]}).code == ErrorCode.GRAPHQL_ERROR


# Throttles


@pytest.mark.parametrize("code", ["THROTTLED", "RATE_LIMITED", "RATELIMITED", "rate_limited", "rate-limited"])
def test_a_throttle_in_a_200_is_rate_limited(code: str) -> None:
    failure = failed({"errors": [error(code)]})
    assert (failure.code, failure.retry_after) == (ErrorCode.RATE_LIMITED, None)


def test_githubs_type_is_a_code_too() -> None:
    assert failed({"errors": [{"type": "RATE_LIMITED", "message": "no"}]}).code == ErrorCode.RATE_LIMITED


def test_a_throttle_among_other_errors_is_not_waited_for() -> None:
    assert failed({"errors": [error("THROTTLED"), error("X")]}).code == ErrorCode.GRAPHQL_ERROR


def test_a_throttle_waits_until_the_bucket_holds_what_was_asked() -> None:
    failure = failed({"errors": [error("THROTTLED")], "extensions": cost(600, 100)})
    assert (failure.code, failure.retry_after) == (ErrorCode.RATE_LIMITED, timedelta(seconds=10))


@pytest.mark.parametrize(
    ("extensions", "delay"),
    [
        (cost(100, 100), None),
        (cost(100, 900), None),
        (cost(100, 50), 1),
        (cost(100, 0.0), 2),
        (cost(100, -100), 4),
        (cost(5000, 500), 10),  # more than it ever holds: until it is full
        (cost(100, 0, rate=0.001), 3600),
        (cost(100, 0, rate=0), None),
        (cost(100, 0, rate=-5), None),
        (cost(100, 0, rate="50"), None),
        (cost(True, 0), None),
        (cost(None, 0), None),
        (cost(100, 50, maximum=None), 1),
        (cost(10**400, 0, maximum=None), None),
        ({"cost": []}, None),
        ([], None),
        (None, None),
    ],
)
def test_how_long_a_bucket_asks_to_hold_back(extensions: Any, delay: float | None) -> None:
    body = {"data": {}, "extensions": extensions}
    expected = None if delay is None else timedelta(seconds=delay)
    assert (cost_delay(body), parsed(body).hold_back) == (expected, expected)


@given(st.lists(st.integers() | st.floats(), min_size=4, max_size=4))
@settings(max_examples=200, deadline=None)
def test_no_cost_asks_for_a_wait_below_none_or_over_an_hour(numbers: list[float]) -> None:
    delay = cost_delay({"extensions": cost(*numbers)})
    assert delay is None or timedelta(0) <= delay <= timedelta(hours=1)


# Refusals


@pytest.mark.parametrize("status", [400, 404, 405, 409, 422])
@pytest.mark.parametrize("kind", ["application/json", "application/graphql-response+json"])
def test_a_4xx_with_errors_is_graphqls_failure(status: int, kind: str) -> None:
    failure = adapter().refusal(respond({"errors": [error("GRAPHQL_VALIDATION_FAILED")]}, status, kind))
    assert failure is not None
    assert (failure.code, failure.details["statusCode"]) == (ErrorCode.GRAPHQL_ERROR, status)


@pytest.mark.parametrize("status", [302, 401, 403, 408, 429, 500, 502, 503])
def test_other_statuses_say_all(status: int) -> None:
    assert adapter().refusal(respond({"errors": [error("X")]}, status)) is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[" * 100_000,
        {},
        {"errors": []},
        {"errors": "no"},
        {"errors": ["no"]},
        {"errors": [{"title": "JSON:API", "detail": "no"}]},
        {"error": "no"},
        {"data": {"a": 1}},
    ],
    ids=repr,
)
def test_a_4xx_in_another_form_is_not_graphqls(body: Any) -> None:
    assert adapter().refusal(respond(body, 400)) is None


def test_a_4xx_in_another_type_is_not_graphqls() -> None:
    assert adapter().refusal(respond({"errors": [error()]}, 400, "text/html")) is None


def test_a_4xx_tells_a_throttle_or_a_refused_credential_too() -> None:
    codes = [adapter().refusal(respond({"errors": [error(code)]}, 400)) for code in ("THROTTLED", "UNAUTHENTICATED")]
    assert [failure.code for failure in codes if failure] == [ErrorCode.RATE_LIMITED, ErrorCode.AUTH_ERROR]


def test_nothing_of_an_answer_stands_in_a_message() -> None:
    for body in ({"errors": [error("planted-code", "planted")]}, b'{"planted'):
        failure = failed(body)
        assert "planted" not in failure.message
        assert "planted" not in repr(failure)
