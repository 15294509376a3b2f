"""Bytes on the JSON wire: ``{"$binary": base64, "contentType", "fileName"?}``."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from typing import Any

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.wire import JsonObject

KEY = "$binary"
OCTETS = "application/octet-stream"
_KEYS = frozenset({KEY, "contentType", "fileName"})
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105  # RFC 9110 §5.6.2: no secret
_MEDIA_TYPE = re.compile(rf"{_TOKEN}/{_TOKEN}(?: *;[\x20-\x7e]*)?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MAX_NAME = 255


@dataclass(frozen=True)
class Binary:
    """Bytes, their media type and, of a file, the name."""

    content: bytes = field(repr=False)
    content_type: str = OCTETS
    file_name: str | None = None

    @classmethod
    def read(cls, value: JsonObject, *, at: str) -> Binary:
        """Raises IntegrationError VALIDATION_ERROR with the path of the key that is wrong.

        Neither a type nor a name may hold a control character: both stand in headers.
        """
        for key in value:
            if key not in _KEYS:
                raise _wrong(at, "a binary has only the keys $binary, contentType and fileName")
        content_type, file_name = value.get("contentType", OCTETS), value.get("fileName")
        if (
            not isinstance(content_type, str)
            or len(content_type) > _MAX_NAME
            or not _MEDIA_TYPE.fullmatch(content_type)
        ):
            raise _wrong(f"{at}.contentType", "must be a media type")
        if file_name is not None and (
            not isinstance(file_name, str) or len(file_name) > _MAX_NAME or _CONTROL.search(file_name)
        ):
            raise _wrong(f"{at}.fileName", f"must be text of at most {_MAX_NAME} characters, none of them a control")
        return cls(_decoded(value[KEY], f"{at}.{KEY}"), content_type, file_name)

    def to_wire(self) -> JsonObject:
        """The value as JSON-compatible data."""
        name = {"fileName": self.file_name} if self.file_name else {}
        return {KEY: base64.b64encode(self.content).decode(), "contentType": self.content_type, **name}


def is_binary(value: Any) -> bool:
    """Whether a JSON value stands for bytes, well-formed or not."""
    return isinstance(value, dict) and KEY in value


def _decoded(text: Any, at: str) -> bytes:
    if isinstance(text, str):
        try:
            return binascii.a2b_base64(text, strict_mode=True)
        except ValueError:
            pass
    raise _wrong(at, "must be base64 (RFC 4648 §4, with padding)")


def _wrong(path: str, message: str) -> IntegrationError:
    return IntegrationError(ErrorCode.VALIDATION_ERROR, message, path=path)
