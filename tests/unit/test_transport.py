"""The one sender, against real servers on loopback."""

from __future__ import annotations

import asyncio
import gzip
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from integration_service.activities.outbound.egress import EgressPolicy
from integration_service.activities.outbound.messages import InboundResponse, OutboundRequest
from integration_service.activities.outbound.transport import SendFailed, Transport
from integration_service.contracts.errors import ErrorCode, IntegrationError
from tests.upstream import Upstream, json_answer

SECRET = "planted-header-4f"
QUERY = "planted-query-8b"
PATIENCE = timedelta(seconds=5)


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    sender = Transport(EgressPolicy(["127.0.0.0/8"]))
    await sender.open()
    yield sender
    await sender.close()


def get(url: str, method: str = "GET", **changes: object) -> OutboundRequest:
    return OutboundRequest(method=method, url=url, **changes)  # type: ignore[arg-type]


async def failed(transport: Transport, request: OutboundRequest, **more: object) -> IntegrationError:
    with pytest.raises(IntegrationError) as error:
        await transport.send(request, **{"within": PATIENCE, **more})  # type: ignore[arg-type]
    shown = f"{error.value} {error.value.details} {error.value!r} {error.value.__cause__}"
    assert request.url not in shown
    assert QUERY not in shown
    assert SECRET not in shown
    return error.value


async def test_a_request_arrives_as_it_was_built(transport: Transport, upstream: Upstream) -> None:
    sent = get(f"{upstream.url}/a%2Fb/c?q=%20x", "POST", headers=(("X-Note", "hi"),), body=b"body")
    answer = await transport.send(sent, within=PATIENCE)
    assert (answer.status, answer.body, answer.content_type) == (200, b'{"ok":true}', "application/json")
    (seen,) = upstream.seen
    assert (seen.method, seen.path, seen.query, seen.body) == ("POST", "/a%2Fb/c", "q=%20x", b"body")
    assert seen.headers["x-note"] == "hi"


@pytest.mark.parametrize(
    ("method", "body", "length"),
    [
        ("GET", None, None),
        ("HEAD", None, None),
        ("OPTIONS", b"", None),
        ("DELETE", b"body", "4"),
        ("GET", b"body", "4"),
        ("POST", None, "0"),
        ("PUT", b"", "0"),
        ("PATCH", "größe".encode(), "7"),
    ],
)
async def test_a_request_says_where_it_goes_and_how_long_it_is(
    transport: Transport, upstream: Upstream, method: str, body: bytes | None, length: str | None
) -> None:
    await transport.send(get(f"{upstream.url}/x", method, body=body), within=PATIENCE)
    (seen,) = upstream.seen
    assert seen.headers["host"] == upstream.url.removeprefix("http://")
    assert seen.headers.get("content-length") == length
    assert "transfer-encoding" not in seen.headers
    assert seen.body == (body or b"")


async def test_what_must_not_be_sent_twice_takes_no_connection_that_was_idle(upstream: Upstream) -> None:
    """The server may be closing it at that very moment."""
    ports: list[int] = []

    async def remember(request: Request) -> Response:
        assert request.client is not None
        ports.append(request.client.port)
        return JSONResponse({})

    upstream.handler = remember
    sender = Transport(EgressPolicy(["127.0.0.0/8"]), young=timedelta(0))
    await sender.open()
    for once in (False, False, True, True):
        await sender.send(get(upstream.url, "POST"), within=PATIENCE, once=once)
    await sender.close()
    assert ports[0] == ports[1]
    assert len(set(ports)) == 3


@pytest.mark.parametrize("name", ["User-Agent", "Accept-Encoding"])
async def test_a_definitions_own_header_stands_alone(transport: Transport, upstream: Upstream, name: str) -> None:
    values: list[str] = []

    async def remember(request: Request) -> Response:
        values.extend(request.headers.getlist(name))
        return JSONResponse({})

    upstream.handler = remember
    await transport.send(get(upstream.url, headers=((name, "identity"),)), within=PATIENCE)
    assert values == ["identity"]


async def test_a_header_that_the_adapter_lets_through_can_be_sent(transport: Transport, upstream: Upstream) -> None:
    await transport.send(get(upstream.url, headers=(("X-Name", "Zoë"),)), within=PATIENCE)
    assert upstream.seen[0].headers["x-name"] == "Zoë"


async def test_a_header_that_cannot_be_sent_is_refused_without_its_text(
    transport: Transport, upstream: Upstream
) -> None:
    await failed(transport, get(upstream.url, headers=(("X-Api-Key", f"ключ{SECRET}"),)))
    assert upstream.seen == []


async def test_get_and_head_follow_a_redirect(transport: Transport, upstream: Upstream) -> None:
    for method in ("GET", "HEAD"):
        for status in (301, 302, 303, 307, 308):
            upstream.seen = []
            upstream.answers = [Response(status_code=status, headers={"location": "/next?x=1"}), json_answer({})]
            assert (await transport.send(get(f"{upstream.url}/first", method), within=PATIENCE)).status == 200
            assert [(seen.method, seen.path, seen.query) for seen in upstream.seen] == [
                (method, "/first", ""),
                (method, "/next", "x=1"),
            ]


async def test_other_methods_follow_none(transport: Transport, upstream: Upstream) -> None:
    upstream.answers = [Response(status_code=302, headers={"location": "/next"})]
    methods = ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
    for method in methods:
        assert (await transport.send(get(upstream.url, method), within=PATIENCE)).status == 302
    assert [(seen.method, seen.path) for seen in upstream.seen] == [(method, "/") for method in methods]


async def test_five_redirects_are_followed_and_no_sixth(transport: Transport, upstream: Upstream) -> None:
    turn = Response(status_code=302, headers={"location": "/again"})
    upstream.answers = [turn] * 5 + [json_answer({})]
    assert (await transport.send(get(upstream.url), within=PATIENCE)).status == 200
    upstream.answers, upstream.seen = [turn], []
    assert (await failed(transport, get(upstream.url))).code == ErrorCode.MALFORMED_RESPONSE
    assert len(upstream.seen) == 6


HEADERS = (("X-Api-Key", SECRET), ("Authorization", f"Bearer {SECRET}"), ("X-Plain", "stays"))
SECRETS = frozenset({"x-api-key", "authorization"})


async def test_credentials_stay_within_their_origin(transport: Transport, upstream: Upstream) -> None:
    async with Upstream(answers=[json_answer({})]) as other:
        upstream.answers = [
            Response(status_code=302, headers={"location": "/same"}),
            Response(status_code=302, headers={"location": f"{other.url}/there"}),
            json_answer({}),
        ]
        other.answers = [Response(status_code=302, headers={"location": f"{upstream.url}/back"})]
        await transport.send(get(f"{upstream.url}/", headers=HEADERS, secret_headers=SECRETS), within=PATIENCE)
        first, same, back = upstream.seen
        for seen in (first, same):
            assert (seen.headers["x-api-key"], seen.headers["authorization"]) == (SECRET, f"Bearer {SECRET}")
        for seen in (other.seen[0], back):
            assert SECRET not in str(seen.headers)
            assert seen.headers["x-plain"] == "stays"


INSIDE = ["http://10.0.0.1/", "http://169.254.169.254/latest/meta-data/", "http://[::1]:1/", "file:///etc/passwd"]


async def test_a_redirect_goes_through_the_egress_policy(transport: Transport, upstream: Upstream) -> None:
    for location in [*INSIDE, "ftp://127.0.0.1/"]:
        upstream.answers = [Response(status_code=302, headers={"location": location})]
        assert (await failed(transport, get(upstream.url))).code == ErrorCode.EGRESS_DENIED, location


@pytest.mark.parametrize("location", ["http://127.0.0.1:99999/", "http://[::1/", "http://127.0.0.1:x/", "http://a b/"])
async def test_a_redirect_to_nonsense_is_the_upstreams_fault(
    transport: Transport, upstream: Upstream, location: str
) -> None:
    upstream.answers = [Response(status_code=302, headers={"location": location})]
    error = await failed(transport, get(upstream.url))
    assert error.code in (ErrorCode.MALFORMED_RESPONSE, ErrorCode.CONNECTION_ERROR)


async def test_no_answer_in_time_is_a_timeout_that_may_have_been_sent(transport: Transport, upstream: Upstream) -> None:
    done = asyncio.Event()

    async def silent(_: Request) -> Response:
        await done.wait()
        return JSONResponse({})

    upstream.handler = silent
    started = asyncio.get_running_loop().time()
    error = await failed(transport, get(f"{upstream.url}/?key={QUERY}"), within=timedelta(milliseconds=200))
    done.set()
    assert isinstance(error, SendFailed)
    assert (error.code, error.maybe_sent) == (ErrorCode.TIMEOUT, True)
    assert asyncio.get_running_loop().time() - started < 2


async def test_a_trickling_body_is_bounded_as_a_whole(transport: Transport, upstream: Upstream) -> None:
    stop = asyncio.Event()

    async def drops() -> AsyncIterator[bytes]:
        while not stop.is_set():
            yield b"x"
            await asyncio.sleep(0.02)

    async def trickle(_: Request) -> Response:
        return StreamingResponse(drops())

    upstream.handler = trickle
    error = await failed(transport, get(upstream.url), within=timedelta(milliseconds=300))
    stop.set()
    assert error.code == ErrorCode.TIMEOUT


async def test_a_refused_connection_was_not_sent(transport: Transport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    error = await failed(transport, get(f"http://127.0.0.1:{port}/?key={QUERY}", "POST"))
    assert isinstance(error, SendFailed)
    assert (error.code, error.maybe_sent) == (ErrorCode.CONNECTION_ERROR, False)


async def test_a_name_that_does_not_resolve_was_not_sent(transport: Transport) -> None:
    error = await failed(transport, get(f"http://nothing.invalid/?key={QUERY}"))
    assert isinstance(error, SendFailed)
    assert (error.code, error.maybe_sent) == (ErrorCode.CONNECTION_ERROR, False)


@asynccontextmanager
async def raw_server(answer: bytes) -> AsyncIterator[str]:
    """Reads a request's head, writes `answer`, closes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/?key={QUERY}"


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", b"SSH-2.0-OpenSSH\r\n"],
    ids=["nothing", "half a status line", "half a body", "another protocol"],
)
async def test_a_broken_answer_may_have_been_sent(transport: Transport, answer: bytes) -> None:
    async with raw_server(answer) as url:
        error = await failed(transport, get(url, "POST", body=b""))
    assert isinstance(error, SendFailed)
    assert (error.code, error.maybe_sent) == (ErrorCode.CONNECTION_ERROR, True)


async def test_a_body_over_the_limit_is_refused_and_one_at_it_is_not(transport: Transport, upstream: Upstream) -> None:
    upstream.answers = [Response(b"x" * 1000)]
    assert len((await transport.send(get(upstream.url), within=PATIENCE, max_bytes=1000)).body) == 1000
    assert (await failed(transport, get(upstream.url), max_bytes=999)).code == ErrorCode.RESPONSE_TOO_LARGE


async def test_the_limit_counts_decoded_bytes(transport: Transport, upstream: Upstream) -> None:
    bomb = gzip.compress(bytes(5_000_000))
    upstream.answers = [Response(bomb, headers={"content-encoding": "gzip"})]
    assert len(bomb) < 100_000
    assert (await failed(transport, get(upstream.url), max_bytes=100_000)).code == ErrorCode.RESPONSE_TOO_LARGE


async def test_a_compressed_body_is_decoded(transport: Transport, upstream: Upstream) -> None:
    upstream.answers = [Response(gzip.compress(b"plain"), headers={"content-encoding": "gzip"})]
    assert (await transport.send(get(upstream.url), within=PATIENCE)).body == b"plain"


async def test_a_body_that_is_not_what_its_encoding_says_is_malformed(transport: Transport, upstream: Upstream) -> None:
    upstream.answers = [Response(b"no gzip at all", headers={"content-encoding": "gzip"})]
    assert (await failed(transport, get(upstream.url))).code == ErrorCode.MALFORMED_RESPONSE


async def test_cookies_are_not_kept(transport: Transport, upstream: Upstream) -> None:
    upstream.answers = [
        Response(status_code=302, headers={"location": "/next", "set-cookie": "session=1; Path=/"}),
        json_answer({}, set_cookie="session=2; Path=/"),
    ]
    for _ in range(2):
        await transport.send(get(upstream.url), within=PATIENCE)
    assert len(upstream.seen) == 3
    assert not any("cookie" in seen.headers for seen in upstream.seen)


@pytest.mark.parametrize("url", ["", "/x", "gopher://h/", "http://[::1/", "http://h\x00/"])
async def test_what_cannot_be_called_is_refused(transport: Transport, url: str) -> None:
    with pytest.raises(IntegrationError) as refused:
        await transport.send(get(url), within=PATIENCE)
    assert refused.value.code == ErrorCode.VALIDATION_ERROR


async def test_nothing_that_is_logged_holds_a_header_or_a_query(
    transport: Transport, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        request = get(f"{upstream.url}/?key={QUERY}", headers=HEADERS, secret_headers=SECRETS)
        assert isinstance(await transport.send(request, within=PATIENCE), InboundResponse)
        await failed(transport, get(f"http://127.0.0.1:1/?key={QUERY}", headers=HEADERS))
        logging.getLogger("tests").debug("listening")
    # The test's own server logs too; what counts is what the sender's side says.
    ours = "\n".join(record.getMessage() for record in caplog.records if not record.name.startswith("uvicorn"))
    assert "listening" in ours
    assert QUERY not in ours
    assert SECRET not in ours


async def test_a_closed_transport_says_so() -> None:
    with pytest.raises(RuntimeError):
        await Transport(EgressPolicy()).send(get("http://127.0.0.1/"), within=PATIENCE)
