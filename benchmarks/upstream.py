"""The upstream of all sides: a process that answers any request at once with a small JSON object.

`/slow/<ms>/…` answers after so many milliseconds. It reads no more of HTTP than these clients send: whatever it costs
is taken from both sides, so it costs next to nothing.
"""

from __future__ import annotations

import asyncio
import json
import sys

_BODY = json.dumps({"id": 7, "name": "a thing", "tags": ["small", "blue"], "owner": {"id": 1, "login": "ada"}}).encode()
_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(_BODY), _BODY)


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._seen = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - TCP
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._seen += data
        while (end := self._seen.find(b"\r\n\r\n")) >= 0:
            head, self._seen = self._seen[:end], self._seen[end + 4 :]
            path = head.split(b" ", 2)[1]
            wait = int(path.split(b"/")[2]) / 1000 if path.startswith(b"/slow/") else 0
            if wait:
                asyncio.get_running_loop().call_later(wait, self._answer)
            else:
                self._answer()

    def _answer(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(_ANSWER)


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", 0, backlog=1024)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve())
