"""A receiver's side of Standard Webhooks, written from the specification and using nothing of ours.

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md, "Verifying".
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

_TOLERANCE_S = 300


class BadSignature(Exception):
    """The message is not what its sender signed, or is too old."""


def verify(body: bytes, headers: Mapping[str, str], secret: str, *, now: datetime) -> Any:
    """The message's JSON. Header names are lower case."""
    message_id, timestamp = headers["webhook-id"], headers["webhook-timestamp"]
    if abs(now.timestamp() - int(timestamp)) > _TOLERANCE_S:
        raise BadSignature("too old or too new")
    key = base64.b64decode(secret.split("_", 1)[1])
    expected = hmac.new(key, b".".join([message_id.encode(), timestamp.encode(), body]), hashlib.sha256).digest()
    for part in headers["webhook-signature"].split(" "):
        version, _, signature = part.partition(",")
        if version == "v1" and hmac.compare_digest(base64.b64decode(signature), expected):
            return json.loads(body)
    raise BadSignature("no signature matches")
