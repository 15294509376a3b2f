"""Upstreams that answer to do harm: each ends in its error code within its bound, and memory stays where it was."""

from __future__ import annotations

import asyncio
import gc
import gzip
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from integration_service.activities.outbound.content_coding import STEP_BYTES, Decoder
from integration_service.activities.outbound.egress import EgressPolicy
from integration_service.activities.outbound.messages import OutboundRequest
from integration_service.activities.outbound.transport import MAX_RESPONSE_BYTES, SendFailed, Transport
from integration_service.contracts.errors import ErrorCode, IntegrationError

PATIENCE, SHORT = timedelta(seconds=5), timedelta(milliseconds=400)
MIB = 1024 * 1024
Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    sender = Transport(EgressPolicy(["127.0.0.0/8"]))
    await sender.open()
    yield sender
    await sender.close()


@asynccontextmanager
async def raw_server(answer: Answer) -> AsyncIterator[str]:
    """Reads a request's head and lets `answer` write; closes when that returns, or the other side is gone."""
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        try:
            await reader.readuntil(b"\r\n\r\n")
            await answer(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        # From 3.12 on a server's end waits for its connections, and some answers never end.
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


def squeezed(size: int, *, wbits: int = 31, filler: bytes = bytes(MIB)) -> bytes:
    """`size` bytes, compressed, made of one block that stands there again and again: their checksum is wrong."""
    press = zlib.compressobj(9, zlib.DEFLATED, wbits)
    head = press.compress(filler) + press.flush(zlib.Z_FULL_FLUSH)
    again = press.compress(filler) + press.flush(zlib.Z_FULL_FLUSH)
    return head + again * (size // len(filler) - 1) + press.flush()


def nested(times: int) -> bytes:
    body = squeezed(256 * MIB)
    for _ in range(times - 1):
        body = gzip.compress(body)
    return body


def whole(body: bytes, *headers: str) -> Answer:
    async def answer(writer: asyncio.StreamWriter) -> None:
        head = "\r\n".join(["HTTP/1.1 200 OK", *headers, f"Content-Length: {len(body)}", "", ""])
        writer.write(head.encode() + body)
        await writer.drain()

    return answer


def endless(head: bytes, piece: bytes, *, every_s: float = 0) -> Answer:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(every_s)

    return answer


def once(data: bytes) -> Answer:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return answer


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n"
GZIP = "Content-Encoding: gzip"
KIB64 = b"10000\r\n" + bytes(65536) + b"\r\n"
TOO_LARGE, TIMEOUT, BROKEN, MALFORMED = (
    ErrorCode.RESPONSE_TOO_LARGE,
    ErrorCode.TIMEOUT,
    ErrorCode.CONNECTION_ERROR,
    ErrorCode.MALFORMED_RESPONSE,
)
# After the end of a compressed stream: no byte comes out of it, and a decoder that kept it would fill up.
AFTER_THE_END = CHUNKED + b"Content-Encoding: gzip\r\n\r\n14\r\n" + gzip.compress(b"", mtime=0) + b"\r\n"
# A stored deflate block without content, for ever.
NOTHING = b"\x00\x00\x00\xff\xff" * 13_000
EMPTY_BLOCKS = b"%x\r\n%s\r\n" % (len(NOTHING), NOTHING)

ATTACKS: dict[str, tuple[Answer, set[ErrorCode]]] = {
    "gzip": (whole(squeezed(8 * 1024 * MIB), GZIP), {TOO_LARGE}),
    "deflate": (whole(squeezed(256 * MIB, wbits=15), "Content-Encoding: deflate"), {TOO_LARGE}),
    "raw deflate": (whole(squeezed(256 * MIB, wbits=-15), "Content-Encoding: deflate"), {TOO_LARGE}),
    "gzip twice": (whole(nested(2), "Content-Encoding: gzip, gzip"), {TOO_LARGE}),
    "gzip twice, in two headers": (whole(nested(2), GZIP, GZIP), {TOO_LARGE}),
    "gzip six times": (whole(nested(6), "Content-Encoding: " + ", ".join(["gzip"] * 6)), {MALFORMED}),
    "gzip a thousand times": (whole(b"", "Content-Encoding: " + ",".join(["gzip"] * 1000)), {MALFORMED}),
    "zstd that nobody asked for": (whole(b"\x28\xb5\x2f\xfd", "Content-Encoding: zstd"), {MALFORMED}),
    "br that nobody asked for": (whole(b"\x0b", "Content-Encoding: br"), {MALFORMED}),
    "many gzip members": (whole(gzip.compress(b"") * 600_000, GZIP), {TOO_LARGE}),
    "a bomb whose inner stream has ended": (
        whole(squeezed(256 * MIB, filler=gzip.compress(b"") + bytes(MIB)), "Content-Encoding: gzip, gzip"),
        {TOO_LARGE},
    ),
    "no end after the end": (endless(AFTER_THE_END, KIB64), {TOO_LARGE}),
    "deflate of nothing, endless": (
        endless(CHUNKED + b"Content-Encoding: deflate\r\n\r\n2\r\n\x78\x9c\r\n", EMPTY_BLOCKS),
        {TOO_LARGE},
    ),
    "endless chunks": (endless(CHUNKED + b"\r\n", KIB64), {TOO_LARGE}),
    "endless chunks of one byte": (endless(CHUNKED + b"\r\n", b"1\r\nx\r\n" * 1000), {TIMEOUT}),
    "endless chunk extension": (endless(CHUNKED + b"\r\n1;", b"x" * 65536), {BROKEN}),
    "endless trailers": (endless(CHUNKED + b"\r\n0\r\n", b"X: y\r\n" * 1000), {BROKEN}),
    "endless without a length, HTTP/1.0": (endless(b"HTTP/1.0 200 OK\r\n\r\n", bytes(65536)), {TOO_LARGE}),
    "one header of 100 MiB": (endless(OK + b"X: ", b"x" * 65536), {BROKEN}),
    "a million headers": (endless(OK, b"X: y\r\n" * 1000), {BROKEN}),
    "endless status line": (endless(b"HTTP/1.1 200 ", b"x" * 65536), {BROKEN}),
    "endless 100 Continue": (endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000), {TIMEOUT}),
    "headers that drip": (endless(OK + b"X: ", b"x", every_s=0.02), {TIMEOUT}),
    "a body that drips": (endless(CHUNKED + b"\r\n", b"1\r\nx\r\n", every_s=0.02), {TIMEOUT}),
    "gzip that drips": (endless(CHUNKED + b"Content-Encoding: gzip\r\n\r\n", b"1\r\n\x1f\r\n", every_s=5), {TIMEOUT}),
    "silence": (endless(b"", b"", every_s=0.5), {TIMEOUT}),
    "a length that promises more": (once(OK + b"Content-Length: 100\r\n\r\nshort"), {BROKEN}),
    "two lengths": (once(OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx"), {BROKEN}),
    "a negative length": (once(OK + b"Content-Length: -1\r\n\r\nxx"), {BROKEN}),
    "a length of 20 digits": (once(OK + b"Content-Length: 99999999999999999999\r\n\r\nxx"), {BROKEN}),
    "a chunk of a terabyte": (once(CHUNKED + b"\r\n10000000000\r\nxx"), {BROKEN}),
    "a chunk of no number": (once(CHUNKED + b"\r\nzz\r\nxx\r\n"), {BROKEN}),
    "gzip that is cut off": (whole(gzip.compress(b"x" * 1000)[:-9], GZIP), {MALFORMED}),
    "gzip with a wrong checksum": (whole(gzip.compress(b"x")[:-8] + bytes(8), GZIP), {MALFORMED}),
    "early close": (once(OK), {BROKEN}),
    "another protocol": (once(b"SSH-2.0-x\r\n"), {BROKEN}),
    "endless redirects": (
        once(b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
        {MALFORMED},
    ),
    "a redirect to itself with a bomb": (
        whole(squeezed(256 * MIB), "Location: /", GZIP),
        {TOO_LARGE},
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_an_attack_ends_in_its_error_within_its_bound(transport: Transport, attack: str) -> None:
    answer, codes = ATTACKS[attack]
    within = SHORT if codes == {TIMEOUT} else PATIENCE
    slowest = 0.0

    async def heartbeat() -> None:
        """Others get their turns meanwhile."""
        nonlocal slowest
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            slowest = max(slowest, time.monotonic() - before)

    async with raw_server(answer) as url:
        beating = asyncio.create_task(heartbeat())
        began = time.monotonic()
        with pytest.raises(SendFailed) as error:
            await transport.send(OutboundRequest(method="GET", url=url), within=within)
        took = time.monotonic() - began
        beating.cancel()
    assert error.value.code in codes
    assert error.value.maybe_sent
    assert took < within.total_seconds() + 1
    assert slowest < 1


async def test_memory_stays_where_it_was_over_all_of_them(transport: Transport) -> None:
    process = psutil.Process()

    async def attack(answer: Answer) -> None:
        async with raw_server(answer) as url:
            with pytest.raises(SendFailed):
                await transport.send(OutboundRequest(method="GET", url=url), within=SHORT)

    peak, done = 0, asyncio.Event()

    async def look() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, process.memory_info().rss)
            await asyncio.sleep(0.002)

    gc.collect()
    before = process.memory_info().rss
    looking = asyncio.create_task(look())
    for answer, _ in ATTACKS.values():
        await attack(answer)
    done.set()
    await looking
    assert peak - before < 64 * MIB


@pytest.mark.parametrize(
    ("encoding", "press"),
    [
        ("gzip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("GZIP", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", lambda data: zlib.compress(data, wbits=-15)),
        ("gzip, gzip", lambda data: gzip.compress(gzip.compress(data))),
        ("deflate, gzip", lambda data: gzip.compress(zlib.compress(data))),
        ("gzip", lambda data: gzip.compress(data[:7]) + gzip.compress(data[7:])),
        ("gzip", lambda data: gzip.compress(data) + bytes(100)),
        ("identity", bytes),
        ("utf-8", bytes),
        ("", bytes),
        ("identity, gzip", gzip.compress),
    ],
)
@given(data=st.binary(max_size=2000) | st.just(bytes(300_000)), cuts=st.lists(st.integers(0, 3000), max_size=6))
@settings(max_examples=15, deadline=None)
def test_what_was_compressed_comes_back_however_it_was_cut(
    encoding: str, press: Callable[[bytes], bytes], data: bytes, cuts: list[int]
) -> None:
    decoder, sent = Decoder(encoding, max_bytes=MAX_RESPONSE_BYTES), press(data)
    pieces = list(pieces_of(decoder, sent, sorted(cuts)))
    decoder.end()
    assert b"".join(pieces) == data
    if encoding not in ("", "identity", "utf-8"):
        assert max(map(len, pieces), default=0) <= STEP_BYTES


def pieces_of(decoder: Decoder, sent: bytes, cuts: list[int]) -> Iterator[bytes]:
    for start, stop in zip([0, *cuts], [*cuts, len(sent)], strict=True):
        yield from decoder.feed(sent[start:stop])


@given(
    encoding=st.sampled_from(["gzip", "deflate", "gzip, deflate", "gzip, gzip"]),
    data=st.lists(st.binary(max_size=200) | st.binary(max_size=50).map(gzip.compress), max_size=5),
)
@settings(max_examples=100, deadline=None)
def test_whatever_comes_it_is_decoded_or_malformed(encoding: str, data: list[bytes]) -> None:
    decoder = Decoder(encoding, max_bytes=10_000)
    try:
        for part in data:
            for piece in decoder.feed(part):
                assert len(piece) <= STEP_BYTES
        decoder.end()
    except IntegrationError as error:
        assert error.code in (ErrorCode.MALFORMED_RESPONSE, ErrorCode.RESPONSE_TOO_LARGE)  # noqa: PT017


def test_an_empty_body_with_an_encoding_is_no_failure() -> None:
    decoder = Decoder("gzip", max_bytes=10)
    assert b"".join(decoder.feed(b"")) == b""
    decoder.end()
