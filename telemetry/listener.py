"""A small HTTP server inside a process that has other work to do and its own signal handlers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import uvicorn
from starlette.applications import Starlette

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.telemetry.patience import SERVING


def read_address(text: str, *, variable: str) -> tuple[str, int]:
    """``host:port`` as the two of them. Raises IntegrationError naming the variable."""
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise IntegrationError(ErrorCode.VALIDATION_ERROR, "must be host:port", path=variable)
    return host.strip("[]"), int(port)


class _Guest(uvicorn.Server):
    """Leaves the signals to its host."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def listening(app: Starlette, host: str, port: int, *, variable: str) -> AsyncIterator[int]:
    """Serve `app` for as long as the context lasts; gives the port, which 0 lets the system choose.

    Raises IntegrationError UNAVAILABLE where the address cannot be had.
    """
    # Bound here: uvicorn ends the whole process where it cannot bind.
    config = uvicorn.Config(app, lifespan="off", timeout_graceful_shutdown=1, **SERVING)
    try:
        [bound, *_] = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        listener = socket.socket(bound[0], socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(bound[4])
    except OSError as error:
        raise IntegrationError(ErrorCode.UNAVAILABLE, f"cannot listen there: {error.strerror}", path=variable) from None
    server = _Guest(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await asyncio.wait({task})
        listener.close()
