"""A ``multipart/form-data`` body (RFC 7578).

Names stand in quotes as UTF-8, with line breaks, quotes and backslashes percent-encoded (RFC 7578 §2): readers
disagree about backslashes, and none may end the name early. Other control characters are refused. ``filename*`` is
not sent: RFC 7578 §4.2 forbids it.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from typing import Any

from integration_service.activities.adapters.binary import Binary, is_binary
from integration_service.activities.adapters.json_text import json_bytes
from integration_service.activities.templates import scalar_text
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.wire import JsonObject

_ENCODED = {character: f"%{ord(character):02X}" for character in '\r\n"\\'}
_CONTROL = re.compile(r"[\x00-\x09\x0b\x0c\x0e-\x1f\x7f]")


def multipart(fields: JsonObject, *, at: str) -> tuple[bytes, str]:
    """The body and its content type.

    A `$binary` is a file part, an array repeats its name, null is left out, another object is a JSON part, the rest
    is text. Raises IntegrationError VALIDATION_ERROR with the path of a name or value that cannot be a part.
    """
    parts = [part for name, value in fields.items() for part in _parts(name, value, f"{at}.{name}")]
    boundary = _boundary(parts)
    delimiter = f"--{boundary}\r\n".encode()
    body = bytearray()
    for header, content in parts:
        body += delimiter
        body += header
        body += content
        body += b"\r\n"
    body += f"--{boundary}--\r\n".encode()
    return bytes(body), f"multipart/form-data; boundary={boundary}"


def _parts(name: str, value: Any, at: str) -> Iterator[tuple[bytes, bytes]]:
    if not isinstance(value, list):
        if value is not None:
            yield _part(name, value, at)
        return
    for index, item in enumerate(value):
        if item is not None:
            yield _part(name, item, f"{at}[{index}]")


def _part(name: str, value: Any, at: str) -> tuple[bytes, bytes]:
    if is_binary(value):
        file = Binary.read(value, at=at)
        # Without a file name many servers take a part for a text field.
        shown = _quoted(file.file_name or name, f"{at}.fileName")
        return _header(name, at, f'; filename="{shown}"', file.content_type), file.content
    if isinstance(value, dict | list):
        if _holds_binary(value):
            raise _wrong(at, "a file stands in a field of its own or in an array of files, not deeper")
        return _header(name, at, "", "application/json"), json_bytes(value, at=at)
    return _header(name, at, "", None), scalar_text(value).encode()


def _header(name: str, at: str, more: str, content_type: str | None) -> bytes:
    kind = f"Content-Type: {content_type}\r\n" if content_type else ""
    return f'Content-Disposition: form-data; name="{_quoted(name, at)}"{more}\r\n{kind}\r\n'.encode()


def _quoted(name: str, at: str) -> str:
    if _CONTROL.search(name):
        raise _wrong(at, "the name of a part holds a control character")
    return "".join(_ENCODED.get(character, character) for character in name)


def _holds_binary(value: Any) -> bool:
    if isinstance(value, dict):
        return is_binary(value) or any(map(_holds_binary, value.values()))
    return isinstance(value, list) and any(map(_holds_binary, value))


def _boundary(parts: list[tuple[bytes, bytes]]) -> str:
    while True:
        boundary = secrets.token_hex(16)
        if not any(boundary.encode() in content for part in parts for content in part):
            return boundary


def _wrong(path: str, message: str) -> IntegrationError:
    return IntegrationError(ErrorCode.VALIDATION_ERROR, message, path=path)
