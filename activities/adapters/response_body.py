"""A response's body as data, by its media type."""

from __future__ import annotations

import codecs
from email.message import Message
from typing import Any

from integration_service.activities.adapters.binary import OCTETS, Binary
from integration_service.activities.adapters.json_text import load_json, without_surrogates
from integration_service.activities.outbound.messages import InboundResponse
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.wire import JsonObject

# Python's readers of header parameters take quadratic time, and a header may have 100 KB.
_MAX_HEADER = 1000
# Charsets to Python, and no web server's: they take quadratic time or make half surrogate pairs.
_NO_CHARSETS = frozenset({"punycode", "idna", "unicode-escape", "raw-unicode-escape", "utf-7", "undefined"})


def parse_body(response: InboundResponse) -> Any:
    """JSON as data, other text as a string, the rest as ``{"$binary", "contentType"}``; an empty body is None.

    Raises IntegrationError MALFORMED_RESPONSE.
    """
    body, kind = response.body, response.content_type
    if not body:
        return None
    if "/" not in kind:
        kind = ""  # absent, or no media type: Temporal's own HTTP API answers `*`
    if is_json(kind):
        try:
            return load_json(body)
        except (ValueError, RecursionError):
            raise IntegrationError(
                ErrorCode.MALFORMED_RESPONSE, "the upstream says that it answers JSON, and it does not"
            ) from None
    if not kind:
        return _guessed(body, response)
    if kind.startswith("text/") or kind.endswith(("/xml", "+xml", "/javascript")):
        return _text(body, response.headers.get("content-type", ""))
    return _binary(body, response)


def is_json(media_type: str) -> bool:
    """Whether a lower-case media type is one of JSON's."""
    return media_type in ("application/json", "text/json") or media_type.endswith("+json")


def _guessed(body: bytes, response: InboundResponse) -> Any:
    """A body whose type nobody tells: JSON if it is, else text if it is, else bytes."""
    try:
        return load_json(body)
    except (ValueError, RecursionError):
        pass
    try:
        return body.decode()
    except UnicodeDecodeError:
        return _binary(body, response)


def _text(body: bytes, content_type: str) -> str:
    message = Message()
    message["Content-Type"] = content_type[:_MAX_HEADER] or "text/plain"
    charset = message.get_content_charset("utf-8")
    try:
        if codecs.lookup(charset).name not in _NO_CHARSETS:
            return body.decode(charset, errors="replace")
    except (LookupError, ValueError):
        pass  # a charset that is none, or none for bytes
    return body.decode("utf-8", errors="replace")


def _binary(body: bytes, response: InboundResponse) -> JsonObject:
    kind = response.content_type if "/" in response.content_type else OCTETS
    return Binary(body, kind, _file_name(response.headers.get("content-disposition", ""))).to_wire()


def _file_name(disposition: str) -> str | None:
    message = Message()
    message["Content-Disposition"] = disposition[:_MAX_HEADER]
    try:
        name = message.get_filename()
    except (LookupError, ValueError):
        return None
    return without_surrogates(name) if name else None
