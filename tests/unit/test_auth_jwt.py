"""JSON Web Tokens on requests: stored ones, and ones minted from a key and the definition's claims."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from integration_service.activities.auth import authenticate, check_auth, check_credential, secret_texts
from integration_service.activities.execution.redaction import redact
from integration_service.activities.outbound.messages import OutboundRequest
from integration_service.contracts.credentials import CredentialPayload
from integration_service.contracts.definitions import DefinitionFile
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.wire import parse
from tests.world import definition_file

PLAIN = OutboundRequest("GET", "https://api.test/x", headers=(("Authorization", "placeholder"),))
NOW = datetime(2030, 5, 17, 12, 0, 0, 500_000, UTC)
CONFIG = {"issuer": "app-7", "tenant": {"id": 42}}
CLAIMS = {"iss": "{config.issuer}", "sub": "a {config.tenant.id} b", "n": 1, "deep": [{"x": "{config.issuer}"}]}
RSA = RSAKey.generate_key(2048)
EC = ECKey.generate_key("P-256")
ED = OKPKey.generate_key("Ed25519")
SECRET = "planted-hmac-secret-of-thirty-two-bytes"
Keys = dict[str, str]


def pem(key: RSAKey | ECKey) -> str:
    return key.as_pem(private=True).decode()


def credential(**given: Any) -> CredentialPayload:
    return parse(CredentialPayload, {"type": "jwt", "jwt": given})


def definition(**config: Any) -> DefinitionFile:
    return parse(DefinitionFile, definition_file("t", authType="jwt", **({"jwtConfig": config} if config else {})))


def sent(payload: CredentialPayload, **config: Any) -> OutboundRequest:
    return authenticate(PLAIN, payload, definition=definition(**config), config=CONFIG, now=NOW)


def refused(payload: CredentialPayload, **config: Any) -> IntegrationError:
    with pytest.raises(IntegrationError) as error:
        sent(payload, **config)
    said = f"{error.value} {error.value.details} {error.value.__cause__!r}"
    assert not any(text in said for text in secret_texts(payload))
    return error.value


def unpublishable(**config: Any) -> str | None:
    with pytest.raises(IntegrationError) as error:
        check_auth(definition(**config))
    assert error.value.code == ErrorCode.VALIDATION_ERROR
    return error.value.path


def test_a_stored_token_is_sent_as_bearer() -> None:
    for request in (sent(credential(token="a.b.c")), authenticate(PLAIN, credential(token="a.b.c"))):
        assert [value for name, value in request.headers if name.lower() == "authorization"] == ["Bearer a.b.c"]
        assert request.secret_headers == {"authorization"}


@pytest.mark.parametrize(("prefix", "value"), [("", "a.b.c"), ("JWT ", "JWT a.b.c"), ("t=", "t=a.b.c")])
def test_the_definition_names_header_and_prefix(prefix: str, value: str) -> None:
    request = sent(credential(token="a.b.c"), header="X-Token", prefix=prefix)
    assert request.header("x-token") == value
    assert request.header("authorization") == "placeholder"
    assert request.secret_headers == {"x-token"}


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(microseconds=-1), timedelta(days=-900)])
def test_an_expired_token_is_not_sent(ahead: timedelta) -> None:
    error = refused(credential(token="planted.old.token", expiresAt=(NOW + ahead).isoformat()))
    assert (error.code, error.message) == (ErrorCode.AUTH_ERROR, "the stored token has expired")


def test_a_token_is_sent_until_it_expires() -> None:
    soon = (NOW + timedelta(milliseconds=1)).isoformat()
    assert sent(credential(token="a.b.c", expiresAt=soon)).header("authorization") == "Bearer a.b.c"


@pytest.mark.parametrize(
    ("algorithm", "key", "given"),
    [
        ("RS256", RSA, {"privateKey": pem(RSA)}),
        ("PS256", RSA, {"privateKey": json.dumps(RSA.as_dict(private=True))}),
        ("ES256", EC, {"privateKey": pem(EC)}),
        ("EdDSA", ED, {"privateKey": ED.as_pem(private=True).decode()}),
        ("HS256", OctKey.import_key(SECRET), {"secret": SECRET}),
        ("HS512", OctKey.import_key(SECRET * 2), {"secret": SECRET * 2}),
    ],
)
@pytest.mark.parametrize("key_id", [None, "key-1"])
def test_a_minted_token_proves_itself(algorithm: str, key: Any, given: Keys, key_id: str | None) -> None:
    named = {"keyId": key_id} if key_id else {}
    request = sent(credential(**given, **named), algorithm=algorithm, claims=CLAIMS, audience="{config.issuer}/api")
    token = (request.header("authorization") or "").removeprefix("Bearer ")
    decoded = jwt.decode(token, key, algorithms=[algorithm])
    assert decoded.header["alg"] == algorithm
    assert decoded.header.get("kid") == key_id
    issued = int(NOW.timestamp())
    assert isinstance(decoded.claims.pop("jti"), str)
    assert decoded.claims == {
        "iss": "app-7",
        "sub": "a 42 b",
        "n": 1,
        "deep": [{"x": "app-7"}],
        "aud": "app-7/api",
        "iat": issued,
        "exp": issued + 300,
    }


def test_each_request_has_a_token_of_its_own() -> None:
    payload = credential(secret=SECRET)
    first, second = (sent(payload, algorithm="HS256", lifetimeMs=60_000) for _ in range(2))
    tokens = [(request.header("authorization") or "").removeprefix("Bearer ") for request in (first, second)]
    claims = [jwt.decode(token, OctKey.import_key(SECRET), algorithms=["HS256"]).claims for token in tokens]
    assert claims[0]["jti"] != claims[1]["jti"]
    assert claims[0]["exp"] - claims[0]["iat"] == 60


@pytest.mark.parametrize("prefix", ["Bearer ", "", "token="])
def test_a_minted_token_does_not_come_back(prefix: str) -> None:
    payload = credential(secret=SECRET)
    request = sent(payload, algorithm="HS256", header="X-Token", prefix=prefix)
    value = request.header("x-token") or ""
    token = value.removeprefix(prefix)
    echoed = {"header": value, "inside": f"you sent {token}!", "key": SECRET}
    clean, _ = redact(echoed, secret_texts(payload, sent=request))
    assert token not in str(clean)
    assert SECRET not in str(clean)


@pytest.mark.parametrize(
    ("given", "config"),
    [
        ({"secret": SECRET}, {}),
        ({"secret": SECRET}, {"header": "X-Token"}),
        ({"secret": SECRET}, {"algorithm": "RS256"}),
        ({"privateKey": pem(RSA)}, {"algorithm": "HS256"}),
        ({"privateKey": "planted no key"}, {"algorithm": "RS256"}),
        ({"privateKey": '{"kty": "planted"}'}, {"algorithm": "RS256"}),
        ({"privateKey": pem(EC)}, {"algorithm": "RS256"}),
        ({"privateKey": pem(RSA)}, {"algorithm": "ES256"}),
        ({"privateKey": RSA.as_pem(private=False).decode()}, {"algorithm": "RS256"}),
    ],
)
def test_a_key_that_cannot_sign_is_the_credentials_fault(given: Keys, config: dict[str, Any]) -> None:
    assert refused(credential(**given), **config).code == ErrorCode.AUTH_ERROR


@given(
    st.sampled_from(["RS256", "PS512", "ES256", "ES384", "EdDSA"]),
    st.text(min_size=1, max_size=40)
    | st.text(max_size=20).map(lambda text: f"-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----")
    | st.dictionaries(st.sampled_from(["kty", "crv", "d", "x", "n", "e"]), st.text(max_size=9)).map(json.dumps)
    | st.just("[" * 100_000),
)
@settings(max_examples=150)
def test_any_text_that_is_no_key_is_the_credentials_fault(algorithm: str, text: str) -> None:
    with pytest.raises(IntegrationError) as error:
        sent(credential(privateKey=text), algorithm=algorithm)
    assert error.value.code == ErrorCode.AUTH_ERROR


@given(st.text(min_size=1, max_size=40))
@settings(max_examples=100)
def test_any_text_may_be_an_hmac_secret(text: str) -> None:
    try:
        token = (sent(credential(secret=text), algorithm="HS256").header("authorization") or "").split()[-1]
    except IntegrationError as error:
        code: str | None = error.code
        assert code == ErrorCode.AUTH_ERROR
        return
    assert jwt.decode(token, OctKey.import_key(text), algorithms=["HS256"])


def test_a_missing_config_value_is_named() -> None:
    error = refused(credential(secret=SECRET), algorithm="HS256", claims={"iss": "{config.missing}"})
    assert (error.code, error.path) == (ErrorCode.CONFIG_ERROR, "config.missing")


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"header": "X-Token", "prefix": ""},
        {"algorithm": "RS256"},
        {"algorithm": "EdDSA", "claims": CLAIMS, "audience": "https://{config.issuer}", "lifetimeMs": 86_400_000},
    ],
)
def test_what_can_be_published(config: dict[str, Any]) -> None:
    check_auth(definition(**config))
    assert definition(**config).content().get("jwtConfig", {}) == config


@pytest.mark.parametrize(
    ("config", "path"),
    [
        ({"claims": {"iss": "x"}}, "algorithm"),
        ({"lifetimeMs": 60_000}, "algorithm"),
        ({"algorithm": "HS256", "claims": {"exp": 1}}, "claims.exp"),
        ({"algorithm": "HS256", "claims": {"iat": 1}}, "claims.iat"),
        ({"algorithm": "HS256", "claims": {"aud": "x"}, "audience": "y"}, "claims.aud"),
        ({"algorithm": "HS256", "claims": {"iss": "{issuer}"}}, "claims.iss"),
        ({"algorithm": "HS256", "claims": {"a": [1, {"b": "{credential.secret}"}]}}, "claims.a[1].b"),
        ({"algorithm": "HS256", "audience": "{config.x"}, "audience"),
    ],
)
def test_what_cannot_be_published_is_named(config: dict[str, Any], path: str) -> None:
    assert unpublishable(**config) == f"jwtConfig.{path}"


@pytest.mark.parametrize(
    ("config", "path"),
    [
        ({"algorithm": "none"}, "algorithm"),
        ({"algorithm": "HS256", "lifetimeMs": 59_999}, "lifetimeMs"),
        ({"algorithm": "HS256", "lifetimeMs": 86_400_001}, "lifetimeMs"),
        ({"header": "X Token"}, "header"),
        ({"prefix": "Bearer"}, "prefix"),
        ({"prefix": "a\r\nX-Evil: "}, "prefix"),
        ({"prefix": " "}, "prefix"),
    ],
)
def test_what_no_file_may_say(config: dict[str, Any], path: str) -> None:
    with pytest.raises(IntegrationError) as error:
        definition(**config)
    assert error.value.path == f"jwtConfig.{path}"


def test_jwt_config_belongs_to_jwt() -> None:
    file = definition_file("t", authType="api_key", jwtConfig={"header": "X-Token"})
    with pytest.raises(IntegrationError) as error:
        check_auth(parse(DefinitionFile, file))
    assert error.value.path == "jwtConfig"


@pytest.mark.parametrize(
    ("given", "algorithm", "fits"),
    [
        ({"privateKey": pem(RSA)}, "RS256", True),
        ({"privateKey": pem(RSA)}, "PS512", True),
        ({"privateKey": pem(EC)}, "ES256", True),
        ({"secret": SECRET}, "HS256", True),
        ({"token": "e.y.J"}, "RS256", True),
        ({"token": "e.y.J"}, None, True),
        ({"privateKey": pem(RSA)}, None, False),
        ({"privateKey": pem(RSA)}, "ES256", False),
        ({"privateKey": pem(EC)}, "RS256", False),
        ({"privateKey": pem(EC)}, "ES384", False),
        ({"privateKey": "planted-no-key"}, "RS256", False),
        ({"privateKey": pem(RSA)}, "HS256", False),
        ({"secret": SECRET}, "RS256", False),
    ],
)
def test_a_key_is_tried_before_it_is_stored(given: Keys, algorithm: str | None, fits: bool) -> None:
    payload = credential(**given)
    described = definition(**({"algorithm": algorithm} if algorithm else {}))
    if fits:
        check_credential(payload, described)
        return
    with pytest.raises(IntegrationError) as error:
        check_credential(payload, described)
    assert (error.value.code, error.value.path) == (ErrorCode.VALIDATION_ERROR, "sealed.jwt")
    assert not any(text in f"{error.value} {error.value.details}" for text in secret_texts(payload))
