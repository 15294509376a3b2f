"""Params into an HTTP request: each in its place, and none out of it."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from integration_service.activities.adapters.http import HttpAdapter
from integration_service.activities.outbound.messages import OutboundRequest
from integration_service.contracts.calls import MethodCall
from integration_service.contracts.definitions import HttpRequest
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.wire import parse

BASE = "https://api.test/v1"


def adapter(base: str = BASE, **request: Any) -> HttpAdapter:
    wire = {"method": "GET", "path": "/x", **request}
    return HttpAdapter(base, parse(HttpRequest, wire), at="methods[0].request")


def build(params: dict[str, Any], config: dict[str, Any] | None = None, **request: Any) -> OutboundRequest:
    return adapter(**request).build(params=params, config=config or {}, connection={})


def query(request: OutboundRequest) -> list[tuple[str, str]]:
    return parse_qsl(urlsplit(request.url).query, keep_blank_values=True)


@pytest.mark.parametrize("verb", ["GET", "HEAD", "DELETE"])
def test_by_default_reads_and_deletes_send_a_query(verb: str) -> None:
    request = build({"id": 7, "a": "b c"}, method=verb, path="/things/{id}")
    assert (request.method, request.url, request.body) == (verb, f"{BASE}/things/7?a=b%20c", None)


@pytest.mark.parametrize("verb", ["POST", "PUT", "PATCH", "OPTIONS"])
def test_by_default_writes_send_a_json_body(verb: str) -> None:
    request = build({"id": 7, "a": ["b"], "c": None}, method=verb, path="/things/{id}")
    assert request.url == f"{BASE}/things/7"
    assert json.loads(request.body or b"") == {"a": ["b"], "c": None}
    assert request.header("content-type") == "application/json"


def test_what_is_listed_goes_where_the_list_says() -> None:
    params = {"id": 1, "q": "x", "title": "t", "other": 2}
    request = build(params, method="POST", path="/{id}", query=["q"], body=["title"])
    assert (query(request), json.loads(request.body or b"")) == ([("q", "x"), ("other", "2")], {"title": "t"})
    request = build(params, method="GET", path="/{id}", body=["title"])
    assert (query(request), json.loads(request.body or b"")) == ([("q", "x"), ("other", "2")], {"title": "t"})


def test_a_body_named_by_one_param_is_that_params_value() -> None:
    request = build({"items": [1, {"a": None}], "q": 1}, method="POST", body="items")
    assert (json.loads(request.body or b""), query(request)) == ([1, {"a": None}], [("q", "1")])
    assert build({}, method="POST", body="items").body is None


def test_a_header_takes_its_param_away_from_query_and_body() -> None:
    request = build({"etag": "abc", "n": 1}, headers={"If-Match": '"{etag}"', "X-Fixed": "yes"})
    assert (request.header("if-match"), request.header("x-fixed"), query(request)) == ('"abc"', "yes", [("n", "1")])


def test_a_definitions_own_content_type_and_accept_stand() -> None:
    headers = {"content-type": "application/merge-patch+json", "ACCEPT": "text/csv"}
    request = build({"a": 1}, method="PATCH", headers=headers)
    assert [value for name, value in request.headers if name.lower() == "content-type"] == [headers["content-type"]]
    assert [value for name, value in request.headers if name.lower() == "accept"] == ["text/csv"]


def test_query_values_have_jsons_spelling() -> None:
    values = {"l": ["a", 1, True], "t": True, "n": None, "f": 1.5, "o": {"k": [1]}, "e": [], "nested": [[1], None]}
    assert query(build(values)) == [
        ("l", "a"),
        ("l", "1"),
        ("l", "true"),
        ("t", "true"),
        ("f", "1.5"),
        ("o", '{"k": [1]}'),
        ("nested", "[1]"),
    ]


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=("Cs",)), max_size=8),
        st.text(st.characters(exclude_categories=("Cs",)), max_size=8),
    )
)
@settings(max_examples=100)
def test_any_names_and_values_survive_the_query_and_the_form(params: dict[str, str]) -> None:
    assert dict(query(build(params))) == params
    form = build(params, method="POST", encoding="form").body or b""
    assert dict(parse_qsl(form.decode(), keep_blank_values=True)) == params


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=30))
@settings(max_examples=300)
def test_a_path_param_is_one_segment_whatever_it_holds(value: str) -> None:
    if value in ("", ".", ".."):
        with pytest.raises(IntegrationError):
            build({"v": value}, path="/a/{v}/b")
        return
    sent = httpx2.Request("GET", build({"v": value}, path="/a/{v}/b").url).url.raw_path.decode()
    segments = sent.split("/")
    assert "?" not in sent
    assert segments[:3] == ["", "v1", "a"]
    assert segments[4:] == ["b"]
    assert unquote(segments[3]) == value


@pytest.mark.parametrize("value", ["", ".", ".."])
def test_a_segment_that_is_empty_or_dots_is_refused(value: str) -> None:
    with pytest.raises(IntegrationError) as refused:
        build({"v": value}, path="/a/{v}")
    assert (refused.value.code, refused.value.path) == (ErrorCode.VALIDATION_ERROR, "params.v")


@pytest.mark.parametrize(("path", "params"), [("/a/{v}{w}/b", {"v": ".", "w": "."}), ("/a/.{v}/b", {"v": "."})])
def test_no_segment_becomes_dots_by_its_parts(path: str, params: dict[str, str]) -> None:
    with pytest.raises(IntegrationError) as refused:
        build(params, path=path)
    assert refused.value.code == ErrorCode.VALIDATION_ERROR


@pytest.mark.parametrize("value", ["..", "../admin", "a/../../admin", "."])
def test_a_config_value_does_not_climb_out_of_the_path(value: str) -> None:
    with pytest.raises(IntegrationError):
        build({}, {"tenant": value}, path="/tenants/{config.tenant}/things")


@pytest.mark.parametrize(("value", "why"), [(None, "missing"), ([1], "must be"), ({"a": 1}, "must be")])
def test_a_path_param_is_a_scalar(value: Any, why: str) -> None:
    with pytest.raises(IntegrationError) as refused:
        build({"v": value}, path="/{v}")
    assert refused.value.path == "params.v"
    assert why in refused.value.message


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\rb", "a\x00b", "a\x7fb", "\x1b[0m"])
def test_a_header_is_not_broken_open(value: str) -> None:
    with pytest.raises(IntegrationError) as refused:
        build({"h": value}, headers={"X-H": "{h}"})
    assert refused.value.code == ErrorCode.VALIDATION_ERROR
    assert value not in str(refused.value)


def test_a_header_that_latin_1_cannot_hold_is_refused() -> None:
    with pytest.raises(IntegrationError):
        build({"h": "名前"}, headers={"X-H": "{h}"})


@pytest.mark.parametrize(("encoding", "kind"), [("text", "text/plain"), ("xml", "application/xml")])
def test_text_and_xml_send_one_string(encoding: str, kind: str) -> None:
    request = build({"doc": "<ä/>"}, method="POST", body="doc", encoding=encoding)
    assert (request.body, (request.header("content-type") or "").split(";")[0]) == ("<ä/>".encode(), kind)
    with pytest.raises(IntegrationError) as refused:
        build({"doc": {"a": 1}}, method="POST", body="doc", encoding=encoding)
    assert refused.value.path == "params.doc"
    with pytest.raises(IntegrationError) as refused:
        adapter(method="POST", encoding=encoding)
    assert refused.value.path == "methods[0].request.body"


def test_a_form_is_made_of_an_object() -> None:
    request = build({"a": [1, "ä"], "b": None}, method="POST", encoding="form")
    assert (request.body, request.header("content-type")) == (b"a=1&a=%C3%A4", "application/x-www-form-urlencoded")
    with pytest.raises(IntegrationError):
        build({"a": [1]}, method="POST", encoding="form", body="a")


@pytest.mark.parametrize("value", ["\ud800", {"\udc00": 1}, [float("nan")], {"a": float("inf")}])
def test_what_pythons_json_lets_through_and_the_wire_cannot_hold_is_no_param(value: Any) -> None:
    with pytest.raises(IntegrationError) as refused:
        parse(MethodCall, {"instanceId": "x", "params": {"v": value}})
    assert (refused.value.code, refused.value.path) == (ErrorCode.VALIDATION_ERROR, "params")


BAD_BASES = ["", "api.test", "//api.test", "ftp://api.test", "http://", "http://u@h", "http://u:p@h", "http://h?a=1"]
BAD_BASES += ["http://h#f", "http://h h", "http://h\\x", "http://h:0", "http://h:99999", "http://[::1", "file:///etc"]


@pytest.mark.parametrize("base", BAD_BASES)
def test_a_base_url_is_an_absolute_http_url(base: str) -> None:
    with pytest.raises(IntegrationError) as refused:
        adapter(base)
    assert (refused.value.code, refused.value.path) == (ErrorCode.VALIDATION_ERROR, "baseUrl")
    with pytest.raises(IntegrationError):
        adapter("{config.url}").build(params={}, config={"url": base}, connection={})


@pytest.mark.parametrize("value", ["evil.test/", "evil.test#", "evil.test?", "u@evil.test/", "evil.test:1/", "a\\"])
def test_a_config_value_in_the_host_brings_no_other_host(value: str) -> None:
    with pytest.raises(IntegrationError):
        adapter("https://{config.shop}.api.test").build(params={}, config={"shop": value}, connection={})


def test_a_base_url_is_filled_from_config_and_connection_only() -> None:
    built = adapter("https://{config.shop}.{connection.zone}/v2/").build(
        params={}, config={"shop": "s"}, connection={"zone": "z.test"}
    )
    assert built.url == "https://s.z.test/v2/x"
    with pytest.raises(IntegrationError) as refused:
        adapter("https://{shop}.test")
    assert refused.value.path == "baseUrl"
    with pytest.raises(IntegrationError) as refused:
        adapter("https://{config.shop}.test").build(params={}, config={}, connection={})
    assert (refused.value.code, refused.value.path) == (ErrorCode.CONFIG_ERROR, "config.shop")
