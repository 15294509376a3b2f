"""Expressions are parsed before a definition is stored, under the limits that they will run under."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from datetime import timedelta
from typing import IO

from integration_service.activities.transforms import protocol
from integration_service.activities.transforms.failure import failure, too_long
from integration_service.activities.transforms.protocol import HEAD, Refusal, parse_request, read_answer
from integration_service.contracts.errors import ErrorCode

_WITHIN = timedelta(seconds=2)


def check_expressions(expressions: Sequence[tuple[str, str]]) -> None:
    """Parses each (path, text) in one short-lived sandbox.

    Raises IntegrationError VALIDATION_ERROR with the path of the first that is longer than 10 KiB or does not parse.
    """
    if not expressions:
        return
    with subprocess.Popen(
        protocol.command(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={},
        cwd="/",
        start_new_session=True,
    ) as sandbox:
        if sandbox.stdin is None or sandbox.stdout is None:
            raise RuntimeError("a process without its pipes")
        try:
            _read(sandbox.stdout, HEAD.size)
            for at, text in expressions:
                try:
                    if too_long(text):
                        raise Refusal("TOO_LONG")
                    _parse(text, sandbox)
                except Refusal as refusal:
                    raise failure(
                        ErrorCode.VALIDATION_ERROR, refusal.reason, expression=text, at=at, position=refusal.position
                    ) from None
        finally:
            sandbox.kill()


def _parse(text: str, sandbox: subprocess.Popen[bytes]) -> None:
    if sandbox.stdin is None or sandbox.stdout is None:
        raise EOFError
    try:
        sandbox.stdin.write(parse_request(text, within=_WITHIN))
        sandbox.stdin.flush()
        (length,) = HEAD.unpack(_read(sandbox.stdout, HEAD.size))
        answer = _read(sandbox.stdout, length)
    except UnicodeEncodeError:
        raise Refusal("NOT_JSON") from None
    except (EOFError, OSError):
        raise Refusal(protocol.end_of(sandbox.wait())) from None
    read_answer(answer)


def _read(stream: IO[bytes], length: int) -> bytes:
    data = stream.read(length)
    if len(data) != length:
        raise EOFError
    return data
