"""Transforms: JSONata over a method's values, in a few sandbox processes."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Mapping
from datetime import timedelta
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from integration_service.activities.transforms.child import Child
from integration_service.activities.transforms.failure import failure, too_long
from integration_service.activities.transforms.protocol import Refusal, evaluate_request
from integration_service.contracts.errors import ErrorCode, IntegrationError

_WITHIN = timedelta(seconds=1)
_MAX_BYTES = 10 * 1024 * 1024
_QUEUE = timedelta(seconds=10)
Got = TypeVar("Got")


class _Idle(asyncio.Queue[Child]):
    """First the one that worked last, whose memory a processor still has at hand; last what is to be started again."""

    _queue: deque[Child]

    def _put(self, child: Child) -> None:
        if child.alive:
            self._queue.append(child)
        else:
            self._queue.appendleft(child)

    def _get(self) -> Child:
        return self._queue.pop()


class Transforms:
    """Evaluates expressions, one in each of its processes at a time; further callers queue, first come first served.

    Of one owner's, one is evaluated at a time: whoever evaluates what does not end holds up himself and one process.
    """

    def __init__(self, *, processes: int = 4, queue: timedelta = _QUEUE) -> None:
        self._processes = processes
        self._wait = queue
        self._children: list[Child] = []
        self._idle = _Idle()
        self._restarts: set[asyncio.Task[None]] = set()
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def open(self) -> None:
        """Starts the processes. Raises IntegrationError UNAVAILABLE when one does not start."""
        self._children = [Child() for _ in range(self._processes)]
        try:
            await asyncio.gather(*(_start(child) for child in self._children))
        except BaseException:
            await self.close()
            raise
        for child in self._children:
            self._idle.put_nowait(child)

    async def close(self) -> None:
        """Leaves no process behind; evaluations under way fail."""
        for restart in self._restarts:
            restart.cancel()
        await asyncio.gather(*self._restarts, return_exceptions=True)
        children, self._children, self._idle = self._children, [], _Idle()
        await asyncio.gather(*(child.close() for child in children))

    async def evaluate(
        self,
        expression: str,
        data: Any,
        *,
        at: str,
        owner: str | None = None,
        bindings: Mapping[str, Any] | None = None,
        within: timedelta = _WITHIN,
        max_bytes: int = _MAX_BYTES,
    ) -> Any:
        """The expression's value over JSON `data`; nothing is None. `bindings` are its variables, without their `$`.

        Raises IntegrationError TRANSFORM_ERROR with path `at`, `details.reason` (a code of JSONata's, or TIMEOUT,
        MEMORY, TOO_LARGE, TOO_DEEP, TOO_LONG, NOT_JSON, REGEX, CRASHED, FAILED) and where it is known
        `details.position`; UNAVAILABLE when no process came free. `within` bounds the evaluation, not the queue.
        `owner` names whose evaluation it is, such as an instance.
        """
        try:
            if too_long(expression):
                raise Refusal("TOO_LONG")
            request = evaluate_request(expression, data, bindings=bindings or {}, within=within, max_bytes=max_bytes)
            turn = await self._turn(owner) if owner is not None else None
            try:
                child = await self._take()
                try:
                    return await child.ask(request, within=within, max_bytes=max_bytes)
                finally:
                    self._give_back(child)
            finally:
                if turn is not None:
                    turn.release()
        except Refusal as refusal:
            raise failure(
                ErrorCode.TRANSFORM_ERROR, refusal.reason, expression=expression, at=at, position=refusal.position
            ) from None

    async def _turn(self, owner: str) -> asyncio.Lock:
        """The owner's lock, held."""
        lock = self._turns.get(owner)
        if lock is None:
            lock = self._turns[owner] = asyncio.Lock()
            await lock.acquire()  # at once
        else:
            await self._in_time(lock.acquire())
        return lock

    async def _take(self) -> Child:
        idle = self._idle
        child = await self._in_time(idle.get()) if idle.empty() else idle.get_nowait()
        if child.alive:
            return child
        try:
            await _start(child)
        except BaseException:
            idle.put_nowait(child)
            raise
        return child

    async def _in_time(self, turn: Awaitable[Got]) -> Got:
        try:
            async with asyncio.timeout(self._wait.total_seconds()):
                return await turn
        except TimeoutError:
            raise _busy() from None

    def _give_back(self, child: Child) -> None:
        if child not in self._children:
            return
        if child.alive:
            self._idle.put_nowait(child)
            return
        restart = asyncio.create_task(self._restart(child))
        self._restarts.add(restart)
        restart.add_done_callback(self._restarts.discard)

    async def _restart(self, child: Child) -> None:
        # One that does not start now is tried again by whoever takes it.
        with contextlib.suppress(IntegrationError):
            await _start(child)
        self._idle.put_nowait(child)


def _busy() -> IntegrationError:
    return IntegrationError(ErrorCode.UNAVAILABLE, "every transform process is busy")


async def _start(child: Child) -> None:
    try:
        await child.start()
    except (OSError, EOFError):
        raise IntegrationError(ErrorCode.UNAVAILABLE, "a transform process did not start") from None
