"""The SOAP adapter: params to envelopes, checked by libxml2 against the same schema, and answers to JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from integration_service.activities.adapters.soap import MAX_ELEMENTS, SoapAdapter
from integration_service.activities.outbound.messages import InboundResponse
from integration_service.activities.wsdl.documents import WsdlDocuments
from integration_service.activities.wsdl.model import wsdl_model
from integration_service.contracts.definitions import SoapRequest
from integration_service.contracts.errors import ErrorCode, IntegrationError
from tests.unit.soap_wsdl import ENVELOPE_11, ENVELOPE_12, NAMESPACE, SCHEMA, wsdl

_VALIDATOR = etree.XMLSchema(etree.fromstring(SCHEMA))
ITEM = {
    "name": "bolt",
    "flag": True,
    "when": "2026-01-31T12:00:00.123456789+02:00",
    "data": {"$binary": "AAEC", "contentType": "application/octet-stream"},
    "tag": ["a", "b"],
    "cash": 5,
    "note": None,
    "pair": [{"key": "k1", "value": "v1"}, {"key": "k2", "value": "v2"}],
    "code": "x1",
}


def adapter(*, version: str = "1.1", operation: str = "send", base_url: str | None = None) -> SoapAdapter:
    model = wsdl_model(WsdlDocuments(wsdl(version=version)))
    return SoapAdapter(model, SoapRequest(operation=operation), base_url=base_url, at="methods[0].request")


def built(params: dict[str, Any], *, operation: str = "send") -> etree._Element:
    """The element in the body, which libxml2 finds valid."""
    body = adapter(operation=operation).build(params=params, config={}, connection={}).body
    node = etree.fromstring(body or b"")[-1][0]
    _VALIDATOR.assertValid(node)
    return node


def answered(xml: str, *, operation: str = "send", status: int = 200, envelope: str = ENVELOPE_11) -> Any:
    response = InboundResponse(status, {"content-type": "text/xml"}, (envelope % xml).encode())
    return adapter(operation=operation).parse(response).data


def refused(params: dict[str, Any], *, operation: str = "send") -> IntegrationError:
    with pytest.raises(IntegrationError) as caught:
        adapter(operation=operation).build(params=params, config={}, connection={})
    assert caught.value.code == ErrorCode.VALIDATION_ERROR
    return caught.value


def test_what_is_sent_comes_back_the_same() -> None:
    params = {"item": {**ITEM, "pair": []}, "_value_1": []}
    node = built(params)
    data = answered(etree.tostring(node).decode().replace("send", "sendResponse"))
    assert data["item"] == {**ITEM, "pair": []}


def test_the_http_request_of_each_version() -> None:
    first = adapter().build(params={"item": {"name": "a"}}, config={}, connection={})
    assert (first.method, first.url) == ("POST", "http://127.0.0.1:9/soap?x=1")
    assert (first.header("Content-Type"), first.header("SOAPAction")) == ("text/xml; charset=utf-8", '"urn:send"')
    second = adapter(version="1.2", base_url="https://{config.host}/s").build(
        params={"item": {"name": "a"}}, config={"host": "example.com"}, connection={}
    )
    assert second.url == "https://example.com/s"
    assert second.header("Content-Type") == 'application/soap+xml; charset=utf-8; action="urn:send"'
    assert second.header("SOAPAction") is None
    assert etree.fromstring(second.body or b"").tag == "{http://www.w3.org/2003/05/soap-envelope}Envelope"


def test_soap_is_never_taken_for_idempotent() -> None:
    assert adapter().idempotent is False


@pytest.mark.parametrize(
    ("params", "path", "word"),
    [
        ({}, "params.item", "missing"),
        ({"item": "secret-value"}, "params.item", "object"),
        ({"item": {"name": "a"}, "secret-key": 1}, "params.secret-key", "no element"),
        ({"item": {}}, "params.item.name", "missing"),
        ({"item": {"name": 5}}, "params.item.name", "string"),
        ({"item": {"name": "a\x00b"}}, "params.item.name", "control"),
        ({"item": {"name": "a\ufffe"}}, "params.item.name", "control"),
        ({"item": {"name": None}}, "params.item.name", "null"),
        ({"item": {"name": "a", "count": "secret-value"}}, "params.item.count", "whole number"),
        ({"item": {"name": "a", "count": 2**31}}, "params.item.count", "at most"),
        ({"item": {"name": "a", "count": True}}, "params.item.count", "whole number"),
        ({"item": {"name": "a", "flag": "true"}}, "params.item.flag", "boolean"),
        ({"item": {"name": "a", "when": "31.1.2026"}}, "params.item.when", "such as"),
        ({"item": {"name": "a", "data": "AAEC"}}, "params.item.data", "bytes"),
        ({"item": {"name": "a", "data": {"$binary": "secret-value"}}}, "params.item.data", "base64"),
        ({"item": {"name": "a", "tag": "b"}}, "params.item.tag", "array"),
        ({"item": {"name": "a", "tag": ["b", 1]}}, "params.item.tag[1]", "string"),
        ({"item": {"name": "a", "tag": list("abcd")}}, "params.item.tag", "at most 3"),
        ({"item": {"name": "a", "cash": 1, "card": "2"}}, "params.item", "only one of"),
        ({"item": {"name": "a", "pair": [{"key": "k"}]}}, "params.item.pair[0].value", "missing"),
        ({"item": {"name": "a", "code": 5}}, "params.item.code", "string"),
        ({"item": {"name": "a", "_type": "{urn:x}No"}}, "params.item._type", "no type"),
        ({"item": {"name": "a"}, "_value_1": ["<!DOCTYPE a []><a/>"]}, "params._value_1[0]", "DTD"),
    ],
)
def test_a_param_that_does_not_fit_is_named_and_not_quoted(params: dict[str, Any], path: str, word: str) -> None:
    error = refused(params)
    assert (error.path, word in error.message) == (path, True), error
    assert "secret-value" not in str(error)


def test_a_choice_takes_an_empty_text_and_a_zero() -> None:
    assert built({"item": {"name": "a", "card": ""}}).findtext(".//{*}card") == ""
    assert built({"item": {"name": "a", "cash": 0}}).findtext(".//{*}cash") == "0"


def test_nothing_of_an_optional_part_is_asked_for() -> None:
    assert [etree.QName(node).localname for node in built({"item": {"name": "a"}})[0]] == ["name"]
    refused({"item": {"name": "a", "first": "x"}})  # of a pair that goes together
    built({"item": {"name": "a", "first": "x", "second": "y"}})


def test_null_is_nil_where_the_schema_lets_it() -> None:
    node = built({"item": {"name": "a", "note": None}}).find(".//{*}note")
    assert node is not None
    assert node.get("{http://www.w3.org/2001/XMLSchema-instance}nil") == "true"


def test_a_derived_type_by_its_name_there_and_back() -> None:
    params = {"item": {"_type": f"{{{NAMESPACE}}}BigItem", "name": "a", "weight": 1.5}}
    node = built(params)
    data = answered(etree.tostring(node).decode().replace("send", "sendResponse"))
    assert {key: data["item"][key] for key in ("_type", "name", "weight")} == params["item"]


def test_any_takes_xml_and_gives_json() -> None:
    node = built({"item": {"name": "a"}, "_value_1": ["<x xmlns='urn:x'><y a='1'>t</y><y/></x>"]})
    data = answered(etree.tostring(node).decode().replace("send", "sendResponse"))
    assert data["_value_1"] == [{"x": {"y": [{"@a": "1", "#text": "t"}, ""]}}]


def test_declared_headers_stand_beside_the_body() -> None:
    request = adapter().build(
        params={"item": {"name": "a"}, "_headers": {"session": {"id": "s&1"}}}, config={}, connection={}
    )
    header = etree.fromstring(request.body or b"").find("{*}Header")
    assert header is not None
    assert header.findtext("{*}Session/{*}id") == "s&1"
    assert refused({"item": {"name": "a"}, "_headers": {"other": 1}}).path == "params._headers.other"


def test_an_element_of_a_simple_type_is_the_param_of_its_name() -> None:
    assert built({"ping": "x"}, operation="ping").text == "x"
    assert answered(f"<pong xmlns='{NAMESPACE}'>12.50</pong>", operation="ping") == 12.5
    assert refused({"ping": "x", "more": 1}, operation="ping").path == "params.more"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12.50", 12.5),
        ("-0", 0),
        ("0.1", 0.1),
        ("0.10000000000000000001", "0.10000000000000000001"),
        ("9007199254740993", "9007199254740993"),
        ("9" * 5000, "9" * 5000),
        ("", None),
        (" 7 ", 7),
    ],
)
def test_a_number_is_exact_or_a_string(text: str, value: Any) -> None:
    assert answered(f"<pong xmlns='{NAMESPACE}'>{text}</pong>", operation="ping") == value


def answer(inner: str) -> str:
    return f"<r:sendResponse xmlns:r='{NAMESPACE}'>{inner}</r:sendResponse>"


def test_an_answer_is_read_by_its_schema() -> None:
    data = answered(
        answer(
            "<item code='c'><name/><flag>1</flag><data> AA EC </data><tag>a</tag><note xmlns:i="
            "'http://www.w3.org/2001/XMLSchema-instance' i:nil='true'>x</note></item>"
        )
    )
    assert data["item"] == {
        "name": "",
        "flag": True,
        "tag": ["a"],
        "note": None,
        "code": "c",
        "pair": [],
        "data": {"$binary": "AAEC", "contentType": "application/octet-stream"},
    }
    assert answered(answer("")) == {"_value_1": []}


def test_turns_of_a_repeating_sequence() -> None:
    inner = "".join(f"<pair><key>{n}</key><value>v</value></pair>" for n in range(3))
    assert [one["key"] for one in answered(answer(f"<item><name>a</name>{inner}</item>"))["item"]["pair"]] == list(
        "012"
    )
    assert answered(f"<rows xmlns='{NAMESPACE}'><a>1</a><b>x</b><a>2</a><a>3</a><b>y</b></rows>", operation="list") == {
        "_value_1": [{"a": 1, "b": "x"}, {"a": 2}, {"a": 3, "b": "y"}]
    }


def test_what_the_schema_does_not_know_is_kept() -> None:
    data = answered(answer("<item><name>a</name><extra><x>1</x><x>2</x></extra></item>"))
    assert data["item"]["extra"] == {"x": ["1", "2"]}


@pytest.mark.parametrize(
    ("xml", "path"),
    [
        ("<item><name>a</name><count>many secrets</count></item>", "data.item.count"),
        ("<item><name>a</name><flag>yes</flag></item>", "data.item.flag"),
        ("<item><name>a</name><data>@@@</data></item>", "data.item.data"),
    ],
)
def test_what_its_type_does_not_have_is_malformed(xml: str, path: str) -> None:
    with pytest.raises(IntegrationError) as caught:
        answered(answer(xml))
    assert (caught.value.code, caught.value.path) == (ErrorCode.MALFORMED_RESPONSE, path)
    assert "secrets" not in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"nothing", b"<html/>", b'{"a": 1}', b"<a", b"\xff\xfe",
        (ENVELOPE_11 % "").encode(), (ENVELOPE_11 % "<other/>").encode(),
        b"<!DOCTYPE a>" + (ENVELOPE_11 % answer("")).encode(),
        b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + (ENVELOPE_11 % answer("&x;")).encode(),
        (ENVELOPE_11 % answer("<z>" * 150 + "</z>" * 150)).encode(),
        (ENVELOPE_11 % answer("<z>" * 300 + "</z>" * 300)).encode(),
        (ENVELOPE_11 % answer("<z " + " ".join(f"a{n}=''" for n in range(2000)) + "/>")).encode(),
        (ENVELOPE_11 % answer("<z " + " ".join(f"xmlns:a{n}='u{n}'" for n in range(2000)) + "/>")).encode(),
    ],
)  # fmt: skip
def test_what_is_no_answer(body: bytes) -> None:
    with pytest.raises(IntegrationError) as caught:
        adapter().parse(InboundResponse(200, {"content-type": "text/xml"}, body))
    assert caught.value.code == ErrorCode.MALFORMED_RESPONSE
    assert adapter().refusal(InboundResponse(500, {}, body)) is None


def test_a_flood_of_elements_is_refused_before_it_is_read() -> None:
    body = (ENVELOPE_11 % answer("<z>1</z>" * MAX_ELEMENTS)).encode()
    with pytest.raises(IntegrationError) as caught:
        adapter().parse(InboundResponse(200, {}, body))
    assert caught.value.code == ErrorCode.RESPONSE_TOO_LARGE


def test_no_content_is_null_only_where_it_may_be() -> None:
    assert adapter().parse(InboundResponse(202, {}, b"")).data is None
    assert adapter(operation="tell").parse(InboundResponse(200, {}, b"")).data is None


FAULT_11 = (
    "<e:Fault xmlns:e='http://schemas.xmlsoap.org/soap/envelope/'><faultcode>{code}</faultcode>"
    "<faultstring>{reason}</faultstring><detail>{detail}</detail></e:Fault>"
)
FAULT_12 = (
    "<e:Fault xmlns:e='http://www.w3.org/2003/05/soap-envelope'><e:Code><e:Value>e:Sender</e:Value><e:Subcode>"
    "<e:Value xmlns:m='urn:m'>m:Busy</e:Value><e:Subcode><e:Value>nope:Late</e:Value></e:Subcode></e:Subcode></e:Code>"
    "<e:Reason><e:Text>later</e:Text></e:Reason></e:Fault>"
)


def refusal(body: str, *, status: int = 500, envelope: str = ENVELOPE_11) -> IntegrationError | None:
    return adapter().refusal(InboundResponse(status, {}, (envelope % body).encode()))


def test_a_fault_of_each_version() -> None:
    error = refusal(FAULT_11.format(code="e:Server", reason="no", detail="<a><b>1</b></a>"))
    assert error is not None
    assert (error.code, error.details) == (
        ErrorCode.SOAP_FAULT,
        {"statusCode": 500, "faultcode": "Server", "faultstring": "no", "detail": {"a": {"b": "1"}}},
    )
    error = refusal(FAULT_12, envelope=ENVELOPE_12)
    assert error is not None
    assert error.details == {
        "statusCode": 500, "faultcode": "Sender", "faultstring": "later", "subcodes": ["{urn:m}Busy", "nope:Late"],
    }  # fmt: skip


def test_a_fault_in_a_200_is_no_success() -> None:
    with pytest.raises(IntegrationError) as caught:
        answered(FAULT_11.format(code="x", reason="r" * 1000, detail="d" * 100_000))
    details = caught.value.details
    assert (caught.value.code, len(details["faultstring"])) == (ErrorCode.SOAP_FAULT, 256)
    assert details["detailCut"] is True
    assert len(json.dumps(details["detail"])) <= 4100


@pytest.mark.parametrize("detail", ["<a>" + "<b>x</b>" * 5000 + "</a>", "<a/>" * 9000, "<a b='" + "x" * 9000 + "'/>"])
def test_a_faults_detail_is_bounded(detail: str) -> None:
    error = refusal(FAULT_11.format(code="x", reason="", detail=detail))
    assert error is not None
    assert len(json.dumps(error.details["detail"])) <= 8192


def test_a_refused_credential_is_told_by_ws_securitys_code() -> None:
    error = refusal(FAULT_11.format(code="wsse:FailedAuthentication", reason="", detail=""))
    assert error is not None
    assert error.code == ErrorCode.AUTH_ERROR


@pytest.mark.parametrize("status", [401, 403, 408, 429])
def test_a_status_that_says_all(status: int) -> None:
    assert refusal(FAULT_11.format(code="x", reason="", detail=""), status=status) is None


def failure(call: Callable[[], Any]) -> IntegrationError | None:
    try:
        call()
    except IntegrationError as error:
        return error
    return None


@settings(max_examples=150, deadline=None)
@given(st.text())
def test_any_text_is_sent_exactly_or_refused(text: str) -> None:
    ping = adapter(operation="ping")
    if any(
        (ord(one) < 32 and one not in "\t\n\r") or 0xD800 <= ord(one) <= 0xDFFF or one in "\ufffe\uffff" for one in text
    ):
        assert refused({"ping": text}, operation="ping").path == "params.ping"
    else:
        body = ping.build(params={"ping": text}, config={}, connection={}).body or b""
        assert (etree.fromstring(body)[-1][0].text or "") == text


_NAMES = ["item", "name", "tag", "pair", "key", "_value_1", "_type", "_headers", "self", "code", "first", "cash"]
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_NAMES), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(_JSON)
def test_whatever_the_params_are_there_is_a_request_or_a_path(item: Any) -> None:
    error = failure(lambda: adapter().build(params={"item": item}, config={}, connection={}))
    assert error is None or (error.code, (error.path or "")[:11]) == (ErrorCode.VALIDATION_ERROR, "params.item")


_XML = st.text(alphabet="<>/=\"'ab:&;# ", max_size=80)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200) | _XML.map(lambda text: (ENVELOPE_11 % text).encode()))
def test_whatever_the_answer_is_it_is_read_or_malformed(body: bytes) -> None:
    error = failure(lambda: adapter().parse(InboundResponse(200, {}, body)))
    assert error is None or error.code == ErrorCode.MALFORMED_RESPONSE
