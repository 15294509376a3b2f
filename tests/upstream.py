"""A real HTTP server for tests: handlers in, a log of requests out."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Seen:
    """One request as it came in."""

    at: float
    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Upstream:
    """Answers with `handler` when there is one, else with the next of `answers`, the last one for ever."""

    answers: list[Response] = field(default_factory=list)
    handler: Handler | None = None
    seen: list[Seen] = field(default_factory=list)
    url: str = ""

    async def __aenter__(self) -> Self:
        app = Starlette(routes=[Route("/{path:path}", self._serve, methods=_METHODS)])
        self._server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, lifespan="off"))
        self._task = asyncio.create_task(self._server.serve())
        while not self._server.started:
            await asyncio.sleep(0.005)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._server.force_exit = True
        await self._task

    async def _serve(self, request: Request) -> Response:
        self.seen.append(
            Seen(
                at=time.monotonic(),
                method=request.method,
                path=request.scope["raw_path"].decode(),
                query=request.url.query,
                headers=dict(request.headers),
                body=await request.body(),
            )
        )
        if self.handler is not None:
            return await self.handler(request)
        if not self.answers:
            return JSONResponse({"ok": True})
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def gaps(self) -> list[float]:
        """Seconds between one request and the next."""
        times = [seen.at for seen in self.seen]
        return [later - earlier for earlier, later in itertools.pairwise(times)]


_METHODS = ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "POST", "PATCH"]


def json_answer(body: Any, status: int = 200, **headers: str) -> Response:
    """A JSON answer; header names with underscores."""
    return JSONResponse(body, status, headers={key.replace("_", "-"): value for key, value in headers.items()})
