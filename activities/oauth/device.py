"""The device authorization request (RFC 8628 §3.1) and its answer."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from integration_service.activities.oauth.authorization import requested_scope
from integration_service.activities.oauth.token_request import client_request
from integration_service.activities.outbound.messages import InboundResponse, OutboundRequest
from integration_service.contracts.definitions import OAuth2Config
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.oauth import OAuthClientRecord, TokenRequestMapping
from integration_service.contracts.wire import JsonObject

_INTERVAL = timedelta(seconds=5)
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
    scope = requested_scope(config)
    sent = {"client_id": client.client_id, **({"scope": scope} if scope else {})}
    mapping = TokenRequestMapping(rename=config.token_request.rename if config.token_request else {})
    return client_request(config, client, sent, mapping=mapping, url=url, values=values, now=now)


def read_device_answer(response: InboundResponse) -> DeviceAuthorization:
    """Raises IntegrationError UNAVAILABLE (no such answer) or AUTH_ERROR (refused)."""
    try:
        found: Any = json.loads(response.body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or response.status >= 500:
        raise IntegrationError(ErrorCode.UNAVAILABLE, f"the provider gave no device code (status {response.status})")
    # `verification_url` is what Google called it before the RFC.
    address = found.get("verification_uri") or found.get("verification_url") or ""
    codes = [found.get(key) for key in ("device_code", "user_code")]
    if response.status >= 400 or not all(isinstance(text, str) and text for text in (*codes, address)):
        raise IntegrationError(ErrorCode.AUTH_ERROR, f"the provider refuses the device flow (status {response.status})")
    complete = found.get("verification_uri_complete")
    complete = complete if isinstance(complete, str) and complete else None
    if any(str(urlsplit(text).scheme) not in ("http", "https") for text in (address, complete or address)):
        raise IntegrationError(ErrorCode.AUTH_ERROR, "the provider's verification address is no URL")
    return DeviceAuthorization(
        device_code=str(codes[0]),
        user_code=str(codes[1]),
        verification_uri=address,
        verification_uri_complete=complete,
        expires_in=_span(found.get("expires_in"), timedelta(minutes=10), most=_LONGEST_LIFE),
        interval=_span(found.get("interval"), _INTERVAL, most=_LONGEST_INTERVAL),
    )


def _span(value: Any, default: timedelta, *, most: timedelta) -> timedelta:
    if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
        return default
    return timedelta(seconds=min(value, most.total_seconds()))
