"""An ASGI application that others wrote, served on loopback by uvicorn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn


@asynccontextmanager
async def served(app: Any, *, lifespan: bool = False) -> AsyncIterator[str]:
    """The server's URL on a free port, without a slash at its end, for as long as the context lasts."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, lifespan="on" if lifespan else "off")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    try:
        while not server.started:
            if task.done():
                raise RuntimeError("the server did not start")
            await asyncio.sleep(0.005)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        # Forced, it would not end the application's lifespan: a pool of connections would stay open.
        server.force_exit = not lifespan
        await task
