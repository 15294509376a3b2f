"""Credential values that an upstream sends back are replaced before a result leaves the activity."""

from __future__ import annotations

import base64
from typing import Any

from pydantic_core import to_json

REDACTED = "[REDACTED]"
SHORTEST_INSIDE = 6
"""Shorter secrets are replaced only where they are the whole text: inside, they would hit ordinary words."""


def redact(data: Any, secrets: tuple[str, ...]) -> tuple[Any, int]:
    """`data` without the secrets, and how many bytes of JSON it makes."""
    if not data and not isinstance(data, int | float):
        return data, len(to_json(data))  # null, [], {} and "" hold none
    if isinstance(data, dict) and isinstance(data.get("$binary"), str):
        data = {**data, "$binary": _bytes(data["$binary"], secrets)}
    encoded = to_json(data)
    if not any(_escaped(secret) in encoded for secret in secrets):
        return data, len(encoded)
    clean = _walk(data, secrets)
    return clean, len(to_json(clean))


def _escaped(secret: str) -> bytes:
    return to_json(secret)[1:-1]


def _walk(data: Any, secrets: tuple[str, ...]) -> Any:
    match data:
        case str():
            return _text(data, secrets)
        case dict():
            return {_text(key, secrets): _walk(value, secrets) for key, value in data.items()}
        case list():
            return [_walk(value, secrets) for value in data]
        case int() | float() if str(data) in secrets:
            return REDACTED
    return data


def _bytes(encoded: str, secrets: tuple[str, ...]) -> str:
    raw = base64.b64decode(encoded)
    for secret in secrets:
        if len(secret) >= SHORTEST_INSIDE:
            raw = raw.replace(secret.encode(), REDACTED.encode())
    return base64.b64encode(raw).decode()


def _text(text: str, secrets: tuple[str, ...]) -> str:
    for secret in secrets:
        if text == secret:
            return REDACTED
        if len(secret) >= SHORTEST_INSIDE:
            text = text.replace(secret, REDACTED)
    return text
