"""Credential values that come back are replaced, and the size is that of what is left."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from integration_service.activities.adapters.http import HttpAdapter
from integration_service.activities.auth import authenticate, secret_texts
from integration_service.activities.execution.redaction import REDACTED, redact
from integration_service.activities.outbound.messages import InboundResponse, OutboundRequest
from integration_service.contracts.credentials import ApiKey, BasicAuth, CredentialPayload
from integration_service.contracts.definitions import HttpRequest, IntegrationAuthType

SECRET = 'sk-l1ve/"+&\\Ünïcode=='


def of(key: str) -> tuple[str, ...]:
    payload = CredentialPayload(
        type=IntegrationAuthType.API_KEY, api_key=ApiKey(key=key, header_or_param="X", in_header=True)
    )
    return secret_texts(payload)


@pytest.mark.parametrize(
    ("data", "clean"),
    [
        (SECRET, REDACTED),
        (f"key {SECRET} twice {SECRET}.", f"key {REDACTED} twice {REDACTED}."),
        ({"a": [{"b": SECRET}]}, {"a": [{"b": REDACTED}]}),
        ({SECRET: 1, f"x{SECRET}": 2}, {REDACTED: 1, f"x{REDACTED}": 2}),
        (["ok", 7, None, True, 1.5], ["ok", 7, None, True, 1.5]),
        (None, None),
    ],
)
def test_a_secret_is_replaced_wherever_it_stands(data: Any, clean: Any) -> None:
    assert redact(data, of(SECRET))[0] == clean


@given(st.sampled_from(of(SECRET)), st.text(max_size=10), st.text(max_size=10), st.integers(0, 4))
@settings(max_examples=100)
def test_every_spelling_is_replaced_at_any_depth(spelling: str, before: str, after: str, depth: int) -> None:
    data: Any = before + spelling + after
    for level in range(depth):
        data = {"k": [data]} if level % 2 else [{before + spelling: data}]
    clean, size = redact(data, of(SECRET))
    shown = json.dumps(clean, ensure_ascii=False)
    assert json.dumps(spelling, ensure_ascii=False)[1:-1] not in shown
    assert REDACTED in shown
    assert size == len(json.dumps(clean, ensure_ascii=False, separators=(",", ":")).encode())


@pytest.mark.parametrize(
    "spelled",
    [
        quote(SECRET),  # with the slash as it is
        quote(SECRET, safe="!'()*;,/?:@&=+$#").lower(),
        json.dumps(json.dumps(SECRET, ensure_ascii=False)).replace("/", "\\/"),
        *(base64.b64encode((before + SECRET + "|more").encode()).decode() for before in ("", "-", "--")),
    ],
)
def test_it_is_replaced_as_others_spell_it(spelled: str) -> None:
    clean, _ = redact({"echo": json.loads(spelled) if spelled.startswith('"') else spelled}, of(SECRET))
    assert REDACTED in str(clean)


def test_a_key_of_the_query_is_replaced_within_an_encoded_address() -> None:
    key = ApiKey(key="sk/l1ve+&=x", header_or_param="k", in_header=False)
    payload = CredentialPayload(type=IntegrationAuthType.API_KEY, api_key=key)
    request = authenticate(OutboundRequest("GET", "https://api.test/x"), payload)
    back = (
        f"https://login.test/?next={quote(request.url, safe='')}&raw={base64.b64encode(request.url.encode()).decode()}"
    )
    clean, _ = redact(back, secret_texts(payload))
    assert clean.count(REDACTED) == 2
    assert "l1ve" not in clean


def test_user_and_password_as_sent_are_replaced() -> None:
    payload = CredentialPayload(
        type=IntegrationAuthType.BASIC, basic_auth=BasicAuth(username="user", password="pass-word-1")
    )
    echoed = {"authorization": "Basic dXNlcjpwYXNzLXdvcmQtMQ==", "user": "user", "p": "pass-word-1"}
    clean, _ = redact(echoed, secret_texts(payload))
    assert clean == {"authorization": f"Basic {REDACTED}", "user": "user", "p": REDACTED}


def test_a_short_secret_is_replaced_only_where_it_is_the_whole() -> None:
    assert redact({"a": "cat", "b": "category"}, ("cat",))[0] == {"a": REDACTED, "b": "category"}


def test_the_longer_of_two_secrets_leaves_no_piece() -> None:
    assert redact("Bearer abcdefgh", of("Bearer abcdefgh"))[0] == REDACTED
    assert redact("x abcdefgh", of("Bearer abcdefgh"))[0] == f"x {REDACTED}"


def test_without_secrets_data_is_the_same_object() -> None:
    data = {"a": [1, "ü"]}
    clean, size = redact(data, ())
    assert clean is data
    assert size == len('{"a":[1,"ü"]}'.encode())


@pytest.mark.parametrize("data", [None, [], {}, "", False, 0, 0.0])
def test_nothing_is_still_measured_and_a_number_may_be_a_secret(data: Any) -> None:
    assert redact(data, of(SECRET)) == (data, len(json.dumps(data)))
    assert redact(0, ("0",))[0] == REDACTED


@pytest.mark.parametrize("data", [{"a": "\ud800"}, ["\udfff x"], {"\ud83d": 1}, {"fine": "\U0001f600"}])
def test_a_lone_surrogate_in_an_answer_breaks_nothing(data: Any) -> None:
    # Half a pair, as an escape, is JSON by its grammar (RFC 8259 §8.2), so an upstream may send it.
    adapter = HttpAdapter("http://h", HttpRequest(method="GET", path="/"), at="request")
    body = json.dumps(data).encode()
    parsed = adapter.parse(InboundResponse(200, {"content-type": "application/json"}, body)).data
    assert (parsed == data) is ("fine" in data)
    clean, size = redact(parsed, of(SECRET))
    assert size == len(json.dumps(clean, ensure_ascii=False, separators=(",", ":")).encode())
