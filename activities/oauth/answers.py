"""What an authorization server answers, as an object that is sound to keep."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qsl

from integration_service.activities.outbound.messages import InboundResponse
from integration_service.contracts.wire import JsonObject

_SURROGATE = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DEEPEST = 64


def read_object(response: InboundResponse, *, form_keys: Iterable[str] = ()) -> JsonObject | None:
    """The answer's JSON object, or its form-encoded fields where one of `form_keys` is among them; else None.

    The body decides, not its label: some providers send JSON as text/html, and GitHub a form unless asked.
    """
    try:
        text = response.body.decode("utf-8-sig")
    except ValueError:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None if "html" in response.content_type else _form(text, frozenset(form_keys))
    return sound(found) if isinstance(found, dict) else None


def at_path(value: Any, path: str) -> Any:
    """What stands at a dotted path, or None."""
    for key in path.split("."):
        if isinstance(value, list) and key.isascii() and key.isdigit():
            value = value[int(key)] if int(key) < len(value) else None
        else:
            value = value.get(key) if isinstance(value, dict) else None
    return value


def text_at(value: Any, path: str) -> str | None:
    """The text at a path, if it is one without control characters and not empty."""
    found = at_path(value, path)
    return found if isinstance(found, str) and found and not _CONTROL.search(found) else None


def sound(value: Any, depth: int = 0) -> Any:
    """A JSON value without what Python reads and nothing else stores: a token must not be lost to a display name."""
    match value:
        case str():
            return _SURROGATE.sub("\ufffd", value)
        case float():
            return value if math.isfinite(value) else None
        case dict() | list() if depth >= _DEEPEST:
            return None
        case dict():
            return {sound(key): sound(inner, depth + 1) for key, inner in value.items()}
        case list():
            return [sound(inner, depth + 1) for inner in value]
    return value


def _form(text: str, keys: frozenset[str]) -> JsonObject | None:
    try:
        pairs = dict(parse_qsl(text.strip(), keep_blank_values=True, max_num_fields=200))
    except ValueError:
        return None
    return pairs if pairs.keys() & keys else None
