"""The one sender. It interprets nothing and retries nothing: it sends a request value and returns a response."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpcore2
import httpx2

from integration_service.activities.outbound.content_coding import Decoder
from integration_service.activities.outbound.egress import EgressBackend, EgressPolicy
from integration_service.activities.outbound.messages import InboundResponse, OutboundRequest
from integration_service.contracts.errors import ErrorCode, IntegrationError

MAX_RESPONSE_BYTES = 10 * 1024 * 1024
MAX_REDIRECTS = 5
_IDLE = timedelta(seconds=5)
"""How long a connection is kept without a request."""
_YOUNG = timedelta(seconds=1)
"""The same where a request must not be sent twice. Many servers close what was idle for 5 s, some for 2 s (gunicorn):
one that closes while the request is on its way leaves it open whether it arrived (RFC 9112 §9.3.1)."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_FOLLOWED = frozenset({"GET", "HEAD"})
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
"""An empty body of theirs has a length too (RFC 9110 §8.6)."""
_FRAMING = frozenset({"content-length", "transfer-encoding"})
_LAST_PORT = 65535
_PORTS = {"http": 80, "https": 443}
# Whoever put them there: they never go to another origin.
_ALWAYS_SECRET = frozenset({"authorization", "cookie", "proxy-authorization"})
# Their INFO lines hold whole URLs and their DEBUG lines whole headers: keys and tokens among them.
_CHATTY = ("httpx2", "httpcore2")


class SendFailed(IntegrationError):
    """No whole response came, or none that may be read; `maybe_sent` tells whether the request may have arrived."""

    def __init__(self, code: str, message: str, *, maybe_sent: bool, path: str | None = None) -> None:
        super().__init__(code, message, path=path)
        self.maybe_sent = maybe_sent


class Transport:
    """Sends requests through the egress policy over pooled connections; keeps no cookies, asks no proxy."""

    def __init__(self, policy: EgressPolicy, *, max_connections: int = 200, young: timedelta = _YOUNG) -> None:
        self._policy = policy
        self._max_connections = max_connections
        self._young = young
        self._pools: dict[bool, httpcore2.AsyncConnectionPool] = {}

    async def open(self) -> None:
        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)
        ssl_context = httpx2.create_ssl_context(trust_env=False)
        for once, idle in ((False, _IDLE), (True, self._young)):
            self._pools[once] = httpcore2.AsyncConnectionPool(
                ssl_context=ssl_context,
                max_connections=self._max_connections,
                max_keepalive_connections=self._max_connections,
                keepalive_expiry=idle.total_seconds(),
                network_backend=EgressBackend(self._policy),
            )

    async def close(self) -> None:
        while self._pools:
            _, pool = self._pools.popitem()
            await pool.aclose()

    async def send(
        self, request: OutboundRequest, *, within: timedelta, once: bool = False, max_bytes: int = MAX_RESPONSE_BYTES
    ) -> InboundResponse:
        """Send and read to the end of the body, redirects included, all within one bound. `once` says that the request
        must not be sent twice: it takes no connection that may be closed under it.

        Raises SendFailed: TIMEOUT, CONNECTION_ERROR, EGRESS_DENIED, RESPONSE_TOO_LARGE, MALFORMED_RESPONSE. No
        message of its holds a URL: a key may stand in it.
        """
        progress = _Progress()
        try:
            async with asyncio.timeout(within.total_seconds()):
                return await self._follow(request, progress, max_bytes, once=once)
        except IntegrationError as error:
            raise SendFailed(error.code, error.message, path=error.path, maybe_sent=progress.sending) from None
        except (TimeoutError, httpcore2.TimeoutException):
            code, message = ErrorCode.TIMEOUT, f"no whole answer within {within.total_seconds():g} s"
        except (httpx2.InvalidURL, httpcore2.UnsupportedProtocol):
            raise SendFailed(
                ErrorCode.VALIDATION_ERROR, "no URL that can be called", path="baseUrl", maybe_sent=progress.sending
            ) from None
        except (UnicodeEncodeError, httpcore2.LocalProtocolError):
            code, message = ErrorCode.VALIDATION_ERROR, "a header's name or value holds what a header cannot"
        except (httpcore2.NetworkError, httpcore2.ProtocolError) as error:
            what = "could not connect" if not progress.sending else "the connection broke"
            code, message = ErrorCode.CONNECTION_ERROR, f"{what} ({type(error).__name__})"
        raise SendFailed(code, message, maybe_sent=progress.sending)

    async def _follow(
        self, request: OutboundRequest, progress: _Progress, max_bytes: int, *, once: bool
    ) -> InboundResponse:
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._exchange(request, progress, max_bytes, once=once)
            location = response.headers.get("location")
            follows = request.follow_redirects and request.method in _FOLLOWED
            if response.status not in _REDIRECTS or not follows or not location:
                return response
            try:
                request = _redirected(request, location)
            except (ValueError, httpx2.InvalidURL):
                raise IntegrationError(ErrorCode.MALFORMED_RESPONSE, "a redirect leads to no URL") from None
        raise IntegrationError(ErrorCode.MALFORMED_RESPONSE, f"more than {MAX_REDIRECTS} redirects")

    async def _exchange(
        self, request: OutboundRequest, progress: _Progress, max_bytes: int, *, once: bool
    ) -> InboundResponse:
        pool = self._pools.get(once)
        if pool is None:
            raise RuntimeError("the transport is not open")
        url = _url(request.parsed_url)
        raw = await pool.handle_async_request(
            httpcore2.Request(
                method=request.method,
                url=httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                headers=_headers(request, url),
                content=request.body or b"",
                extensions={"trace": progress.trace},
            )
        )
        try:
            headers = _decoded(raw.headers)
            decoder = Decoder(headers.get("content-encoding", ""), max_bytes=max_bytes)
            body = bytearray()
            async with aclosing(raw.aiter_stream()) as stream:
                async for data in stream:
                    for piece in decoder.feed(data):
                        body += piece
                        # What inflates a lot must not keep the others, nor its own deadline, waiting.
                        await asyncio.sleep(0)
            decoder.end()
        finally:
            await raw.aclose()
        return InboundResponse(status=raw.status, headers=headers, body=bytes(body))


_DEFAULT_HEADERS = (("Accept-Encoding", "gzip, deflate"), ("User-Agent", "integration-service"))


def _headers(request: OutboundRequest, url: httpx2.URL) -> list[tuple[bytes, bytes]]:
    """The request's own, and what it does not bring of our defaults and of HTTP/1.1 (RFC 9112 §3.2, §6.2)."""
    given = {name.lower() for name, _ in request.headers}
    defaults = [(name, value) for name, value in _DEFAULT_HEADERS if name.lower() not in given]
    if given.isdisjoint(_FRAMING) and (request.body or request.method in _WITH_BODY):
        defaults.append(("Content-Length", str(len(request.body or b""))))
    encoded = [(name.encode("ascii"), value.encode("latin-1")) for name, value in (*request.headers, *defaults)]
    return encoded if "host" in given else [(b"Host", url.netloc), *encoded]


class _Progress:
    """Whether the request's first byte may have left: told by httpcore2's own trace, not guessed."""

    sending = False

    async def trace(self, event: str, info: dict[str, Any]) -> None:
        if event.endswith("send_request_headers.started"):
            self.sending = True


def _decoded(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """Names in lower case; values that came apart joined by commas (RFC 9110 §5.3)."""
    found: dict[str, list[str]] = {}
    for name, value in headers:
        found.setdefault(name.decode("ascii", "replace").lower(), []).append(_text(value))
    return {name: ", ".join(values) for name, values in found.items()}


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _redirected(request: OutboundRequest, location: str) -> OutboundRequest:
    """The request to where it is sent. Raises httpx2.InvalidURL, or IntegrationError EGRESS_DENIED."""
    # One parser for what is compared and what is dialled: where two read a URL apart, credentials leak.
    source = _url(request.parsed_url)
    target = _url(source.join(location))
    if target.scheme not in ("http", "https"):
        raise IntegrationError(ErrorCode.EGRESS_DENIED, "a redirect leads to something that is not HTTP")
    if _origin(target) == _origin(source):
        return replace(request, url=str(target))
    secret = request.secret_headers | _ALWAYS_SECRET
    kept = tuple((name, value) for name, value in request.headers if name.lower() not in secret)
    return replace(request, url=str(target), headers=kept)


def is_same_origin(url: str, other: str) -> bool:
    """Whether two URLs lead to one origin, as they are read when they are dialled; what is no URL leads nowhere."""
    try:
        return _origin(_url(url)) == _origin(_url(other))
    except httpx2.InvalidURL:
        return False


def _url(url: httpx2.URL | str) -> httpx2.URL:
    parsed = httpx2.URL(url)
    if parsed.scheme in _PORTS and not parsed.raw_host:
        raise httpx2.InvalidURL("no host")
    if parsed.port is not None and parsed.port > _LAST_PORT:
        raise httpx2.InvalidURL("no such port")
    return parsed


def _origin(url: httpx2.URL) -> tuple[str, bytes, int | None]:
    return url.scheme, url.raw_host.lower(), url.port or _PORTS.get(url.scheme)
