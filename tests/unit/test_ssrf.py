"""Targets that a hostile definition, config or upstream may name: none of them is dialled.

What counts is not what the sender says: listeners on every address of this machine count connections, and the
interpreter's own audit events count each address that a socket is asked to connect to.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from starlette.responses import Response

from integration_service.activities.oauth.provider import Providers, Registration
from integration_service.activities.oauth.token_request import ClientCredentialsGrant
from integration_service.activities.outbound.egress import EgressPolicy
from integration_service.activities.outbound.messages import OutboundRequest
from integration_service.activities.outbound.transport import SendFailed, Transport, _redirected
from integration_service.contracts.definitions import OAuth2Config
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.oauth import OAuthClientRecord
from integration_service.contracts.wire import parse
from tests.upstream import Upstream, json_answer

PATIENCE = timedelta(seconds=5)
PLANTED = "planted-key-77"

# ruff: noqa: RUF001, SIM905 - letters and digits that only look like ASCII are the point
LITERALS = """
127.0.0.1 127.0.0.2 127.255.255.254 2130706433 017700000001 0x7f000001 0x7f.1 0x7f.0.0.1 0177.0.0.1 0177.0.0.01 127.1
127.0.1 0 0.0.0.0 0x0 127.0.0.1. localhost LOCALHOST localhost. a.localhost localhost.localdomain ip6-localhost
10.0.0.1 172.16.0.1 192.168.0.1 0xa000001 167772161 100.64.0.1 198.18.0.1 192.0.2.1 224.0.0.1 255.255.255.255 240.0.0.1
169.254.169.254 2852039166 0xa9fea9fe 0251.0376.0251.0376 169.254.170.2 169.254.42.42
100.100.100.200 168.63.129.16 192.0.0.192 metadata.google.internal
[::1] [::] [0:0:0:0:0:0:0:1] [::ffff:127.0.0.1] [::ffff:7f00:1] [::127.0.0.1] [::ffff:0:127.0.0.1]
[::ffff:169.254.169.254] [64:ff9b::127.0.0.1] [64:ff9b::a9fe:a9fe] [64:ff9b:1::7f00:1]
[2002:7f00:1::] [2002:a9fe:a9fe::1]
[2001:0:4136:e378:8000:63bf:80ff:fffe] [fe80::1] [fe80::1%25lo] [fe80::1%lo] [fd00:ec2::254] [fd20:ce::254] [fc00::1]
[ff02::1] [fec0::1]
１２７.0.0.1 １２７。０。０。１ 127。0。0。1 ①②⑦.0.0.1 ⓛocalhost ｌｏｃａｌｈｏｓｔ
good.example@127.0.0.1 good.example:80@127.0.0.1
127.0.0.1#@good.example 127.0.0.1?@good.example 127.0.0.1\\@good.example
""".split()

NO_HTTP = ["file:///etc/passwd", "gopher://127.0.0.1:{port}/_x", "ftp://127.0.0.1:{port}/", "dict://127.0.0.1:{port}/"]
NO_HTTP += ["//127.0.0.1:{port}/", "unix:///var/run/docker.sock", "http:127.0.0.1", "javascript:alert(1)", "data:,x"]


@dataclass
class Watch:
    """Connections that arrived, and addresses that were dialled."""

    port: int = 0
    arrived: int = 0
    dialled: list[str] = field(default_factory=list)


_watching: list[Watch] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("socket.connect", "socket.sendto") and _watching:
        _, address = arguments
        _watching[-1].dialled.append(str(address[0]) if isinstance(address, tuple) else str(address))


sys.addaudithook(_audit)


@contextmanager
def audited(watch: Watch) -> Iterator[None]:
    _watching.append(watch)
    try:
        yield
    finally:
        _watching.remove(watch)


@pytest.fixture
async def watch() -> AsyncIterator[Watch]:
    """A listener on all addresses that this machine has, of both families."""
    watch = Watch()

    async def count(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        watch.arrived += 1
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(count, "0.0.0.0", 0) as four:
        watch.port = four.sockets[0].getsockname()[1]
        six = socket.socket(socket.AF_INET6)
        six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            six.bind(("::", watch.port))
        except OSError:  # a machine without IPv6
            six.close()
            yield watch
            return
        async with await asyncio.start_server(count, sock=six):
            yield watch


@asynccontextmanager
async def opened(policy: EgressPolicy) -> AsyncIterator[Transport]:
    transport = Transport(policy)
    await transport.open()
    try:
        yield transport
    finally:
        await transport.close()


async def refused(transport: Transport, url: str, **more: Any) -> SendFailed:
    request = OutboundRequest(method="GET", url=url, **more)
    with pytest.raises(SendFailed) as error:
        await transport.send(request, within=PATIENCE)
    assert PLANTED not in f"{error.value} {error.value.details}"
    return error.value


async def test_the_listener_counts(watch: Watch) -> None:
    async with opened(EgressPolicy(["127.0.0.0/8"])) as transport:
        with audited(watch):
            await transport.send(OutboundRequest(method="GET", url=f"http://127.0.0.9:{watch.port}/"), within=PATIENCE)
    assert (watch.arrived, watch.dialled) == (1, ["127.0.0.9"])


@pytest.mark.parametrize("host", LITERALS)
async def test_no_spelling_of_a_denied_address_is_dialled(watch: Watch, host: str) -> None:
    async with opened(EgressPolicy()) as transport:
        with audited(watch):
            error = await refused(transport, f"http://{host}:{watch.port}/?key={PLANTED}")
    assert error.code in (ErrorCode.EGRESS_DENIED, ErrorCode.CONNECTION_ERROR, ErrorCode.VALIDATION_ERROR)
    if host.replace(".", "").isdecimal() and host.isascii() and host[0] != "0" and host[-1] != ".":
        assert error.code == ErrorCode.EGRESS_DENIED
    assert not error.maybe_sent
    assert (watch.arrived, watch.dialled) == (0, [])


@pytest.mark.parametrize("url", NO_HTTP)
async def test_what_is_not_http_is_not_called(watch: Watch, url: str) -> None:
    async with opened(EgressPolicy(["127.0.0.0/8"])) as transport:
        with audited(watch):
            error = await refused(transport, url.format(port=watch.port))
    assert error.code == ErrorCode.VALIDATION_ERROR
    assert (watch.arrived, watch.dialled) == (0, [])


def answers(*addresses: str) -> list[tuple[Any, ...]]:
    """As `socket.getaddrinfo` gives them."""
    return [
        (socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0))
        for address in addresses
    ]


async def test_a_name_that_answers_otherwise_the_second_time_is_asked_once_for_each_connection(watch: Watch) -> None:
    """The address that was checked is the one that is dialled, so there is no second time."""
    asked: list[str] = []

    def rebinding(host: str, _: int) -> list[tuple[Any, ...]]:
        asked.append(host)
        return answers("127.0.0.1" if len(asked) % 2 else "127.0.0.66")

    async with opened(EgressPolicy(["127.0.0.1/32"], lookup=rebinding)) as transport:
        with audited(watch):
            for turn in range(4):
                request = OutboundRequest(method="GET", url=f"http://rebind.example:{watch.port}/{turn}")
                if turn % 2:
                    assert (await refused(transport, request.url)).code == ErrorCode.EGRESS_DENIED
                else:
                    assert (await transport.send(request, within=PATIENCE)).status == 200
    assert watch.dialled == ["127.0.0.1"] * 2
    assert len(asked) == 4


@pytest.mark.parametrize(
    "found",
    [("127.0.0.1", "10.0.0.1"), ("10.0.0.1", "127.0.0.1"), ("127.0.0.1", "::1"), ("127.0.0.1", "::ffff:10.0.0.1")],
)
async def test_one_denied_address_denies_the_name(watch: Watch, found: tuple[str, ...]) -> None:
    async with opened(EgressPolicy(["127.0.0.1/32"], lookup=lambda *_: answers(*found))) as transport:
        with audited(watch):
            assert (await refused(transport, f"http://both.example:{watch.port}/")).code == ErrorCode.EGRESS_DENIED
    assert (watch.arrived, watch.dialled) == (0, [])


async def test_a_name_whose_first_address_is_dead_is_reached_by_the_next(watch: Watch) -> None:
    """Nothing listens on ::1 at that port when the listener has IPv4 only."""
    with socket.create_server(("127.0.0.1", 0)) as only:
        port = only.getsockname()[1]
        policy = EgressPolicy(["127.0.0.0/8"], lookup=lambda *_: answers("127.0.0.77", "127.0.0.1"))
        async with opened(policy) as transport:
            with audited(watch), pytest.raises(SendFailed) as error:
                await transport.send(
                    OutboundRequest(method="GET", url=f"http://two.example:{port}/"), within=timedelta(milliseconds=300)
                )
    assert error.value.code == ErrorCode.TIMEOUT
    assert watch.dialled == ["127.0.0.77", "127.0.0.1"]


REDIRECTS = ["http://127.0.0.2:{port}/", "//127.0.0.2:{port}/", "http://2130706434:{port}/", "http://[::1]:{port}/"]
REDIRECTS += ["http://[::ffff:127.0.0.2]:{port}/", "http://u:p@127.0.0.2:{port}/", "http://169.254.169.254/latest"]
REDIRECTS += ["file:///etc/passwd", "gopher://127.0.0.2:{port}/_", "https://127.0.0.2:{port}/"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_leads_to_no_denied_address(upstream: Upstream, watch: Watch, status: int) -> None:
    codes = []
    async with opened(EgressPolicy(["127.0.0.1/32"])) as transport:
        for location in REDIRECTS:
            headers = {"location": location.format(port=watch.port)}
            upstream.answers = [Response(status_code=status, headers=headers), Response(status_code=404)]
            with audited(watch):
                codes.append((await refused(transport, f"{upstream.url}/start")).code)
    assert set(codes) == {ErrorCode.EGRESS_DENIED}
    assert watch.arrived == 0
    assert set(watch.dialled) == {"127.0.0.1"}


async def test_what_a_browser_reads_as_another_host_stays_where_it_was(upstream: Upstream, watch: Watch) -> None:
    location = f"\\\\127.0.0.2:{watch.port}/"
    upstream.answers = [Response(status_code=302, headers={"location": location}), Response(status_code=404)]
    async with opened(EgressPolicy(["127.0.0.1/32"])) as transport:
        answer = await transport.send(OutboundRequest(method="GET", url=upstream.url), within=PATIENCE)
    assert (answer.status, watch.arrived, len(upstream.seen)) == (404, 0, 2)


async def test_the_last_of_a_chain_is_checked_like_the_first(upstream: Upstream, watch: Watch) -> None:
    hop = Response(status_code=302, headers={"location": "/again"})
    inside = Response(status_code=302, headers={"location": f"http://127.0.0.2:{watch.port}/"})
    upstream.answers = [hop, hop, hop, hop, inside]
    async with opened(EgressPolicy(["127.0.0.1/32"])) as transport:
        assert (await refused(transport, upstream.url)).code == ErrorCode.EGRESS_DENIED
    assert (watch.arrived, len(upstream.seen)) == (0, 5)


HEADERS = (("X-Api-Key", PLANTED), ("Authorization", PLANTED), ("Cookie", PLANTED), ("Proxy-Authorization", PLANTED))


@pytest.mark.parametrize(
    "location",
    ["http://127.0.0.1:{other}/", "//127.0.0.1:{other}/", "http://localhost:{port}/", "http://127.1:{port}/"],
)
async def test_no_credential_goes_to_another_host_or_port(upstream: Upstream, location: str) -> None:
    async with Upstream(answers=[json_answer({})]) as other, opened(EgressPolicy(["127.0.0.0/8", "::1"])) as transport:
        ports = {"port": upstream.url.rpartition(":")[2], "other": other.url.rpartition(":")[2]}
        target = location.format(**ports)
        upstream.answers = [Response(status_code=307, headers={"location": target}), json_answer({})]
        # The last three are secret whoever put them there.
        request = OutboundRequest(
            method="GET", url=upstream.url, headers=HEADERS, secret_headers=frozenset({"x-api-key"})
        )
        await transport.send(request, within=PATIENCE)
        last = (other.seen or upstream.seen)[-1]
        assert len(other.seen) + len(upstream.seen) == 2
        assert PLANTED not in str(last.headers)
        assert "referer" not in last.headers


async def test_no_credential_follows_from_https_to_http() -> None:
    request = OutboundRequest(
        method="GET", url="https://h.example/", headers=HEADERS, secret_headers=frozenset({"x-api-key"})
    )
    assert _redirected(request, "http://h.example/").headers == ()
    assert _redirected(request, "https://h.example:443/x").headers == HEADERS
    assert _redirected(request, "https://H.EXAMPLE/x").headers == HEADERS


async def test_the_environment_names_no_proxy_and_no_password(
    upstream: Upstream, watch: Watch, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login someone password {PLANTED}\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{watch.port}")
    async with opened(EgressPolicy(["127.0.0.0/8"])) as transport:
        assert (await transport.send(OutboundRequest(method="GET", url=upstream.url), within=PATIENCE)).status == 200
    assert watch.arrived == 0
    assert "authorization" not in upstream.seen[0].headers


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "169.254.169.254", "[::ffff:7f00:1]"])
async def test_a_token_url_goes_through_the_same_policy(watch: Watch, host: str) -> None:
    urls = {"authorizationUrl": "https://idp.example/a", "tokenUrl": f"http://{host}:{watch.port}/token"}
    config = parse(OAuth2Config, urls)
    registration = Registration(config, {}, OAuthClientRecord(client_id="app", client_secret=PLANTED))
    async with opened(EgressPolicy()) as transport:
        providers = Providers(transport=transport, clients=None, definitions=None)  # type: ignore[arg-type]
        with audited(watch), pytest.raises(IntegrationError) as error:
            await providers.tokens(registration, ClientCredentialsGrant())
    assert error.value.code == ErrorCode.EGRESS_DENIED
    assert (watch.arrived, watch.dialled) == (0, [])
