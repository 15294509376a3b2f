"""A callback's query is read strictly, and what is secret in it leaves sealed."""

from __future__ import annotations

import base64
import contextlib
import json
from urllib.parse import urlencode

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from integration_service.contracts.connections import CompleteAuthorization
from integration_service.contracts.credentials import SealKey
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.oauth import state_hash
from integration_service.contracts.wire import parse
from integration_service.gateway.authorization_response import AuthorizationResponse
from integration_service.storage.vault.seal import unseal

INSTANCE = "d3b07384-d9a0-4c9b-8f1e-5a2f6c7b8e90"
STATE = f"{INSTANCE}.{'r' * 43}"
PRIVATE = X25519PrivateKey.generate()
KEY = SealKey(key_id="k", public_key=base64.b64encode(PRIVATE.public_key().public_bytes_raw()).decode())


def test_a_code_is_sealed_with_all_that_came_beside_it() -> None:
    query = urlencode({"state": STATE, "code": "planted-code", "iss": "https://idp.test", "realmId": "9"})
    response = AuthorizationResponse.read(query)
    assert (response.instance_id, response.state_hash) == (INSTANCE, state_hash(STATE))
    assert "planted" not in repr(response)
    message = response.to_message(KEY)
    assert "planted" not in json.dumps(message)
    sent = parse(CompleteAuthorization, message)
    assert sent.sealed is not None
    assert json.loads(unseal(sent.sealed, PRIVATE.private_bytes_raw(), INSTANCE)) == {
        "code": "planted-code",
        "iss": "https://idp.test",
        "callback": {"iss": "https://idp.test", "realmId": "9"},
    }


def test_a_refusal_carries_its_code_and_issuer_only() -> None:
    query = urlencode({"state": STATE, "error": "access_denied", "error_description": "x", "iss": "https://idp.test"})
    message = AuthorizationResponse.read(query).to_message(KEY)
    assert message == {
        "stateHash": state_hash(STATE),
        "error": {"error": "access_denied", "iss": "https://idp.test"},
    }


def test_a_refusal_wins_over_a_code() -> None:
    response = AuthorizationResponse.read(urlencode({"state": STATE, "code": "c", "error": "access_denied"}))
    assert "error" in response.to_message(KEY)


@pytest.mark.parametrize("error", ["ünicode", 'quo"te', "back\\slash", "e" * 101])
def test_an_error_that_is_no_code_is_told_as_one(error: str) -> None:
    message = AuthorizationResponse.read(urlencode({"state": STATE, "error": error})).to_message(KEY)
    assert message["error"] == {"error": "unreadable_error"}
    parse(CompleteAuthorization, message)


def test_a_parameter_without_a_value_counts_as_left_out() -> None:
    assert AuthorizationResponse.read(f"state={STATE}&code=c&error=").error is None


@pytest.mark.parametrize("query", [f"state={STATE}", f"state={STATE}&code=", f"state={STATE}&access_token=x"])
def test_neither_code_nor_error_is_no_answer(query: str) -> None:
    with pytest.raises(IntegrationError, match="must return a code"):
        AuthorizationResponse.read(query).to_message(KEY)


@pytest.mark.parametrize(
    "query",
    [
        "",
        "code=c",
        "state=&code=c",
        "state=abc&code=c",
        f"state={INSTANCE}&code=c",
        f"state={INSTANCE}.&code=c",
        f"state={INSTANCE}.short&code=c",
        f"state={STATE}.more&code=c",
        f"state={STATE}%0a&code=c",
        f"state={STATE}%20&code=c",
        f"state={INSTANCE.upper()}.{'r' * 43}&code=c",
        f"state={{{INSTANCE}}}.{'r' * 43}&code=c",
        f"state={INSTANCE}.{'r' * 300}&code=c",
        f"state={STATE}&state={STATE}&code=c",
        f"state={STATE}&code=c&code=d",
        f"state={STATE}&code=c&code=",
        f"state={STATE}&code=c&x=1&x=1",
        f"state={STATE}&code={'c' * 9000}",
        f"state={STATE}&code=c&iss={'i' * 3000}",
        f"state={STATE}&code=c&{'n' * 200}=1",
        f"state={STATE}&code=c&" + "&".join(f"p{number}=1" for number in range(60)),
        f"state={STATE}&code=c&" + "&".join(f"p{number}={'v' * 8000}" for number in range(10)),
        f"state={STATE}&code=%ff",
        f"state={STATE}&code=a%00b",
        f"state={STATE}&code=a%0d%0ab",
    ],
)
def test_what_cannot_be_right_is_refused(query: str) -> None:
    with pytest.raises(IntegrationError) as refused:
        AuthorizationResponse.read(query)
    assert refused.value.code == ErrorCode.VALIDATION_ERROR


@given(st.text(max_size=200))
def test_any_query_is_read_or_refused(text: str) -> None:
    for query in (text, f"state={STATE}&{text}"):
        with contextlib.suppress(IntegrationError):
            parse(CompleteAuthorization, AuthorizationResponse.read(query).to_message(KEY))
