"""Waiting for a condition: asked again in short intervals. Whoever waits sets the deadline around it."""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import Awaitable, Callable

from integration_service.devstack.ports import HOST

_EVERY_S = 0.05
_ANSWER_S = 3.0


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Returns once `condition` holds."""
    while not await condition():  # noqa: ASYNC110 - other processes set no event of ours
        await asyncio.sleep(_EVERY_S)


async def answers_http(port: int, path: str) -> bool:
    """Whether ``GET`` gives 200. Through no proxy, whatever the environment says."""
    return await asyncio.to_thread(_answers_http, port, path)


def _answers_http(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=_ANSWER_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
