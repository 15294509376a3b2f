"""The identity provider's token endpoint, written down and, where a test asks for it, disturbed.

Every ``POST /o/token/`` becomes one line of ``token-requests.jsonl``, before its answer goes out. Whoever appends
a line to ``faults.jsonl`` disturbs one request that comes afterwards, in order:

- ``{"kind": "status", "status": 503, "headers": {"Retry-After": "2"}, "body": "<html>"}``: this is the answer,
  and the package sees no request.
- ``{"kind": "lose"}``: the package answers, and the connection is closed without a byte of that.
- ``{"kind": "hang", "seconds": 5}``: the package answers, and that is held back.
- ``{"kind": "delay", "seconds": 5}``: the package gets the request so much later, whether or not the client
  still waits.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import json
import os
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote_plus

from uvicorn.protocols.http.h11_impl import H11Protocol

_PATH = "/o/token/"

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


def requests_file(folder: Path) -> Path:
    return folder / "token-requests.jsonl"


def faults_file(folder: Path) -> Path:
    return folder / "faults.jsonl"


def append_line(path: Path, value: dict[str, Any]) -> None:
    """Adds one line of JSON, in one write: nobody reads half of it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, json.dumps(value).encode() + b"\n")
    finally:
        os.close(descriptor)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines so far."""
    try:
        return [json.loads(line) for line in path.read_bytes().splitlines()]
    except FileNotFoundError:
        return []


def token_hash(token: str) -> str:
    """As the log has it: SHA-256 of the token, in hex."""
    return hashlib.sha256(token.encode()).hexdigest()


class ClosableProtocol(H11Protocol):
    """uvicorn's, with a way to close a client's connection without an answer, which ASGI has not."""

    _open: dict[Any, asyncio.Transport] = {}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._open[transport.get_extra_info("peername")] = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._open.pop(self.transport.get_extra_info("peername"), None)
        super().connection_lost(exc)

    @classmethod
    def close(cls, client: Iterable[Any]) -> None:
        """Closes the connection of a scope's `client`."""
        if transport := cls._open.get(tuple(client)):
            transport.close()


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes

    @property
    def error(self) -> str | None:
        """Its OAuth error code (RFC 6749 §5.2)."""
        try:
            value = json.loads(self.body)
        except ValueError:
            return None
        error = value.get("error") if isinstance(value, dict) else None
        return error if isinstance(error, str) else None


class TokenEndpoint:
    """The provider's ASGI application, with its token endpoint watched."""

    def __init__(self, app: App, folder: Path) -> None:
        self._app = app
        self._log = requests_file(folder)
        self._faults = faults_file(folder)
        self._met = len(read_lines(self._faults))  # those before a restart were for requests before it

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"] == _PATH:
            await self._token(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _token(self, scope: Message, receive: Receive, send: Send) -> None:
        body = await _read(receive)
        if body is None:
            return
        line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **_told(scope, body)}
        fault = self._next_fault()
        kind = fault.get("kind")
        if kind == "delay":
            await asyncio.sleep(fault["seconds"])
        answer = _invented(fault) if kind == "status" else await _answer(self._app, scope, body)
        append_line(self._log, {**line, "status": answer.status, "error": answer.error, "fault": kind})
        if kind == "lose":
            ClosableProtocol.close(scope["client"])
            await _disconnect(receive)
            return
        if kind == "hang":
            await asyncio.wait({asyncio.ensure_future(_disconnect(receive))}, timeout=fault["seconds"])
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        await send({"type": "http.response.body", "body": answer.body})

    def _next_fault(self) -> dict[str, Any]:
        lines = read_lines(self._faults)
        if len(lines) <= self._met:
            return {}
        self._met += 1
        return lines[self._met - 1]


async def _read(receive: Receive) -> bytes | None:
    """The request's body, or None if the client went away."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += bytes(message.get("body", b""))
        if not message.get("more_body", False):
            return body


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _answer(app: App, scope: Message, body: bytes) -> _Answer:
    """What the application answers, whether or not the client is still there."""
    unread = [body]
    told: list[Message] = []

    async def receive() -> Message:
        if unread:
            return {"type": "http.request", "body": unread.pop(), "more_body": False}
        return await asyncio.Future()

    async def send(message: Message) -> None:
        told.append(message)

    await app(scope, receive, send)
    start, *bodies = told
    return _Answer(start["status"], list(start["headers"]), b"".join(part.get("body", b"") for part in bodies))


def _invented(fault: dict[str, Any]) -> _Answer:
    body = str(fault.get("body", "")).encode()
    headers = {"Content-Length": str(len(body)), **fault.get("headers", {})}
    return _Answer(fault["status"], [(key.encode(), str(value).encode()) for key, value in headers.items()], body)


def _told(scope: Message, body: bytes) -> dict[str, str | None]:
    """What the log says of a request; of its secrets only a hash."""
    sent = {key: values[0] for key, values in parse_qs(body.decode(errors="replace")).items()}
    refresh_token = sent.get("refresh_token")
    return {
        "grant_type": sent.get("grant_type"),
        "client_id": sent.get("client_id") or _basic_client(scope),
        "refresh_token_sha256": None if refresh_token is None else token_hash(refresh_token),
    }


def _basic_client(scope: Message) -> str | None:
    header = dict(scope["headers"]).get(b"authorization", b"")
    try:
        return unquote_plus(base64.b64decode(header.removeprefix(b"Basic "), validate=True).decode().split(":")[0])
    except (binascii.Error, UnicodeDecodeError):
        return None
