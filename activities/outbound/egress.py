"""Where outbound connections may go: resolve, check every address, dial the address that was checked.

The ranges are written out. `ipaddress.is_global` is not used: it passes cloud metadata addresses, NAT64 and 6to4.
Sources: IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890 and its updates).
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpcore2
from httpcore2 import AnyIOBackend

from integration_service.contracts.errors import ErrorCode, IntegrationError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_DENIED: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; Alibaba's metadata service
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's platform address
        "169.254.0.0/16",  # link-local; most clouds' metadata service
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/96",  # unspecified, loopback, IPv4-compatible
        "::ffff:0:0:0/96",  # IPv4-translated
        "64:ff9b::/96",  # NAT64
        "64:ff9b:1::/48",
        "100::/64",
        "100:0:0:1::/64",  # dummy prefix
        "2001::/23",  # Teredo and other protocol assignments
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "3fff::/20",
        "5f00::/16",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    )
)


Lookup = Callable[[str, int], Sequence[tuple[Any, ...]]]
"""A blocking look-up of a host and port, with the answer of `socket.getaddrinfo`."""

_DIAL_S = 10.0
"""For one address: a host with a dead one among its addresses is reached by the next."""
# Threads of our own: a name server that does not answer holds one for half a minute, and the event loop's default
# ones are few and everyone's.
_LOOKUPS = 64


def look_up(host: str, port: int) -> Sequence[tuple[Any, ...]]:
    """The system's own look-up."""
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


class EgressPolicy:
    """Tells allowed addresses from denied ones. `allow` lists CIDR ranges that are reachable all the same."""

    def __init__(self, allow: Iterable[str] = (), *, lookup: Lookup = look_up) -> None:
        """Raises IntegrationError VALIDATION_ERROR for something that is no CIDR range."""
        try:
            self._allowed = tuple(ipaddress.ip_network(text) for text in allow)
        except ValueError as error:
            raise IntegrationError(ErrorCode.VALIDATION_ERROR, str(error), path="INTEGRATIONS_EGRESS_ALLOW") from None
        self._lookup = lookup
        self._threads = ThreadPoolExecutor(_LOOKUPS, thread_name_prefix="lookup")

    def allows(self, address: Address) -> bool:
        """Whether a connection to that address may be made."""
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if any(address in network for network in self._allowed if network.version == address.version):
            return True
        return not any(address in network for network in _DENIED if network.version == address.version)

    async def resolve(self, host: str, port: int) -> list[str]:
        """The addresses of a host, all of them allowed.

        One denied address denies the host: a name that answers with both is after something. Raises
        IntegrationError EGRESS_DENIED, or httpcore2.ConnectError when the name does not resolve.
        """
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._threads, self._lookup, host, port)
        except (OSError, UnicodeError):
            raise httpcore2.ConnectError("the host name does not resolve") from None
        addresses = list(dict.fromkeys(str(info[4][0]) for info in found))
        for text in addresses:
            if not self.allows(ipaddress.ip_address(text.split("%")[0])):
                raise IntegrationError(
                    ErrorCode.EGRESS_DENIED,
                    "the upstream's host is in a range that this service does not call "
                    "(INTEGRATIONS_EGRESS_ALLOW lists exceptions)",
                )
        return addresses


class EgressBackend(httpcore2.AsyncNetworkBackend):
    """httpcore2's way to the network, with the policy in it: it dials checked addresses, never names."""

    def __init__(self, policy: EgressPolicy) -> None:
        self._policy = policy
        self._network = AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the interface's own parameter
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        each = _DIAL_S if timeout is None else min(timeout, _DIAL_S)
        last: Exception = httpcore2.ConnectError("the host name has no address")
        for address in await self._policy.resolve(host, port):
            try:
                # TLS still checks the host's name: httpcore2 passes it apart from what was dialled.
                return await self._network.connect_tcp(
                    address, port, timeout=each, local_address=local_address, socket_options=socket_options
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                last = error
        raise last

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - the interface's own parameter
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        raise IntegrationError(ErrorCode.EGRESS_DENIED, "unix sockets are not called")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
