"""Whether a token has expired: by its own time, or by what the upstream answered."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from integration_service.activities.oauth.answers import at_path
from integration_service.activities.outbound.messages import InboundResponse
from integration_service.contracts.credentials import IntegrationCredential
from integration_service.contracts.definitions import OAuth2Config
from integration_service.contracts.oauth import TokenExpired

_PLAIN = TokenExpired()


def has_expired(credential: IntegrationCredential | None, oauth: OAuth2Config | None, *, now: datetime) -> bool:
    """Whether to refresh before anything is sent. Never with strategy `manual`: there only somebody's update does."""
    if oauth is None or not oauth.automatic or credential is None or credential.oauth2 is None:
        return False
    expires_at = credential.oauth2.expires_at
    return expires_at is not None and expires_at <= now


def is_refused_as_expired(response: InboundResponse, oauth: OAuth2Config | None) -> bool:
    """Whether the upstream answers as the definition says it does to an expired token; plainly 401 without one."""
    if oauth is None or not oauth.automatic:
        return False
    sign = oauth.token_expired or _PLAIN
    if response.status not in sign.status:
        return False
    return sign.path is None or _at(response.body, sign.path) in sign.values


def _at(body: bytes, path: str) -> Any:
    try:
        return at_path(json.loads(body), path)
    except (ValueError, RecursionError):
        return None
