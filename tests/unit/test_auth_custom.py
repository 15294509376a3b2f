"""Custom credentials: where their values go, and that they come back nowhere."""

from __future__ import annotations

import json
import time
import traceback
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from integration_service.activities.adapters.http import HttpAdapter
from integration_service.activities.auth import authenticate, check_auth, secret_texts
from integration_service.activities.execution.redaction import redact
from integration_service.activities.outbound.egress import EgressPolicy
from integration_service.activities.outbound.messages import OutboundRequest
from integration_service.activities.outbound.transport import Transport
from integration_service.contracts.credentials import CredentialPayload
from integration_service.contracts.definitions import DefinitionFile, HttpRequest
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.wire import parse
from tests.world import definition_file, method

VALUES: dict[str, Any] = {"id": "planted-id", "key": "planted-key", "pin": 4711, "deep": {"x": "planted-deep"}}
CONFIG = {"account": "acme"}
PLAIN = OutboundRequest("GET", "https://api.test/x", headers=(("x-key", "placeholder"), ("Accept", "*/*")))
TEXT = st.text(st.characters(min_codepoint=32, exclude_categories=("Cs", "Cc")), min_size=1, max_size=20)


def credential(**values: Any) -> CredentialPayload:
    return parse(CredentialPayload, {"type": "custom", "custom": values or VALUES})


def definition(auth: dict[str, Any] | None, **changes: Any) -> DefinitionFile:
    more = {} if auth is None else {"customAuth": auth}
    return parse(DefinitionFile, definition_file("t", authType="custom", **more, **changes))


def sent(auth: dict[str, Any], request: OutboundRequest = PLAIN, **values: Any) -> OutboundRequest:
    return authenticate(request, credential(**values), definition=definition(auth), config=CONFIG)


def built(params: dict[str, Any], **request: Any) -> OutboundRequest:
    """What the HTTP adapter makes of a request."""
    adapter = HttpAdapter("https://api.test", parse(HttpRequest, {"path": "/x", **request}), at="methods[0].request")
    return adapter.build(params=params, config={}, connection={})


def refused(auth: dict[str, Any], request: OutboundRequest = PLAIN, **values: Any) -> IntegrationError:
    with pytest.raises(IntegrationError) as error:
        sent(auth, request, **values)
    assert "planted" not in f"{error.value} {error.value.details} {error.value.__cause__!r}"
    return error.value


def test_headers_are_filled_and_secret() -> None:
    signed = sent(
        {
            "headers": {
                "X-Key": "k {credential.key} {config.account}",
                "X-Deep": "{credential.deep.x}/{credential.pin}",
                "X-Plain": "v1",
            }
        }
    )
    assert [value for name, value in signed.headers if name.lower() == "x-key"] == ["k planted-key acme"]
    assert signed.header("x-deep") == "planted-deep/4711"
    assert signed.header("x-plain") == "v1"
    assert signed.header("accept") == "*/*"
    assert signed.secret_headers == {"x-key", "x-deep", "x-plain"}
    assert "planted" not in repr(signed)


@pytest.mark.parametrize("url", ["https://api.test/x", "https://api.test/x?a=b%20c&d=%26", "https://api.test/x?e"])
@given(name=TEXT, key=TEXT)
@settings(max_examples=40)
def test_query_parameters_are_filled_in_beside_the_others(url: str, name: str, key: str) -> None:
    auth = {"query": {name: "{credential.key}", "fixed": "1"}} if name != "fixed" else {"query": {name: "1"}}
    signed = sent(auth, OutboundRequest("GET", url), key=key)
    before, after = urlsplit(url), urlsplit(signed.url)
    ours = [(name, key), ("fixed", "1")] if name != "fixed" else [("fixed", "1")]
    kept = [pair for pair in parse_qsl(before.query, keep_blank_values=True) if pair[0] not in dict(ours)]
    assert parse_qsl(after.query, keep_blank_values=True) == [*kept, *ours]
    assert (after.scheme, after.netloc, after.path, after.fragment) == ("https", "api.test", "/x", "")


@pytest.mark.parametrize("query", ["key=mine", "a=1&key=mine&b=2", "%6Bey=mine", "k%65y=", "key"])
def test_a_parameter_of_the_credentials_name_gives_way(query: str) -> None:
    signed = sent({"query": {"key": "{credential.key}"}}, OutboundRequest("GET", f"https://api.test/x?{query}"))
    assert [value for name, value in parse_qsl(urlsplit(signed.url).query) if name == "key"] == ["planted-key"]


@given(st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.text(max_size=9), max_size=3), TEXT)
@settings(max_examples=100)
def test_a_json_body_gains_the_keys(params: dict[str, Any], key: str) -> None:
    request = built(params, method="POST")
    signed = sent({"body": {"key": "{credential.key}", "id": "{config.account}"}}, request, key=key)
    assert json.loads(signed.body or b"") == {**params, "key": key, "id": "acme"}
    assert signed.header("content-type") == "application/json"


@given(st.dictionaries(TEXT, TEXT, max_size=3), TEXT)
@settings(max_examples=100)
def test_a_form_gains_the_fields(params: dict[str, str], key: str) -> None:
    request = built(params, method="POST", encoding="form", headers={"Content-Type": FORM})
    signed = sent({"body": {"key": "{credential.key}"}}, request, key=key)
    assert dict(parse_qsl((signed.body or b"").decode(), keep_blank_values=True)) == {**params, "key": key}


FORM = "application/x-www-form-urlencoded"
BODY = {"body": {"key": "{credential.key}"}}


def test_a_body_of_a_type_of_its_own_stays_that_type() -> None:
    request = built({"a": 1}, method="POST", headers={"Content-Type": "application/vnd.api+json"})
    signed = sent(BODY, request)
    assert json.loads(signed.body or b"") == {"a": 1, "key": "planted-key"}
    assert [value for name, value in signed.headers if name.lower() == "content-type"] == ["application/vnd.api+json"]


@pytest.mark.parametrize("verb", ["POST", "PUT", "PATCH"])
def test_a_request_without_a_body_gets_one(verb: str) -> None:
    signed = sent(BODY, OutboundRequest(verb, "https://api.test/x"))
    assert (signed.body, signed.header("content-type")) == (b'{"key":"planted-key"}', "application/json")


def test_where_all_methods_send_forms_so_does_a_request_without_params() -> None:
    form = method("post", "POST", "/x")
    form["request"]["encoding"] = "form"
    get = method("get", "GET", "/x")
    get["request"]["encoding"] = "form"
    whole = definition(BODY, methods=[form, get])
    check_auth(whole)
    signed = authenticate(OutboundRequest("POST", "https://api.test/x"), credential(), definition=whole)
    assert (signed.body, signed.header("content-type")) == (b"key=planted-key", FORM)


@pytest.mark.parametrize("verb", ["GET", "HEAD", "DELETE", "OPTIONS"])
def test_what_has_no_body_gets_none(verb: str) -> None:
    assert sent(BODY, OutboundRequest(verb, "https://api.test/x")).body is None


def test_a_body_that_a_redirect_would_take_along_holds_no_credential() -> None:
    request = built({"a": 1}, method="GET", body=["a"])
    assert sent(BODY, request).body == request.body
    request = built({"a": 1}, method="DELETE", body=["a"])
    assert json.loads(sent(BODY, request).body or b"") == {"a": 1, "key": "planted-key"}


@pytest.mark.parametrize("body", [b"[1]", b'"text"', b"1", b"null", b"\xff", b"a=b"])
def test_a_body_that_is_no_object_is_not_sent(body: bytes) -> None:
    error = refused(BODY, OutboundRequest("POST", "https://api.test/x", body=body))
    assert (error.code, error.path) == (ErrorCode.VALIDATION_ERROR, "customAuth.body")


@pytest.mark.parametrize("part", ["headers", "query", "body"])
@pytest.mark.parametrize("hole", ["nothing", "deep.y", "key.x", "deep", "none", "list"])
def test_a_missing_value_is_named(part: str, hole: str) -> None:
    request = OutboundRequest("POST", "https://api.test/x")
    values = {**VALUES, "none": None, "list": ["planted"]}
    error = refused({part: {"X-Key": f"{{credential.{hole}}}"}}, request, **values)
    assert (error.code, error.path) == (ErrorCode.AUTH_ERROR, f"credential.{hole}")


def test_a_missing_config_value_is_named() -> None:
    error = refused({"headers": {"X-Key": "{config.missing}"}})
    assert (error.code, error.path) == (ErrorCode.CONFIG_ERROR, "config.missing")


@pytest.mark.parametrize("value", ["planted\nx", "planted\r\nX-Evil: 1", "planted\r"])
@pytest.mark.parametrize("part", ["headers", "query"])
def test_a_line_break_is_refused(part: str, value: str) -> None:
    error = refused({part: {"X-Key": "{credential.key}"}}, key=value)
    assert (error.code, error.path) == (ErrorCode.AUTH_ERROR, "credential.key")


@pytest.mark.parametrize("value", ["planted\x00", "planted\x7f", "planted-日本"])
def test_what_no_header_holds_is_refused(value: str) -> None:
    assert refused({"headers": {"X-Key": "{credential.key}"}}, key=value).code == ErrorCode.AUTH_ERROR


def test_what_is_filled_in_is_not_read_again() -> None:
    signed = sent({"headers": {"X-Key": "{credential.key}"}}, key="{credential.other} {config.account}", other="no")
    assert signed.header("x-key") == "{credential.other} {config.account}"


PIECES = st.lists(st.sampled_from(["a", "b", "c"]) | st.just(""), max_size=4)


@given(st.fixed_dictionaries(dict.fromkeys("abc", TEXT)), PIECES, st.text("xyz -", max_size=4))
@settings(max_examples=100)
def test_every_hole_is_filled(values: dict[str, str], names: list[str], between: str) -> None:
    text = between.join(f"{{credential.{name}}}" if name else "-" for name in names)
    signed = sent({"query": {"q": text}}, OutboundRequest("GET", "https://api.test/x"), **values)
    expected = between.join(values[name] if name else "-" for name in names)
    assert parse_qsl(urlsplit(signed.url).query, keep_blank_values=True) == [("q", expected)]


SCALARS = st.text(min_size=6, max_size=20) | st.integers(10_000_000) | st.floats(allow_nan=False, allow_infinity=False)
CUSTOM = st.recursive(
    st.dictionaries(st.text(max_size=4), SCALARS, min_size=1, max_size=3),
    lambda inner: st.dictionaries(st.text(max_size=4), inner | st.lists(inner, max_size=2), max_size=2),
    max_leaves=4,
)


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict | list):
        return [leaf for inner in (value.values() if isinstance(value, dict) else value) for leaf in leaves(inner)]
    return [value]


@given(CUSTOM.filter(lambda custom: bool(leaves(custom))))
@settings(max_examples=150)
def test_no_value_survives_redaction(custom: dict[str, Any]) -> None:
    secrets = secret_texts(credential(v=custom))
    for leaf in leaves(custom):
        text = leaf if isinstance(leaf, str) else json.dumps(leaf)
        echoed = {"alone": leaf, "inside": f"<{text}>", "encoded": quote(text, safe="")}
        clean, _ = redact(echoed, secrets)
        assert clean["alone"] == "[REDACTED]"
        assert text in ("[REDACTED]", "REDACTED") or len(text) < 6 or text not in clean["inside"]


def test_truth_is_no_secret() -> None:
    assert secret_texts(credential(flag=True, nothing=None, pin=0)) == tuple(sorted({"0", "MA", "MA=="}, key=len)[::-1])


@pytest.mark.parametrize(
    "auth",
    [
        {"headers": {"X-Key": "{credential.key}"}},
        {"query": {"api[key]": "{credential.key}"}},
        {"headers": {"X-Version": "1"}, "body": {"key": "{config.x} {credential.a.b}"}},
    ],
)
def test_what_can_be_published(auth: dict[str, Any]) -> None:
    check_auth(definition(auth))
    assert definition(auth).content()["customAuth"] == auth


@pytest.mark.parametrize(
    ("auth", "path"),
    [
        (None, "customAuth"),
        ({}, "customAuth"),
        ({"headers": {}}, "customAuth"),
        ({"headers": {"X-Key": "{key}"}}, "customAuth.headers.X-Key"),
        ({"headers": {"X-Key": "{connection.key}"}}, "customAuth.headers.X-Key"),
        ({"query": {"key": "{credential.key"}}, "customAuth.query.key"),
        ({"body": {"key": "{}"}}, "customAuth.body.key"),
        ({"headers": {"X-Key": "a\nb"}}, "customAuth.headers.X-Key"),
        ({"headers": {"X-Key": "日本"}}, "customAuth.headers.X-Key"),
        ({"query": {"key": "a\nb"}}, "customAuth.query.key"),
    ],
)
def test_what_cannot_be_published_is_named(auth: dict[str, Any] | None, path: str) -> None:
    with pytest.raises(IntegrationError) as error:
        check_auth(definition(auth))
    assert (error.value.code, error.value.path) == (ErrorCode.VALIDATION_ERROR, path)


@pytest.mark.parametrize("encoding", ["text", "xml", "multipart"])
def test_a_body_that_has_no_place_for_a_key_is_refused(encoding: str) -> None:
    other = method("other", "POST", "/x")
    other["request"] |= {"encoding": encoding, "body": "b"}
    methods = [method("get", "GET", "/x"), other]
    check_auth(definition({"query": {"key": "{credential.key}"}}, methods=methods))
    with pytest.raises(IntegrationError) as error:
        check_auth(definition(BODY, methods=methods))
    assert error.value.path == "methods[1].request.encoding"


def test_a_form_beside_json_names_its_type() -> None:
    form = method("form", "POST", "/x")
    form["request"]["encoding"] = "form"
    methods = [method("json", "POST", "/x"), form]
    with pytest.raises(IntegrationError) as error:
        check_auth(definition(BODY, methods=methods))
    assert error.value.path == "methods[1].request.headers"
    form["request"]["headers"] = {"content-type": FORM}
    check_auth(definition(BODY, methods=methods))


@pytest.mark.parametrize(
    "auth", [{"headers": {"X Key": "a"}}, {"headers": {"X-Key": 1}}, {"cookies": {}}, {"query": {"": "a"}}]
)
def test_what_no_file_may_say(auth: dict[str, Any]) -> None:
    with pytest.raises(IntegrationError) as error:
        definition(auth)
    assert (error.value.path or "").startswith("customAuth")


def test_custom_auth_belongs_to_custom() -> None:
    file = definition_file("t", authType="basic", customAuth={"headers": {"X-Key": "a"}})
    with pytest.raises(IntegrationError) as error:
        check_auth(parse(DefinitionFile, file))
    assert error.value.path == "customAuth"


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x", "http://10.0.0.1/x", "gopher://h/x", "http://[::1/"])
async def test_a_credential_in_the_query_stands_in_no_error(url: str, caplog: pytest.LogCaptureFixture) -> None:
    signed = sent({"query": {"key": "{credential.key}"}}, OutboundRequest("GET", url))
    transport = Transport(EgressPolicy(["127.0.0.0/8"]))
    await transport.open()
    try:
        with caplog.at_level("DEBUG"), pytest.raises(IntegrationError) as error:
            await transport.send(signed, within=timedelta(seconds=10))
    finally:
        await transport.close()
    chain = "".join(traceback.format_exception(error.value)) + repr(error.value.details)
    assert "planted" not in chain + caplog.text


def test_no_text_takes_long() -> None:
    long = {"query": {"q": "{credential.key}" * 5000}}
    started = time.monotonic()
    sent(long, OutboundRequest("GET", "https://api.test/x?" + "a=1&" * 20_000))
    assert time.monotonic() - started < 5
