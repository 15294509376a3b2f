"""The device authorization request (RFC 8628 §3.1) and its answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from integration_service.activities.oauth.answers import read_object, text_at
from integration_service.activities.oauth.discovery import is_http_url
from integration_service.activities.oauth.refusal import TokenRefused, check_answer
from integration_service.activities.oauth.token_expiry import seconds
from integration_service.activities.oauth.token_request import beginning, client_request, plain_mapping
from integration_service.activities.outbound.messages import InboundResponse, OutboundRequest
from integration_service.contracts.definitions import OAuth2Config
from integration_service.contracts.errors import ErrorCode
from integration_service.contracts.oauth import OAuthClientRecord, TokenResponseMapping
from integration_service.contracts.wire import JsonObject

_INTERVAL = timedelta(seconds=5)
_SHORTEST = timedelta(seconds=1)
_LONGEST_INTERVAL = timedelta(minutes=5)
_LONGEST_LIFE = timedelta(days=1)


@dataclass(frozen=True)
class DeviceAuthorization:
    """What the person must be told, and what we poll with."""

    device_code: str = field(repr=False)
    user_code: str
    verification_uri: str
    verification_uri_complete: str | None
    expires_in: timedelta
    interval: timedelta


def device_request(
    config: OAuth2Config, client: OAuthClientRecord, *, url: str, values: JsonObject, now: datetime
) -> OutboundRequest:
    """The request; `client_id` always stands in the body (RFC 8628 §3.1)."""
    sent = {**beginning(config, values), "client_id": client.client_id}
    return client_request(config, client, sent, mapping=plain_mapping(config), url=url, values=values, now=now)


def read_device_answer(response: InboundResponse, *, now: datetime | None = None) -> DeviceAuthorization:
    """What the server answers (RFC 8628 §3.2). Raises TokenRefused: UNAVAILABLE, RATE_LIMITED or AUTH_ERROR."""
    body = read_object(response, form_keys=("device_code", "error"))
    found = check_answer(TokenResponseMapping(), response, body, now=now or datetime.now(UTC))
    device_code, user_code = text_at(found, "device_code"), text_at(found, "user_code")
    # `verification_url` is what Google called it before the RFC.
    address = text_at(found, "verification_uri") or text_at(found, "verification_url")
    complete = text_at(found, "verification_uri_complete")
    if device_code is None or user_code is None or address is None:
        raise TokenRefused(ErrorCode.UNAVAILABLE, "the provider's answer holds no device code", lost=True)
    if not is_http_url(address) or not is_http_url(complete or address):
        raise TokenRefused(ErrorCode.AUTH_ERROR, "the provider's verification address is no URL")
    return DeviceAuthorization(
        device_code=device_code,
        user_code=user_code,
        verification_uri=address,
        verification_uri_complete=complete,
        expires_in=_span(found.get("expires_in"), timedelta(minutes=10), most=_LONGEST_LIFE),
        interval=_span(found.get("interval"), _INTERVAL, most=_LONGEST_INTERVAL),
    )


def _span(value: Any, default: timedelta, *, most: timedelta) -> timedelta:
    number = seconds(value)
    if number is None or number <= 0:
        return default
    return max(timedelta(seconds=min(number, most.total_seconds())), _SHORTEST)
