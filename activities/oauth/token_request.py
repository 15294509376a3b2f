"""The token request (RFC 6749 §4 and §6, RFC 7523, RFC 8628 §3.4), bent as a definition says."""

from __future__ import annotations

import base64
import json
import re
import uuid
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote_plus, urlencode

from integration_service.activities.oauth.answers import sound
from integration_service.activities.oauth.assertions import sign
from integration_service.activities.oauth.authorization import requested_scope
from integration_service.activities.outbound.messages import OutboundRequest
from integration_service.activities.templates import Template
from integration_service.contracts.definitions import OAuth2Config
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.oauth import ClientAuthMethod, OAuthClientRecord, TokenRequestMapping
from integration_service.contracts.oauth_urls import with_parameters
from integration_service.contracts.wire import JsonObject

_ASSERTION_LIVES = timedelta(minutes=5)
_JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_CLIENT_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_TEXT = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


@dataclass(frozen=True)
class CodeGrant:
    """RFC 6749 §4.1.3."""

    code: str = field(repr=False)
    redirect_uri: str
    verifier: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class RefreshGrant:
    """RFC 6749 §6; some providers refresh by the access token."""

    refresh_token: str | None = field(repr=False)
    access_token: str = field(repr=False)


@dataclass(frozen=True)
class ClientCredentialsGrant:
    """RFC 6749 §4.4."""


@dataclass(frozen=True)
class DeviceGrant:
    """RFC 8628 §3.4."""

    device_code: str = field(repr=False)


@dataclass(frozen=True)
class JwtBearerGrant:
    """RFC 7523 §2.1."""


@dataclass(frozen=True)
class PasswordGrant:
    """RFC 6749 §4.3; legacy (RFC 9700 §2.4)."""

    username: str = field(repr=False)
    password: str = field(repr=False)


Grant = CodeGrant | RefreshGrant | ClientCredentialsGrant | DeviceGrant | JwtBearerGrant | PasswordGrant


def token_request(
    config: OAuth2Config,
    client: OAuthClientRecord,
    grant: Grant,
    *,
    url: str,
    values: JsonObject,
    now: datetime,
) -> OutboundRequest:
    """The request to the token endpoint at `url`; `values` is the merged config.

    Raises IntegrationError CONFIG_ERROR for a value that is missing, VALIDATION_ERROR for a key that cannot sign.
    """
    mapping = config.token_request or TokenRequestMapping()
    if isinstance(grant, RefreshGrant) and mapping.refresh_method is not None:
        mapping = mapping.model_copy(update={"method": mapping.refresh_method})
    parameters = _parameters(config, client, grant, url=url, values=values, now=now)
    return client_request(config, client, parameters, mapping=mapping, url=url, values=values, now=now)


def client_request(
    config: OAuth2Config,
    client: OAuthClientRecord,
    parameters: dict[str, str],
    *,
    mapping: TokenRequestMapping,
    url: str,
    values: JsonObject,
    now: datetime,
) -> OutboundRequest:
    """A request of an authenticated client (RFC 6749 §2.3): to the token, device and revocation endpoints."""
    sent = dict(parameters)
    method = auth_method(config, client)
    authorization: str | None = None
    match method:
        case "client_secret_basic":
            # Encoded as in a form first (RFC 6749 §2.3.1): either may hold a colon.
            pair = f"{quote_plus(client.client_id)}:{quote_plus(_secret(client))}"
            authorization = f"Basic {base64.b64encode(pair.encode()).decode()}"
        case "client_secret_post":
            sent |= {"client_id": client.client_id, "client_secret": _secret(client)}
        case "private_key_jwt":
            claims = {"iss": client.client_id, "sub": client.client_id, "aud": mapping.audience or url}
            sent |= {
                "client_id": client.client_id,
                "client_assertion_type": _CLIENT_ASSERTION,
                "client_assertion": _assertion(claims, client, mapping, now),
            }
        case "none":
            sent["client_id"] = client.client_id
    sent = {mapping.rename.get(name, name): value for name, value in sent.items()}
    sent |= {name: _fill(text, values, f"tokenRequest.parameters.{name}") for name, text in mapping.parameters.items()}
    request = _encoded(mapping, url, sent)
    if authorization is not None:
        request = request.with_secret_header("Authorization", authorization)
    for name, text in mapping.headers.items():
        # What a definition puts here may be a credential of the client.
        request = request.with_secret_header(name, _header(name, text, values))
    return request


def plain_mapping(config: OAuth2Config) -> TokenRequestMapping:
    """How the device and revocation endpoints are asked: by the provider's names and keys, but by POST and a form,
    and without what belongs to the token request."""
    given = config.token_request or TokenRequestMapping()
    return given.model_copy(update={"method": "POST", "encoding": "form", "parameters": {}})


def auth_method(config: OAuth2Config, client: OAuthClientRecord) -> ClientAuthMethod:
    """As the definition says, else as the client's registration allows."""
    if config.token_endpoint_auth_method is not None:
        return config.token_endpoint_auth_method
    if client.client_secret:
        return "client_secret_basic"
    # The assertion of grant jwt_bearer says who the client is (RFC 7521 §4.1).
    return "private_key_jwt" if client.private_key is not None and config.grant != "jwt_bearer" else "none"


def additional_parameters(config: OAuth2Config, values: JsonObject) -> dict[str, str]:
    """`additionalParameters` over the merged config."""
    given = config.additional_parameters or {}
    return {name: _fill(text, values, f"additionalParameters.{name}") for name, text in given.items()}


def beginning(config: OAuth2Config, values: JsonObject) -> dict[str, str]:
    """`additionalParameters` and `scope`: what the first request of a grant without an authorization URL says."""
    filled = additional_parameters(config, values)
    scope = requested_scope(config)
    return {**filled, **({"scope": scope} if scope else {})}


def _parameters(
    config: OAuth2Config, client: OAuthClientRecord, grant: Grant, *, url: str, values: JsonObject, now: datetime
) -> dict[str, str]:
    mapping = config.token_request or TokenRequestMapping()
    match grant:
        case CodeGrant(code, redirect_uri, verifier):
            found = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri}
            return {**found, **({"code_verifier": verifier} if verifier else {})}
        case RefreshGrant(refresh_token, access_token):
            by_access = mapping.refresh_with == "access_token"
            token = access_token if by_access else refresh_token
            if token is None:
                raise IntegrationError(ErrorCode.REAUTH_REQUIRED, "there is no refresh token")
            name = mapping.refresh_parameter or mapping.refresh_with
            return {"grant_type": mapping.refresh_grant_type, name: token}
        case ClientCredentialsGrant():
            return {**beginning(config, values), "grant_type": "client_credentials"}
        case DeviceGrant(device_code):
            return {"grant_type": _DEVICE, "device_code": device_code}
        case PasswordGrant(username, password):
            asked = {"grant_type": "password", "username": username, "password": password}
            return {**beginning(config, values), **asked}
        case JwtBearerGrant():
            claims = {"iss": client.client_id, "sub": client.client_id, "aud": mapping.audience or url}
            claims |= _filled(mapping.claims, values, "tokenRequest.claims")
            assertion = _assertion(claims, client, mapping, now)
            return {**beginning(config, values), "grant_type": _JWT_BEARER, "assertion": assertion}


def _fill(text: str, values: JsonObject, key: str) -> str:
    template = Template(text, at=f"oauth2Config.{key}")
    return template.render({"params": {}, "config": values, "connection": {}})


def _header(name: str, text: str, values: JsonObject) -> str:
    key = f"tokenRequest.headers.{name}"
    filled = _fill(text, values, key)
    if not _HEADER_NAME.fullmatch(name) or not _HEADER_TEXT.fullmatch(filled):
        raise IntegrationError(ErrorCode.CONFIG_ERROR, "cannot stand in a header", path=f"oauth2Config.{key}")
    return filled


def _filled(value: Any, values: JsonObject, key: str) -> Any:
    match value:
        case str():
            return _fill(value, values, key)
        case dict():
            return {name: _filled(inner, values, f"{key}.{name}") for name, inner in value.items()}
        case list():
            return [_filled(inner, values, f"{key}[{index}]") for index, inner in enumerate(value)]
    return value


def _assertion(claims: JsonObject, client: OAuthClientRecord, mapping: TokenRequestMapping, now: datetime) -> str:
    if client.private_key is None:
        raise IntegrationError(
            ErrorCode.CONFIG_ERROR, "the OAuth client has no private key to sign with", path="oauth2Config.privateKey"
        )
    issued = int(now.timestamp())
    whole = {"iat": issued, "exp": issued + int(_ASSERTION_LIVES.total_seconds()), "jti": str(uuid.uuid4()), **claims}
    said = {name: value for name, value in whole.items() if value is not None}  # null takes a claim away
    return sign(said, key_text=client.private_key, key_id=client.key_id, algorithm=mapping.algorithm)


def _secret(client: OAuthClientRecord) -> str:
    if client.client_secret is None:
        raise IntegrationError(
            ErrorCode.CONFIG_ERROR, "the OAuth client has no secret", path="oauth2Config.clientSecret"
        )
    return client.client_secret


def _encoded(mapping: TokenRequestMapping, url: str, sent: dict[str, str]) -> OutboundRequest:
    sent = sound(sent)  # a code comes from a browser, and half a surrogate pair cannot be encoded
    accept = ("Accept", "application/json")
    request = OutboundRequest(method=mapping.method, url=url, headers=(accept,), follow_redirects=False)
    if mapping.method == "GET" or mapping.encoding == "query":
        return replace(request, url=with_parameters(url, sent))
    if mapping.encoding == "json":
        return replace(request.with_header("Content-Type", "application/json"), body=json.dumps(sent).encode())
    form = request.with_header("Content-Type", "application/x-www-form-urlencoded")
    return replace(form, body=urlencode(sent).encode())
