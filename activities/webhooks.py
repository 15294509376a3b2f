"""Webhooks as the Standard Webhooks specification has them: how one is signed, and what an answer to it means.

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from integration_service.activities.outbound.messages import InboundResponse, OutboundRequest
from integration_service.activities.outbound.retry_after import retry_after
from integration_service.contracts.errors import ErrorCode, IntegrationError, http_code
from integration_service.contracts.events import CloudEvent

_PREFIX = "whsec_"
_SECRET_BYTES = range(24, 65)
_GONE = 410


def new_secret() -> str:
    """A fresh signing secret, ``whsec_`` and 32 random bytes in base64."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def check_secret(secret: str) -> None:
    """Raises IntegrationError VALIDATION_ERROR for what is no ``whsec_…`` of 24 to 64 bytes; it is not quoted."""
    _key(secret)


def webhook_request(url: str, event: CloudEvent, *, signing: Sequence[str], at: datetime) -> OutboundRequest:
    """The POST that tells `event`, signed with every secret of `signing` as of `at`.

    The message's id is the event's, the same each time. Raises IntegrationError VALIDATION_ERROR.
    """
    body = json.dumps(event.to_wire(), ensure_ascii=False, separators=(",", ":")).encode()
    timestamp = str(int(at.timestamp()))
    return OutboundRequest(
        method="POST",
        url=url,
        headers=(
            ("Content-Type", "application/cloudevents+json; charset=UTF-8"),
            ("webhook-id", event.id),
            ("webhook-timestamp", timestamp),
            ("webhook-signature", " ".join(_sign(secret, event.id, timestamp, body) for secret in signing)),
        ),
        body=body,
        follow_redirects=False,
    )


@dataclass(frozen=True)
class Refusal:
    """A delivery that failed: why (a code, never a body), how long to wait at least, and whether for good."""

    reason: str
    wait: timedelta | None = None
    for_good: bool = False


def refusal(response: InboundResponse, *, now: datetime) -> Refusal | None:
    """What an answer means; None for the 2xx that says it arrived."""
    status = response.status
    if 200 <= status < 300:
        return None
    if status == _GONE:
        return Refusal(http_code(status), for_good=True)
    return Refusal(http_code(status), wait=retry_after(response.headers, now=now))


def _sign(secret: str, message_id: str, timestamp: str, body: bytes) -> str:
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(_key(secret), signed, hashlib.sha256)).decode()


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(_PREFIX) or len(key) not in _SECRET_BYTES:
        raise IntegrationError(
            ErrorCode.VALIDATION_ERROR, "a signing secret is whsec_ and 24 to 64 bytes in base64", path="secret"
        )
    return key
