"""Clients that send slowly, or only connect: real sockets against uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from integration_service.telemetry.patience import SERVING, PatientProtocol

HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Quick(PatientProtocol):
    head_within = timedelta(seconds=0.2)
    body_within = timedelta(seconds=0.2)


class Crowded(PatientProtocol):
    most = 3


@asynccontextmanager
async def serving(app: Starlette, protocol: type[PatientProtocol] = Quick) -> AsyncIterator[int]:
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, **{**SERVING, "http": protocol}))
    task = asyncio.create_task(server.serve())
    while not server.started:
        assert not task.done()
        await asyncio.sleep(0.005)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await task


class Read:
    """What became of the bodies."""

    def __init__(self) -> None:
        self.ended: list[str] = []

    async def root(self, request: Request) -> Response:
        try:
            await request.body()
        except ClientDisconnect:
            self.ended.append("gone")
            raise
        self.ended.append("whole")
        return PlainTextResponse("ok")

    async def late(self, _: Request) -> Response:
        await asyncio.sleep(0.6)
        return PlainTextResponse("late")


@pytest.fixture
async def read() -> Read:
    return Read()


@pytest.fixture
async def port(read: Read) -> AsyncIterator[int]:
    routes = [Route("/", read.root, methods=["GET", "POST"]), Route("/late", read.late)]
    async with serving(Starlette(routes=routes)) as found:
        yield found


async def closed(port: int, *parts: bytes, every: float = 0.05) -> bytes:
    """All that comes until the server closes, while `parts` are sent one by one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def dribble() -> None:
        for part in parts:
            writer.write(part)
            await asyncio.sleep(every)

    task = asyncio.create_task(dribble())
    try:
        return await asyncio.wait_for(reader.read(), 5)
    except ConnectionError:
        return b""
    finally:
        task.cancel()
        writer.close()


async def test_who_sends_nothing_or_single_bytes_is_cut_off(port: int, read: Read) -> None:
    assert await closed(port) == b""
    assert await closed(port, *(bytes([byte]) for byte in HEAD * 10)) == b""
    body = (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n", *[b"x"] * 99)
    assert await closed(port, *body) == b""
    assert read.ended == ["gone"]
    # A second request on the same connection has no more time than the first.
    answered = await closed(port, HEAD, *[b"G"] * 99)
    assert answered.count(b"HTTP/1.1 200") == 1


async def test_an_answer_may_take_its_time(port: int) -> None:
    answer = await closed(port, HEAD.replace(b"/ ", b"/late ") + HEAD)
    assert answer.count(b"HTTP/1.1 200") == 2
    assert b"server:" not in answer


async def test_who_only_connects_gives_way(read: Read) -> None:
    async with serving(Starlette(routes=[Route("/", read.root)]), Crowded) as port:
        first, *others = [await asyncio.open_connection("127.0.0.1", port) for _ in range(Crowded.most)]
        asking = asyncio.create_task(closed(port, HEAD.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")))
        assert b"HTTP/1.1 200" in await asking
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(first[0].read(), 5) == b""
        for reader, writer in others:
            assert not reader.at_eof()
            writer.write(HEAD)
            assert b"200" in await asyncio.wait_for(reader.readline(), 5)
        for _, writer in (first, *others):
            writer.close()
