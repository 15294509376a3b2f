"""Whether a token has expired: by its own time, and by what the upstream answers."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration_service.activities.execution.expiry import has_expired, is_refused_as_expired
from integration_service.activities.outbound.messages import InboundResponse
from integration_service.contracts.credentials import ApiKey, IntegrationCredential, OAuth2Credential
from integration_service.contracts.definitions import IntegrationAuthType, OAuth2Config
from integration_service.contracts.errors import IntegrationError
from integration_service.contracts.wire import parse

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MOMENT = timedelta(milliseconds=1)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def oauth(**config: Any) -> OAuth2Config:
    return parse(OAuth2Config, config)


def manual(**config: Any) -> OAuth2Config:
    return oauth(refreshTokenConfig={"strategy": "manual"}, **config)


def credential(expires_at: datetime | None) -> IntegrationCredential:
    return IntegrationCredential(
        id=str(uuid.uuid4()),
        integration_instance_id=str(uuid.uuid4()),
        created_at=NOW,
        updated_at=NOW,
        generation=1,
        type=IntegrationAuthType.OAUTH2,
        oauth2=OAuth2Credential(access_token="token", expires_at=expires_at),
    )


def api_key() -> IntegrationCredential:
    return IntegrationCredential(
        id=str(uuid.uuid4()),
        integration_instance_id=str(uuid.uuid4()),
        created_at=NOW,
        updated_at=NOW,
        generation=1,
        type=IntegrationAuthType.API_KEY,
        api_key=ApiKey(key="key", header_or_param="X-Key", in_header=True),
    )


def answer(status: int, body: Any = None) -> InboundResponse:
    return InboundResponse(status, {}, body if isinstance(body, bytes) else json.dumps(body).encode())


@pytest.mark.parametrize(
    ("expires_at", "expired"),
    [(None, False), (NOW - MOMENT, True), (NOW, True), (NOW + MOMENT, False), (datetime.min.replace(tzinfo=UTC), True)],
)
def test_a_token_has_expired_from_its_moment_on(expires_at: datetime | None, expired: bool) -> None:
    assert has_expired(credential(expires_at), oauth(), now=NOW) is expired


def test_what_has_no_token_of_ours_does_not_expire() -> None:
    dead = credential(NOW - MOMENT)
    assert not has_expired(dead, None, now=NOW)
    assert not has_expired(dead, manual(), now=NOW)  # somebody's update refreshes it, nothing else
    assert not has_expired(None, oauth(), now=NOW)
    assert not has_expired(api_key(), oauth(), now=NOW)


@pytest.mark.parametrize("status", [200, 204, 400, 401, 403, 404, 500])
def test_plainly_it_is_401_whatever_the_body(status: int) -> None:
    for body in (None, {"error": "invalid_token"}, b"", b"<html>"):
        assert is_refused_as_expired(answer(status, body), oauth()) is (status == 401)


def test_without_oauth_or_by_hand_no_answer_counts() -> None:
    assert not is_refused_as_expired(answer(401), None)
    assert not is_refused_as_expired(answer(401), manual())
    assert not is_refused_as_expired(answer(403), manual(tokenExpired={"status": [403]}))


def test_a_definition_names_other_statuses() -> None:
    config = oauth(tokenExpired={"status": [403, 404]})
    assert is_refused_as_expired(answer(403), config)
    assert is_refused_as_expired(answer(404), config)
    assert not is_refused_as_expired(answer(401), config)


@pytest.mark.parametrize(
    ("path", "values", "body", "expired"),
    [
        ("error", ["token_expired"], {"error": "token_expired"}, True),
        ("error", ["token_expired"], {"error": "not_found"}, False),
        ("error", ["token_expired"], {}, False),
        ("error", ["a", "b"], {"error": "b"}, True),
        ("error.code", [190], {"error": {"code": 190}}, True),
        ("error.code", [190], {"error": {"code": "190"}}, False),
        ("error.code", [190], {"error": "code"}, False),
        ("error.code", [190], {"error": None}, False),
        ("errors.0.code", ["expired"], {"errors": [{"code": "expired"}]}, True),
        ("errors.0.code", ["expired"], {"errors": []}, False),
        ("errors.1.code", ["expired"], {"errors": [{"code": "expired"}]}, False),
        ("errors.0", ["expired"], {"errors": {"0": "expired"}}, True),
        ("0", ["expired"], ["expired"], True),
        ("error", [{"code": 1}], {"error": {"code": 1}}, True),
        ("error", [None], {"error": None}, True),
        ("error", ["expired"], [], False),
        ("error", ["expired"], "error", False),
        ("error", ["expired"], 7, False),
        ("error", ["expired"], b"", False),
        ("error", ["expired"], b"\xff\xfe{", False),
        ("error", ["expired"], b"<error>expired</error>", False),
        ("error", ["expired"], b'{"error": "expired"', False),
        ("error", ["expired"], b"\xef\xbb\xbf" + b'{"error": "expired"}', True),
        ("error", ["expired"], b"[" * 100_000, False),
        ("error", [1], b"1" * 5000, False),
    ],
)
def test_a_definition_names_a_place_in_the_body(path: str, values: list[Any], body: Any, expired: bool) -> None:
    config = oauth(tokenExpired={"status": [200], "path": path, "values": values})
    assert is_refused_as_expired(answer(200, body), config) is expired
    assert not is_refused_as_expired(answer(401, body), config)


@pytest.mark.parametrize(
    "sign", [{"path": "error"}, {"values": ["expired"]}, {"status": []}, {"path": ".", "values": [1]}]
)
def test_half_a_sign_is_refused(sign: dict[str, Any]) -> None:
    with pytest.raises(IntegrationError):
        oauth(tokenExpired=sign)


@given(body=JSON, path=st.lists(st.text("ab0²", min_size=1, max_size=3), min_size=1, max_size=4), values=st.lists(JSON))
def test_no_json_body_is_too_odd_to_look_at(body: Any, path: list[str], values: list[Any]) -> None:
    sign = {"status": [401], "path": ".".join(path), "values": [*values, "expired"]}
    assert is_refused_as_expired(answer(401, body), oauth(tokenExpired=sign)) in (True, False)


@given(body=st.binary(max_size=60))
def test_no_bytes_are_too_odd_to_look_at(body: bytes) -> None:
    sign = {"status": [401], "path": "error.0.code", "values": ["expired"]}
    assert is_refused_as_expired(answer(401, body), oauth(tokenExpired=sign)) in (True, False)


@given(
    path=st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=4),
    value=JSON.filter(lambda value: value == value),
)
def test_what_stands_at_the_path_is_found(path: list[str], value: Any) -> None:
    body = value
    for key in reversed(path):
        body = {key: body, f"{key}c": None}
    sign = {"status": [401], "path": ".".join(path), "values": [json.loads(json.dumps(value))]}
    assert is_refused_as_expired(answer(401, body), oauth(tokenExpired=sign))
