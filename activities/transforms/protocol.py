"""What goes to a sandbox and comes back, and how one is started: the other side stands in `sandbox`."""

from __future__ import annotations

import importlib.util
import json
import signal
import struct
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

HEAD = struct.Struct(">I")
READY = HEAD.pack(0)

_PROGRAM = Path(__file__).with_name("sandbox.py")
_OVERTIME = (-signal.SIGALRM, -signal.SIGXCPU)
_ENGINE = "jsonata"
_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


class Refusal(Exception):
    """The sandbox's no: a short code, and the offset in the expression behind the token at fault."""

    def __init__(self, reason: str, position: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.position = position


def command() -> tuple[str, ...]:
    """A bare interpreter: no environment, no user's or site's packages, only the folder that holds the engine."""
    found = importlib.util.find_spec(_ENGINE)
    if found is None or found.origin is None:
        raise RuntimeError(f"the package {_ENGINE} is missing")
    return (sys.executable, "-I", "-S", str(_PROGRAM), str(Path(found.origin).parents[1]))


def parse_request(expression: str, *, within: timedelta) -> bytes:
    """Asks whether it parses."""
    return _frame({"do": "parse", "expression": expression, "withinMs": _ms(within)})


def evaluate_request(
    expression: str, data: Any, *, bindings: Mapping[str, Any], within: timedelta, max_bytes: int
) -> bytes:
    """Asks for its value over JSON data. Raises Refusal NOT_JSON for data that is none."""
    request = {
        "do": "evaluate",
        "expression": expression,
        "data": data,
        "bindings": dict(bindings),
        "withinMs": _ms(within),
        "maxBytes": max_bytes,
    }
    try:
        return _frame(request)
    except (ValueError, TypeError, RecursionError):
        raise Refusal("NOT_JSON") from None


def read_answer(answer: bytes) -> Any:
    """The result. Raises Refusal."""
    if answer[:1] == b"=":
        return json.loads(answer[1:])
    refusal = json.loads(answer[1:])
    raise Refusal(refusal["reason"], refusal["position"])


def end_of(code: int | None) -> str:
    """The reason that a process's end amounts to."""
    return "TIMEOUT" if code in _OVERTIME else "CRASHED"


def _frame(request: dict[str, Any]) -> bytes:
    body = _JSON.encode(request).encode()
    return HEAD.pack(len(body)) + body


def _ms(within: timedelta) -> int:
    return max(1, within // timedelta(milliseconds=1))
