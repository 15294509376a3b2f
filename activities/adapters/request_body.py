"""A request's body: one value, in the encoding that the definition names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, urlencode

from integration_service.activities.adapters.json_text import json_bytes
from integration_service.activities.adapters.multipart import multipart
from integration_service.activities.templates import scalar_text
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.wire import JsonObject

_TEXT_TYPES = {"text": "text/plain; charset=utf-8", "xml": "application/xml; charset=utf-8"}


def encode_body(value: Any, *, encoding: str, at: str) -> tuple[bytes, str]:
    """The body's bytes and their content type. `at` is the path of `value`.

    Raises IntegrationError VALIDATION_ERROR with the path of what the encoding cannot hold.
    """
    match encoding:
        case "json":
            return json_bytes(value, at=at), "application/json"
        case "form" | "multipart" if not isinstance(value, dict):
            raise _wrong(at, "a form is made of an object")
        case "form":
            return form(value).encode(), "application/x-www-form-urlencoded"
        case "multipart":
            return multipart(value, at=at)
    if not isinstance(value, str):
        raise _wrong(at, "must be a string, or a binary")
    return value.encode(), _TEXT_TYPES[encoding]


def form(values: JsonObject) -> str:
    """``name=value&…``, also of a query: arrays repeat their name, null is left out, objects stand as JSON."""
    return urlencode(list(_pairs(values)), quote_via=quote)


def _pairs(values: JsonObject) -> Iterable[tuple[str, str]]:
    for name, value in values.items():
        for item in value if isinstance(value, list) else (value,):
            if item is not None:
                yield name, scalar_text(item)


def _wrong(path: str, message: str) -> IntegrationError:
    return IntegrationError(ErrorCode.VALIDATION_ERROR, message, path=path)
