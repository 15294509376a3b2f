"""Credentials: one object of the type, and no secret in any text about them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from integration_service.contracts.credentials import CredentialPayload, IntegrationCredential, Sealed, parse_credential
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.wire import parse

SECRET = "planted-5c1e8f"

OBJECTS: dict[str, tuple[str, dict[str, Any]]] = {
    "basic": ("basicAuth", {"username": f"user-{SECRET}", "password": SECRET}),
    "api_key": ("apiKey", {"key": SECRET, "headerOrParam": "X-Key", "inHeader": True}),
    "oauth2": (
        "oauth2",
        {
            "accessToken": SECRET,
            "refreshToken": f"r-{SECRET}",
            "expiresAt": "2026-01-01T00:00:00.000Z",
            "tokenType": "Bearer",
            "scope": "a b",
            "rawResponse": {"access_token": SECRET},
        },
    ),
    "jwt": ("jwt", {"token": SECRET, "expiresAt": "2026-01-01T00:00:00.000Z"}),
    "custom": ("custom", {"anything": [SECRET, None, {"deep": SECRET}]}),
}


def wire(kind: str) -> dict[str, Any]:
    key, value = OBJECTS[kind]
    return {"type": kind, key: value}


@pytest.mark.parametrize("kind", OBJECTS)
def test_every_kind_comes_back_as_it_was_given(kind: str) -> None:
    assert parse_credential(json.dumps(wire(kind)).encode()).to_wire() == wire(kind)


@pytest.mark.parametrize("kind", OBJECTS)
def test_no_secret_shows_in_repr_or_str(kind: str) -> None:
    payload = parse(CredentialPayload, wire(kind))
    whole = parse(
        IntegrationCredential,
        {
            **wire(kind),
            "id": "2f1f6f0a-0f7c-4b7e-9a43-0d6e6f6f0a11",
            "integrationInstanceId": "2f1f6f0a-0f7c-4b7e-9a43-0d6e6f6f0a12",
            "createdAt": "2026-01-01T00:00:00Z",
            "updatedAt": "2026-01-01T00:00:00Z",
            "generation": 1,
        },
    )
    inner = getattr(payload, {"basic": "basic_auth", "api_key": "api_key"}.get(kind, kind))
    shown = [payload, whole] + ([inner] if kind != "custom" else [])
    for value in shown:
        assert SECRET not in repr(value) + str(value)


@pytest.mark.parametrize("kind", OBJECTS)
@pytest.mark.parametrize("other", OBJECTS)
def test_the_object_is_the_one_of_the_type(kind: str, other: str) -> None:
    key, value = OBJECTS[other]
    if kind == other:
        assert parse(CredentialPayload, {"type": kind, key: value}).type == kind
        return
    if (kind, other) == ("oauth2", "basic"):
        return  # grant password: see below
    for given_ in ({"type": kind, key: value}, {**wire(kind), key: value}):
        with pytest.raises(IntegrationError) as refused:
            parse(CredentialPayload, given_)
        assert refused.value.code == ErrorCode.VALIDATION_ERROR
        assert SECRET not in f"{refused.value} {refused.value.details}"


@pytest.mark.parametrize("tokens", [{}, {"oauth2": OBJECTS["oauth2"][1]}])
def test_oauth2_may_carry_user_and_password(tokens: dict[str, Any]) -> None:
    given_ = {"type": "oauth2", "basicAuth": OBJECTS["basic"][1], **tokens}
    payload = parse(CredentialPayload, given_)
    assert payload.to_wire() == given_
    assert SECRET not in repr(payload)
    for other in ("api_key", "jwt", "custom"):
        key, value = OBJECTS[other]
        with pytest.raises(IntegrationError):
            parse(CredentialPayload, {**given_, key: value})


@pytest.mark.parametrize(
    "key",
    [
        {"privateKey": SECRET},
        {"secret": SECRET},
        {"secret": SECRET, "keyId": "k1"},
        {"token": SECRET, "expiresAt": "2026-01-01T00:00:00.000Z"},
    ],
)
def test_a_jwt_credential_is_a_token_or_a_key(key: dict[str, Any]) -> None:
    payload = parse_credential(json.dumps({"type": "jwt", "jwt": key}).encode())
    assert payload.to_wire() == {"type": "jwt", "jwt": key}
    assert SECRET not in repr(payload.jwt) + str(payload.jwt)


@pytest.mark.parametrize(
    "key",
    [
        {},
        {"token": SECRET, "secret": SECRET},
        {"privateKey": SECRET, "secret": SECRET},
        {"keyId": "k1"},
        {"token": SECRET, "keyId": "k1"},
        {"secret": SECRET, "expiresAt": "2026-01-01T00:00:00.000Z"},
        {"token": f"{SECRET}\r\nX-Evil: 1"},
        {"token": ""},
        {"secret": ""},
    ],
)
def test_a_jwt_credential_is_not_both_nor_neither(key: dict[str, Any]) -> None:
    with pytest.raises(IntegrationError) as refused:
        parse_credential(json.dumps({"type": "jwt", "jwt": key}).encode())
    assert (refused.value.path or "").startswith("sealed.jwt")
    assert SECRET not in f"{refused.value} {refused.value.details}"


@pytest.mark.parametrize(
    "given_", [{"type": "api_key"}, {"type": "none"}, {"type": "none", "custom": {}}, {"type": "oauth2"}, {}]
)
def test_a_type_without_its_object_is_refused(given_: dict[str, Any]) -> None:
    with pytest.raises(IntegrationError):
        parse_credential(json.dumps(given_).encode())


@pytest.mark.parametrize(
    "change",
    [
        ("basic", "username", "a:b"),
        ("basic", "username", "a\nb"),
        ("basic", "password", "a\r\nX-Evil: 1"),
        ("api_key", "key", ""),
        ("api_key", "key", "a\r\nb"),
        ("api_key", "headerOrParam", "X Key"),
        ("api_key", "headerOrParam", "X-Key:"),
        ("api_key", "headerOrParam", ""),
        ("api_key", "inHeader", None),
    ],
)
def test_what_could_not_stand_in_a_header_is_refused_when_it_is_submitted(change: tuple[str, str, Any]) -> None:
    kind, field, value = change
    key, object_ = OBJECTS[kind]
    with pytest.raises(IntegrationError) as refused:
        parse_credential(json.dumps({"type": kind, key: {**object_, field: value}}).encode())
    assert refused.value.path == f"sealed.{key}.{field}"
    assert SECRET not in f"{refused.value} {refused.value.details}"


@pytest.mark.parametrize(
    "plaintext",
    [
        b"",
        SECRET.encode(),
        b"{",
        b'"' + SECRET.encode() + b'"',
        b"\xff\xfe" + SECRET.encode(),
        b"[1]",
        b"null",
        b"1",
        b'{"type": "' + SECRET.encode() + b'"}',
        b'{"type": ["' + SECRET.encode() + b'"]}',
    ],
)
def test_what_is_no_credential_is_refused_without_a_quote(plaintext: bytes) -> None:
    with pytest.raises(IntegrationError) as refused:
        parse_credential(plaintext)
    assert refused.value.code == ErrorCode.VALIDATION_ERROR
    assert SECRET not in f"{refused.value} {refused.value.details} {refused.value.__cause__}"


def test_absurdly_nested_json_is_refused_like_other_bad_input() -> None:
    with pytest.raises(IntegrationError):
        parse_credential(b"[" * 200_000)


MISPLACED = st.sampled_from(["type", "apiKey", "basicAuth", "oauth2", "jwt", "custom"])
VALUES = st.recursive(
    st.just(SECRET) | st.integers() | st.none(), lambda inner: st.lists(inner, max_size=2), max_leaves=3
)
INNER = st.dictionaries(
    st.sampled_from(["key", "headerOrParam", "inHeader", "username", "password", "accessToken", "expiresAt", "token"]),
    VALUES,
    max_size=4,
)


@given(st.dictionaries(MISPLACED, VALUES | INNER, max_size=3), st.sampled_from(list(OBJECTS)))
@settings(max_examples=200)
def test_a_refusal_never_quotes_a_value(given_: dict[str, Any], kind: str) -> None:
    said = ""
    try:
        parse_credential(json.dumps({"type": kind, **given_}).encode())
    except IntegrationError as refused:
        said = f"{refused} {refused.details} {refused!r}"
    assert SECRET not in said


@pytest.mark.parametrize("text", ["", "a b", "a-_b", "====", "ab\n", "é"])
def test_a_seal_is_base64(text: str) -> None:
    with pytest.raises(IntegrationError) as refused:
        parse(Sealed, {"keyId": "k", "sealed": text})
    assert refused.value.path == "sealed"
