"""One sandbox process, as its pool holds it."""

from __future__ import annotations

import asyncio
import contextlib
from asyncio.subprocess import DEVNULL, PIPE, Process
from datetime import timedelta
from typing import Any

from integration_service.activities.transforms import protocol
from integration_service.activities.transforms.protocol import HEAD, Refusal

_START = timedelta(seconds=20)
_BEYOND = timedelta(seconds=1)  # the sandbox ends itself in time; this is for one that cannot, or is not scheduled
_BUFFER = 1024 * 1024
_OVERHEAD = 4096
"""What an answer may have beyond its result."""


class Child:
    """A process that answers one request at a time, and is killed rather than left in the middle of one."""

    def __init__(self) -> None:
        self._process: Process | None = None
        self._closed = False
        self._starting = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Returns when it is ready. Raises OSError or EOFError when it cannot be started."""
        async with self._starting:
            await self.kill()
            if self._closed:
                raise EOFError
            self._process = await asyncio.create_subprocess_exec(
                *protocol.command(),
                stdin=PIPE,
                stdout=PIPE,
                stderr=DEVNULL,
                env={},
                cwd="/",
                start_new_session=True,
                limit=_BUFFER,
            )
            try:
                async with asyncio.timeout(_START.total_seconds()):
                    if await _stream(self._process.stdout).readexactly(HEAD.size) != protocol.READY:
                        raise EOFError
            except BaseException:
                await self.kill()
                raise

    async def ask(self, request: bytes, *, within: timedelta, max_bytes: int) -> Any:
        """The result. Raises Refusal; afterwards, and after a cancellation, `alive` says whether it can go on."""
        try:
            async with asyncio.timeout((within + _BEYOND).total_seconds()):
                answer = await self._exchange(request, max_bytes)
        except TimeoutError:
            await self.kill()
            raise Refusal("TIMEOUT") from None
        except (EOFError, OSError):
            raise Refusal(await self._how_it_ended()) from None
        except BaseException:
            await self.kill()
            raise
        try:
            return protocol.read_answer(answer)
        except Refusal as refusal:
            if refusal.reason == "MEMORY":
                await self.kill()
            raise

    async def kill(self) -> None:
        """Ends it; returns once nothing of it is left."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    async def close(self) -> None:
        """Ends it for good."""
        self._closed = True
        await self.kill()
        async with self._starting:
            await self.kill()

    async def _exchange(self, request: bytes, max_bytes: int) -> bytes:
        process = self._process
        if process is None or process.stdin is None:
            raise EOFError
        answers = _stream(process.stdout)
        process.stdin.write(request)
        await process.stdin.drain()
        # Mostly all of it comes at once.
        head = await answers.read(_BUFFER)
        if len(head) < HEAD.size:
            head += await answers.readexactly(HEAD.size - len(head))
        (length,) = HEAD.unpack_from(head)
        missing = HEAD.size + length - len(head)
        if length > max_bytes + _OVERHEAD or missing < 0:
            raise EOFError
        answer = head[HEAD.size :]
        return answer + await answers.readexactly(missing) if missing else answer

    async def _how_it_ended(self) -> str:
        process = self._process
        code: int | None = None
        if process is not None:
            # Its own end says why; killing what has just ended would lose that.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_BEYOND.total_seconds()):
                    code = await process.wait()
        await self.kill()
        return protocol.end_of(code)


def _stream(stream: asyncio.StreamReader | None) -> asyncio.StreamReader:
    if stream is None:
        raise EOFError
    return stream
