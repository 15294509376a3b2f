"""`/healthz`, `/readyz` and `/metrics`, the same on every process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from integration_service.contracts.errors import IntegrationError
from integration_service.telemetry.metrics import CONTENT_TYPE

Check = Callable[[], Awaitable[None]]
Exposition = Callable[[], Awaitable[bytes]]
_WITHIN = timedelta(seconds=2)
_KEPT = timedelta(seconds=1)


class Readiness:
    """Whether a process can do its work: every check passes. Asked at most once a second, whoever asks how often."""

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = dict(checks)
        self._lock = asyncio.Lock()
        self._failed: dict[str, str] = {}
        self._known_until = 0.0

    async def failed(self) -> dict[str, str]:
        """What does not pass, with a sentence each; empty when ready."""
        async with self._lock:
            if time.monotonic() >= self._known_until:
                found = await asyncio.gather(*(_checked(check) for check in self._checks.values()))
                self._failed = {name: why for name, why in zip(self._checks, found, strict=True) if why is not None}
                self._known_until = time.monotonic() + _KEPT.total_seconds()
            return self._failed


async def _checked(check: Check) -> str | None:
    try:
        async with asyncio.timeout(_WITHIN.total_seconds()):
            await check()
    except IntegrationError as error:
        return error.message
    except TimeoutError:
        return f"no answer within {_WITHIN.total_seconds():g} s"
    except Exception as error:
        # A driver's or an SDK's words may name hosts and users.
        return type(error).__name__
    return None


def endpoints(readiness: Readiness, exposition: Exposition) -> list[Route]:
    """The three routes."""

    async def healthz(_: Request) -> Response:
        """Whether the event loop turns; nothing else is asked, or a database outage would restart the process."""
        return JSONResponse({"status": "ok"})

    async def readyz(_: Request) -> Response:
        failed = await readiness.failed()
        body = {"status": "not ready", "failed": failed} if failed else {"status": "ready"}
        return JSONResponse(body, status_code=503 if failed else 200, headers={"Cache-Control": "no-store"})

    async def metrics(_: Request) -> Response:
        return Response(await exposition(), headers={"Content-Type": CONTENT_TYPE})

    return [Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)]
