"""The revocation request (RFC 7009 §2.1)."""

from __future__ import annotations

from datetime import datetime

from integration_service.activities.oauth.token_request import client_request, plain_mapping
from integration_service.activities.outbound.messages import OutboundRequest
from integration_service.contracts.definitions import OAuth2Config
from integration_service.contracts.oauth import OAuthClientRecord
from integration_service.contracts.wire import JsonObject


def revocation_request(
    config: OAuth2Config,
    client: OAuthClientRecord,
    *,
    url: str,
    token: str,
    hint: str,
    values: JsonObject,
    now: datetime,
) -> OutboundRequest:
    """The request, its client authenticated as at the token endpoint."""
    sent = {"token": token, "token_type_hint": hint}
    return client_request(config, client, sent, mapping=plain_mapping(config), url=url, values=values, now=now)
