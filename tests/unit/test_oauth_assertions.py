"""Signing: each algorithm with its own kind of key, and no key in a message."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from integration_service.activities.oauth.assertions import sign
from integration_service.contracts.errors import ErrorCode, IntegrationError

RSA, P256, P384 = RSAKey.generate_key(2048), ECKey.generate_key("P-256"), ECKey.generate_key("P-384")
ED = OKPKey.generate_key("Ed25519")
KEYS: dict[str, Any] = {
    **dict.fromkeys(["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"], RSA),
    "ES256": P256,
    "ES384": P384,
    "EdDSA": ED,
}
CLAIMS = {"iss": "app", "n": 1}


def pem(key: Any, *, private: bool = True) -> str:
    text: str = key.as_pem(private=private).decode()
    return text


@pytest.mark.parametrize("algorithm", KEYS)
@pytest.mark.parametrize("form", ["pem", "jwk", "one line"])
def test_a_token_proves_itself(algorithm: str, form: str) -> None:
    key = KEYS[algorithm]
    text = json.dumps(key.as_dict(private=True)) if form == "jwk" else pem(key)
    text = text.replace("\n", "\\n") if form == "one line" else text
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = sign(dict(CLAIMS), key_text=text, key_id="k 1", algorithm=algorithm)
    token = jwt.decode(made, key, algorithms=[algorithm])
    assert token.header == {"typ": "JWT", "alg": algorithm, "kid": "k 1"}
    assert token.claims == CLAIMS


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
@pytest.mark.parametrize("secret", ["a secret that is long enough for anybody", '{"kty": "no key"', "short", "☃" * 20])
def test_a_secret_is_taken_as_it_is(algorithm: str, secret: str) -> None:
    made = sign(dict(CLAIMS), key_text=secret, key_id=None, algorithm=algorithm)
    token = jwt.decode(made, OctKey.import_key(secret.encode()), algorithms=[algorithm])
    assert token.header == {"typ": "JWT", "alg": algorithm}


def refused(text: str, algorithm: str) -> None:
    with pytest.raises(IntegrationError) as error:
        sign(dict(CLAIMS), key_text=text, key_id=None, algorithm=algorithm)
    assert (error.value.code, error.value.path) == (ErrorCode.VALIDATION_ERROR, "privateKey")
    assert str(error.value) == f"VALIDATION_ERROR: the key cannot sign with {algorithm} (privateKey)"
    assert error.value.__cause__ is None


@pytest.mark.parametrize(
    ("text", "algorithm"),
    [
        (pem(RSA), "ES256"),
        (pem(P256), "RS256"),
        (pem(P384), "ES256"),
        (pem(RSA, private=False), "RS256"),
        (json.dumps(RSA.as_dict(private=False)), "RS256"),
        pytest.param(json.dumps(OctKey.generate_key(256).as_dict()), "RS256", id="no key pair"),
        (RSA.as_pem(private=True, password="planted").decode(), "RS256"),
        ("", "HS256"),
        (pem(RSA), "none"),
    ],
)
def test_a_key_that_does_not_fit_is_refused(text: str, algorithm: str) -> None:
    refused(text, algorithm)


@given(st.text() | st.text().map(lambda text: f"{{{text}"), st.sampled_from(list(KEYS)))
@example('{"a":' * 50_000, "RS256")
@example('{"kty":"RSA","n":"AQ","e":"AQAB","d":"AQ"}', "RS256")
@example('{"kty":"EC","crv":"P-256","x":"AQ","y":"AQ","d":"AQ"}', "ES256")
@settings(max_examples=150)
def test_no_text_that_is_no_key_breaks_anything(text: str, algorithm: str) -> None:
    refused(text, algorithm)
