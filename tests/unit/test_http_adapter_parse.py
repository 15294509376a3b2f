"""An HTTP response into data."""

from __future__ import annotations

import base64
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from integration_service.activities.adapters.http import HttpAdapter
from integration_service.activities.outbound.messages import InboundResponse
from integration_service.contracts.definitions import HttpRequest
from integration_service.contracts.errors import ErrorCode, IntegrationError

ADAPTER = HttpAdapter("https://api.test", HttpRequest(method="GET", path="/"), at="methods[0].request")


def parsed(body: bytes, content_type: str | None = None, **headers: str) -> Any:
    given_ = {name.replace("_", "-"): value for name, value in headers.items()}
    if content_type is not None:
        given_["content-type"] = content_type
    return ADAPTER.parse(InboundResponse(status=200, headers=given_, body=body)).data


@pytest.mark.parametrize(
    ("body", "kind", "data"),
    [
        (b'{"a": [1, null]}', "application/json", {"a": [1, None]}),
        (b'{"a": 1}', "Application/JSON; charset=utf-8", {"a": 1}),
        (b"[1]", "application/vnd.api+json", [1]),
        (b"7", "text/json", 7),
        (b"null", "application/json", None),
        (b'\xef\xbb\xbf{"a": 1}', "application/json", {"a": 1}),
        (b'"text"', "application/problem+json", "text"),
        (b'{"a": 1}', None, {"a": 1}),
        (b'{"a": 1}', "*", {"a": 1}),
        (b'{"a": 1}', "", {"a": 1}),
        (b"plain", None, "plain"),
        (b"plain", "*", "plain"),
        (b'{"a": 1}', "text/plain", '{"a": 1}'),
        ("grün".encode(), "text/plain", "grün"),
        ("grün".encode("latin-1"), "text/plain; charset=ISO-8859-1", "grün"),
        ("grün".encode(), "text/plain; charset=no-such", "grün"),
        (b"<a/>", "application/xml", "<a/>"),
        (b"<a/>", "application/atom+xml; charset=utf-8", "<a/>"),
        (b"<p>", "text/html", "<p>"),
        (b"\x89PNG", "image/png", {"$binary": "iVBORw==", "contentType": "image/png"}),
        (b"PK", "application/zip", {"$binary": "UEs=", "contentType": "application/zip"}),
    ],
)
def test_a_body_becomes_data_by_its_media_type(body: bytes, kind: str | None, data: Any) -> None:
    assert parsed(body, kind) == data


@pytest.mark.parametrize("kind", [None, "application/json", "text/plain", "image/png", "*"])
def test_an_empty_body_is_null(kind: str | None) -> None:
    assert parsed(b"", kind) is None


def test_a_file_keeps_its_name() -> None:
    data = parsed(b"x", "application/pdf", content_disposition='attachment; filename="a b.pdf"')
    assert data == {"$binary": "eA==", "contentType": "application/pdf", "fileName": "a b.pdf"}


@pytest.mark.parametrize(
    "body",
    [b"<html>", b"{", b'{"a": NaN}', b"[Infinity]", b"-Infinity", b"{} trailing", b"\xff\xfe\xfa", b"[" * 100_000],
    ids=["html", "half", "NaN", "Infinity", "-Infinity", "trailing", "no text", "nested"],
)
def test_what_says_json_and_is_none_is_malformed(body: bytes) -> None:
    with pytest.raises(IntegrationError) as refused:
        parsed(body, "application/json")
    assert refused.value.code == ErrorCode.MALFORMED_RESPONSE
    assert body.decode(errors="replace") not in str(refused.value)


NOT_PASSED_ON = {
    "surrogate as bytes": b'"\xed\xa0\x80"',
    "huge mantissa": b"1" * 400 + b".0",
    "huge together": b"-" + b"1" * 250 + b"e99",
    "huge exponent": b"[1e999]",
    "huge in UTF-16": "[1e999]".encode("utf-16"),
    "101 deep": b"[" * 101 + b"]" * 101,
    "101 deep behind wide": b'[{"]]": "[[\\""},' + b"[],{}," * 100 + b"[" * 100 + b"]" * 101,
}


@pytest.mark.parametrize("body", NOT_PASSED_ON.values(), ids=NOT_PASSED_ON)
def test_json_that_other_readers_cannot_hold_is_malformed(body: bytes) -> None:
    with pytest.raises(IntegrationError) as refused:
        parsed(body, "application/json")
    assert refused.value.code == ErrorCode.MALFORMED_RESPONSE


@pytest.mark.parametrize(
    ("body", "data"),
    [
        (b"1.5e99", 1.5e99),
        (b"0." + b"1" * 300, 1 / 9),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b'["\\ud800", {"\\udfff": 1}]', ["\ufffd", {"\ufffd": 1}]),
        ('{"a": "ü"}'.encode("utf-16"), {"a": "ü"}),
        (b'["' + b"[" * 200 + b'"' + b",[]" * 200 + b"]", ["[" * 200] + [[]] * 200),
    ],
)
def test_json_at_the_edge_is_data(body: bytes, data: Any) -> None:
    assert parsed(body, "application/json") == data


def test_100_levels_are_data() -> None:
    assert parsed(b"[" * 100 + b"]" * 100, "application/json") is not None


@pytest.mark.parametrize("charset", ["unicode_escape", "utf-7"])
def test_no_charset_makes_half_a_surrogate_pair(charset: str) -> None:
    parsed(b"\\ud800+2AA-", f"text/plain; charset={charset}").encode()


@pytest.mark.parametrize("name", ["undefined''a", "unicode_escape''%5Cud800", "no-such''a", "punycode''" + "a" * 9000])
def test_no_file_name_that_an_upstream_sends_breaks_the_call(name: str) -> None:
    data = parsed(b"x", "application/pdf", content_disposition=f"attachment; filename*={name}")
    assert data["$binary"] == "eA=="
    data.get("fileName", "").encode()


HOSTILE = {
    "punycode": (b"a-\xff" * 3_000_000, "text/plain; charset=punycode", ""),
    "parameters": (b"x", 'text/plain; a="' + ";" * 99_000, ""),
    "disposition": (b"x", "image/png", 'attachment; a="' + ";" * 99_000),
    "digits": (b"1" * 10_000_000, "", ""),
    "rows of digits": (b"[" + (b"1" * 199 + b",") * 50_000 + b"1]", "application/json", ""),
    "openers": (b"[" * 10_000_000, "", ""),
    "wide": (b"[" + b"[]," * 500_000 + b"1]", "application/json", ""),
}


@pytest.mark.parametrize(("body", "kind", "disposition"), HOSTILE.values(), ids=HOSTILE)
def test_large_hostile_answers_do_not_take_long(body: bytes, kind: str, disposition: str) -> None:
    began = time.process_time()
    parsed(body, kind, content_disposition=disposition)
    assert time.process_time() - began < 3  # the slowest takes 0.5 s; quadratic readers take over 5 s


@pytest.mark.parametrize("body", [b"NaN", b'{"a": NaN}', b"[-Infinity]"])
def test_without_a_media_type_what_is_not_quite_json_is_text(body: bytes) -> None:
    assert parsed(body) == body.decode()


def test_without_a_media_type_absurd_nesting_is_text() -> None:
    assert parsed(b"[" * 100_000) == "[" * 100_000


def test_without_a_media_type_what_is_no_text_is_binary() -> None:
    assert parsed(b"\x89PNG\xff")["$binary"] == base64.b64encode(b"\x89PNG\xff").decode()


@pytest.mark.parametrize(
    "charset", ["undefined", "idna", "punycode", "hex", "utf-7", "x" * 500, "a b", '"', "unicode_escape"]
)
def test_no_charset_that_an_upstream_names_breaks_the_call(charset: str) -> None:
    assert isinstance(parsed(b"plain \xff\\x", f"text/plain; charset={charset}"), str)


@given(st.binary(max_size=60), st.none() | st.text(max_size=40), st.text(max_size=40))
@settings(max_examples=200)
def test_any_answer_gives_data_or_malformed(body: bytes, kind: str | None, disposition: str) -> None:
    code = None
    try:
        parsed(body, kind, content_disposition=disposition)
    except IntegrationError as refused:
        code = refused.code
    assert code in (None, ErrorCode.MALFORMED_RESPONSE)
