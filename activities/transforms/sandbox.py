"""The program of a sandbox: evaluates JSONata that others wrote, one request after the other, and nothing else.

It runs as a script of its own in a bare interpreter (see `child`), never imported by the worker: it imports the
standard library and the engine, so that it holds nothing of the worker's and starts in a tenth of a second. Its first
argument is the folder of the engine.

On stdin and stdout, each a 4-byte big-endian length and that many bytes:

- request, JSON: `{"do": "evaluate" | "parse", "expression", "data", "bindings", "withinMs", "maxBytes"}`
- answer: `=` and the result as JSON, or `!` and `{"reason", "position"}`. Messages of the engine quote values and stay
  here.

An expression that runs over its time is ended by the alarm's default action, the process's end: it works inside a
regular expression too, and when the worker is gone. End of file on stdin ends the process.
"""

from __future__ import annotations

import gc
import json
import math
import os
import re
import resource
import signal
import struct
import sys
import time
from collections import OrderedDict
from typing import Any, BinaryIO

_ADDRESS_SPACE = 512 * 1024 * 1024
_OPEN_FILES = 16
_INHERITED = 65_536
_MAX_DEPTH = 200  # what reads the result recurses
_MAX_VALUES = 1_000_000  # what reads the result pays for each, however short its text
_KEPT_TEXT = 128 * 1024  # characters of expressions kept compiled; one takes up to 1.5 KB of memory
_CPU_GRACE_S = 2
_CODE = re.compile(r"[A-Z]\d{4}")
_OUT_OF_MEMORY = b'!{"reason": "MEMORY", "position": null}'


class Refused(Exception):
    """Ends a request; `position` is the offset in the expression behind the token at fault, where it is known."""

    def __init__(self, reason: str, position: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.position = position


def load_engine(folder: str) -> Any:
    """The expression class. What it imports it may still compile and keep: limits come afterwards."""
    sys.path.append(folder)
    from jsonata import JException, Jsonata, Utils  # type: ignore[import-untyped]

    # An expression is the definition's text and only that: what was checked is what runs.
    Jsonata.static_frame.bindings.pop("eval")

    class Expression(Jsonata):  # type: ignore[misc]
        """A parsed expression that says where it failed, and keeps nothing from one evaluation to the next."""

        environment: Any

        def __init__(self, text: str) -> None:
            self._failed_at: int | None = None
            self._failed_in: str | None = None
            try:
                super().__init__(text)
            except Exception as error:
                raise self._refusal(error) from None
            self._ground = self.environment
            self.set_validate_input(False)  # it comes from JSON
            self.set_output_convert_nulls(False)  # `encode` does, without a walk of its own

        def eval(self, expr: Any, input: Any, environment: Any) -> Any:  # noqa: A002
            try:
                return self._eval(expr, input, environment)
            except Exception:
                if self._failed_at is None:
                    self._failed_at = getattr(expr, "position", None) or 0
                    procedure = getattr(expr, "procedure", None)
                    self._failed_in = getattr(procedure, "value", None)
                raise

        def run(self, data: Any, bindings: dict[str, Any]) -> Any:
            Jsonata.CURRENT.jsonata = self
            self._failed_at = self._failed_in = None
            try:
                # Bindings, even none, make a frame of their own: without one, variables would outlive the call.
                return self.evaluate(data, bindings)
            except MemoryError:
                raise
            except Exception as error:
                raise self._refusal(error) from None
            finally:
                # The engine keeps the last frame here, and would build the next call upon it.
                self.environment, self.input = self._ground, None

        def _refusal(self, error: Exception) -> Refused:
            reason, position = "FAILED", self._failed_at
            if isinstance(error, MemoryError):
                raise error
            if isinstance(error, RecursionError):
                reason, position = "D1011", None
            elif isinstance(error, JException):
                reason = error.error if _CODE.fullmatch(str(error.error)) else "FAILED"
                position = position or error.location
            elif isinstance(error, OverflowError | ZeroDivisionError):
                reason = "D1001"
            elif isinstance(error, re.error):
                reason = "REGEX"
            elif isinstance(error, ValueError) and self._failed_in == "number":
                reason = "D3030"
            return Refused(reason, position if position and position > 0 else None)

    def default(value: Any) -> Any:
        if value is Utils.NULL_VALUE:
            return None
        raise Refused("NOT_JSON")

    Expression.encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=default)
    return Expression


class Compiled:
    """Expressions by their text; the least used go when their texts together are long."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._kept: OrderedDict[str, Any] = OrderedDict()
        self._length = 0

    def get(self, text: str) -> Any:
        known = self._kept.get(text)
        if known is not None:
            self._kept.move_to_end(text)
            return known
        known = self._engine(text)
        self._kept[text] = known
        self._length += len(text)
        while self._length > _KEPT_TEXT and len(self._kept) > 1:
            self._length -= len(self._kept.popitem(last=False)[0])
        return known


def check_shape(result: Any) -> None:
    """Bounds depth and number of values; a structure that holds itself has no bottom."""
    level, values = [result], 1
    for _ in range(_MAX_DEPTH):
        inner = [item for item in level if isinstance(item, dict | list)]
        if not inner:
            return
        values += sum(map(len, inner))
        if values > _MAX_VALUES:
            raise Refused("TOO_LARGE")
        level = [part for item in inner for part in (item.values() if isinstance(item, dict) else item)]
    raise Refused("TOO_DEEP")


def encode(result: Any, encoder: json.JSONEncoder, max_bytes: int) -> bytes:
    """The result as JSON. Raises Refused NOT_JSON for functions, NaN, Infinity and half surrogate pairs."""
    check_shape(result)
    try:
        text = _utf8(encoder.encode(result))
    except (ValueError, TypeError, RecursionError):
        raise Refused("NOT_JSON") from None
    if len(text) > max_bytes:
        raise Refused("TOO_LARGE")
    return text


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        # A literal's two escapes for one character arrive as two halves: whole pairs are joined, halves still refused.
        return text.encode("utf-16", "surrogatepass").decode("utf-16").encode()


def answer(request: dict[str, Any], engine: Any, compiled: Compiled) -> bytes:
    """The answer's bytes, for success and refusal alike. Raises MemoryError."""
    try:
        if request["do"] == "parse":
            engine(request["expression"])
            return b"=null"
        expression = compiled.get(request["expression"])
        result = expression.run(request["data"], request["bindings"])
        return b"=" + encode(result, engine.encoder, request["maxBytes"])
    except Refused as refused:
        return b"!" + json.dumps({"reason": refused.reason, "position": refused.position}).encode()


class Clock:
    """The alarm ends what runs too long; the bound on CPU time stands behind it."""

    def __init__(self) -> None:
        self._cpu_s = 0

    def start(self, within_ms: int) -> None:
        within_s = within_ms / 1000
        signal.setitimer(signal.ITIMER_REAL, within_s)
        needed_s = time.process_time() + within_s + _CPU_GRACE_S
        if self._cpu_s < needed_s:  # else what an earlier request left of it will do
            self._cpu_s = math.ceil(needed_s) + _CPU_GRACE_S
            _limit(resource.RLIMIT_CPU, self._cpu_s, resource.RLIM_INFINITY)

    def stop(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)


def bound_process() -> None:
    """What the process may never do again: grow, write files, start others."""
    os.chdir("/")
    os.umask(0o077)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the worker drains first, then closes us
    _limit(resource.RLIMIT_AS, _ADDRESS_SPACE, _ADDRESS_SPACE)
    _limit(resource.RLIMIT_FSIZE, 0, 0)
    _limit(resource.RLIMIT_CORE, 0, 0)
    _limit(resource.RLIMIT_NOFILE, _OPEN_FILES, _OPEN_FILES)
    _limit(resource.RLIMIT_NPROC, 0, 0)


def _limit(which: int, soft: int, hard: int) -> None:
    try:
        resource.setrlimit(which, (soft, hard))
    except (ValueError, OSError):
        # macOS takes no limit on address space: there the time bound alone ends a hog.
        if sys.platform == "linux":
            raise


def serve(requests: BinaryIO, answers: BinaryIO, engine: Any) -> None:
    """Until end of file, or until memory has run out: a process that was full once is not used again."""
    compiled, clock = Compiled(engine), Clock()
    while len(head := requests.read(4)) == 4:
        text = requests.read(*struct.unpack(">I", head))
        try:
            request = json.loads(text)
            clock.start(request["withinMs"])
            del text
            said = answer(request, engine, compiled)
            del request
        except MemoryError:
            said = _OUT_OF_MEMORY
        clock.stop()
        answers.write(struct.pack(">I", len(said)) + said)
        answers.flush()
        if said is _OUT_OF_MEMORY:
            return


def main() -> None:
    # A loop of the worker's may hand on what it holds open: uvloop closes none of it.
    os.closerange(3, _INHERITED)
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr = None  # the engine prints what it meets
    engine = load_engine(sys.argv[1])
    bound_process()
    gc.freeze()
    answers.write(struct.pack(">I", 0))  # ready
    answers.flush()
    serve(requests, answers, engine)


if __name__ == "__main__":
    main()
