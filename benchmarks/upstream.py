"""The upstream of all sides: a process that answers any request at once with a small JSON object.

`/slow/<ms>/…` answers after so many milliseconds, `/token` with a new token, of a minute for `SHORT_LIVED`. It reads
no more of HTTP than these clients send: whatever it costs is taken from both sides, so it costs next to nothing.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import sys

SHORT_LIVED = "short-lived"
"""A refresh token: what it gives lives for a minute only."""
_BODY = json.dumps({"id": 7, "name": "a thing", "tags": ["small", "blue"], "owner": {"id": 1, "login": "ada"}}).encode()
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
_ANSWER = _HEAD % len(_BODY) + _BODY
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._seen = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - TCP
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._seen += data
        while (end := self._seen.find(b"\r\n\r\n")) >= 0:
            head = self._seen[:end]
            method, path, _ = head.split(b" ", 2)
            body = 0
            if method == b"POST" and (length := _LENGTH.search(head)):
                body = int(length[1])
            if len(self._seen) < end + 4 + body:
                return
            asked, self._seen = self._seen[end + 4 : end + 4 + body], self._seen[end + 4 + body :]
            if path == b"/token":
                self._answer(_token(60 if SHORT_LIVED.encode() in asked else 3600))
                continue
            wait = int(path.split(b"/")[2]) / 1000 if path.startswith(b"/slow/") else 0
            if wait:
                asyncio.get_running_loop().call_later(wait, self._answer)
            else:
                self._answer()

    def _answer(self, answer: bytes = _ANSWER) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer)


def _token(lifetime: int) -> bytes:
    access, refresh = secrets.token_urlsafe(16), secrets.token_urlsafe(16)
    answer = {"access_token": access, "refresh_token": refresh, "token_type": "Bearer", "expires_in": lifetime}
    body = json.dumps(answer).encode()
    return _HEAD % len(body) + body


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", 0, backlog=1024)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve())
