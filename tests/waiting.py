"""Waiting for what another process does: asked again until it is so, within a bound."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

Found = TypeVar("Found")


async def eventually(look: Callable[[], Awaitable[Found | None]], *, within_s: float = 30) -> Found:
    """What `look` finds, once it finds something. Raises AssertionError when it never does."""
    until = time.monotonic() + within_s
    while True:
        found = await look()
        if found:
            return found
        assert time.monotonic() < until, "it never came to that"
        await asyncio.sleep(0.05)
