"""JSON to and from bytes, with nothing in it that another reader of JSON could not hold."""

from __future__ import annotations

import json
import math
import re
from array import array
from itertools import accumulate
from typing import Any

from integration_service.contracts.errors import ErrorCode, IntegrationError

MAX_DEPTH = 100
"""How deep an answer may nest: what reads it later, in any language, has limits of its own."""
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NO_STEPS = bytes(set(range(256)) - set(b"[{]}"))
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def json_bytes(value: Any, *, at: str) -> bytes:
    """Compact UTF-8. Raises IntegrationError VALIDATION_ERROR for what JSON does not have."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except (ValueError, RecursionError):
        raise IntegrationError(ErrorCode.VALIDATION_ERROR, "holds what cannot be JSON", path=at) from None


def load_json(body: bytes) -> Any:
    """The value of a JSON text in UTF-8, -16 or -32. Raises ValueError or RecursionError when it is none."""
    # `json.loads` alone would let encoded surrogates through.
    text = body.decode(json.detect_encoding(body))
    data = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    if text.count("[") + text.count("{") > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    return _without_surrogates(data) if _SURROGATE_ESCAPE.search(text) else data


def without_surrogates(text: str) -> str:
    """Half of a surrogate pair is nothing that we could pass on. U+FFFD stands for it."""
    return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)


def _without_surrogates(data: Any) -> Any:
    match data:
        case str():
            return without_surrogates(data)
        case dict():
            return {_without_surrogates(key): _without_surrogates(value) for key, value in data.items()}
        case list():
            return [_without_surrogates(value) for value in data]
    return data


def _depth(text: str) -> int:
    """How deep a valid JSON text nests, by its brackets: walking millions of values takes many times as long."""
    brackets = _STRING.sub(b"", text.encode()).translate(_STEPS, _NO_STEPS)
    return max(accumulate(array("b", brackets)), default=0)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number beyond what JSON readers hold")
    return number


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
