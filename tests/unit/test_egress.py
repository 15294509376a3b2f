"""Where outbound connections may go."""

from __future__ import annotations

import ipaddress

import httpcore2
import pytest

from integration_service.activities.outbound.egress import EgressBackend, EgressPolicy
from integration_service.contracts.errors import ErrorCode, IntegrationError

DENIED = """
0.0.0.0 0.1.2.3 127.0.0.1 127.0.0.2 127.255.255.255 10.0.0.0 10.255.255.255 172.16.0.1 172.31.255.255
192.168.0.1 192.168.255.255 169.254.169.254 169.254.0.1 169.254.170.2 100.100.100.200 192.0.0.192
168.63.129.16 100.64.0.0 100.127.255.255 192.0.0.1 192.0.2.1 198.51.100.7 203.0.113.9 198.18.0.1
198.19.255.255 192.88.99.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255 :: ::1 ::127.0.0.1 ::10.0.0.1
::ffff:127.0.0.1 ::ffff:10.1.2.3 ::ffff:169.254.169.254 ::ffff:0.0.0.0 ::ffff:0:127.0.0.1 64:ff9b::7f00:1
64:ff9b::a9fe:a9fe 64:ff9b:1::1 2002:7f00:1:: 2002:a9fe:a9fe::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001::1
2001:10::1 2001:db8::1 fe80::1 fe80::1%1 febf::1 fec0::1 fc00::1 fd00::1 fd00:ec2::254 fdff:ffff::1 ff02::1
ff0e::1 100::1 3fff::1 5f00::1
"""

PUBLIC = """
1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.1 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.1 169.253.255.255
169.255.0.0 172.15.255.255 172.32.0.0 192.0.1.1 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0
223.255.255.255 ::ffff:8.8.8.8 2606:4700:4700::1111 2001:4860:4860::8888 2a00:1450::1 2003::1
"""

CLOSED = EgressPolicy()


@pytest.mark.parametrize("address", DENIED.split())
async def test_an_address_that_is_not_public_is_denied(address: str) -> None:
    assert not CLOSED.allows(ipaddress.ip_address(address.split("%")[0]))
    with pytest.raises(IntegrationError) as refused:
        await CLOSED.resolve(address, 80)
    assert refused.value.code == ErrorCode.EGRESS_DENIED
    assert address not in str(refused.value)


@pytest.mark.parametrize("address", PUBLIC.split())
async def test_a_public_address_is_allowed(address: str) -> None:
    assert CLOSED.allows(ipaddress.ip_address(address))
    assert await CLOSED.resolve(address, 443) == [address]


SPELLINGS = ["2130706433", "0x7f000001", "0177.0.0.1", "0x7f.0.0.1", "127.1", "127.0.1", "017700000001", "0"]
SPELLINGS += ["localhost", "LOCALHOST", "localhost.", "①②⑦.0.0.1", "127。0。0。1"]


@pytest.mark.parametrize("host", SPELLINGS)
async def test_no_spelling_of_loopback_gets_through(host: str) -> None:
    with pytest.raises((IntegrationError, httpcore2.ConnectError)) as refused:
        await CLOSED.resolve(host, 80)
    if isinstance(refused.value, IntegrationError):
        assert refused.value.code == ErrorCode.EGRESS_DENIED


@pytest.mark.parametrize("host", ["127.1", "2130706433", "localhost"])
async def test_such_a_spelling_would_reach_loopback_were_it_allowed(host: str) -> None:
    assert "127.0.0.1" in await EgressPolicy(["127.0.0.0/8", "::1/128"]).resolve(host, 80)


def allows(allow: list[str], address: str) -> bool:
    return EgressPolicy(allow).allows(ipaddress.ip_address(address))


def test_an_exception_opens_its_own_range_only() -> None:
    assert allows(["10.1.0.0/16"], "10.1.2.3")
    assert allows(["10.1.0.0/16"], "::ffff:10.1.2.3")
    assert not allows(["10.1.0.0/16"], "10.2.0.1")
    assert not allows(["127.0.0.0/8"], "::1")
    assert not allows(["127.0.0.0/8"], "169.254.169.254")
    assert not allows(["127.0.0.0/8"], "64:ff9b::7f00:1")
    assert not allows(["127.0.0.0/8"], "2002:7f00:1::")
    assert allows(["fd00::/8"], "fd00::1")
    assert not allows(["fd00::/8"], "fc00::1")
    assert allows(["127.0.0.1"], "127.0.0.1")
    assert not allows(["127.0.0.1"], "127.0.0.2")


@pytest.mark.parametrize("text", ["10.0.0.0/33", "10.0.0.1/8", "localhost", "", "10.0.0.0/8 x", "::1/129"])
def test_what_is_no_range_is_refused_at_its_variable(text: str) -> None:
    with pytest.raises(IntegrationError) as refused:
        EgressPolicy([text])
    assert (refused.value.code, refused.value.path) == (ErrorCode.VALIDATION_ERROR, "INTEGRATIONS_EGRESS_ALLOW")


@pytest.mark.parametrize("host", ["nothing.invalid", "a" * 64 + ".test", "..", "a..b", "x" * 300])
async def test_a_host_that_resolves_to_nothing_is_no_connection(host: str) -> None:
    with pytest.raises(httpcore2.ConnectError) as refused:
        await CLOSED.resolve(host, 80)
    assert host not in str(refused.value)


async def test_the_backend_dials_no_denied_address() -> None:
    backend = EgressBackend(CLOSED)
    for host in ("127.0.0.1", "localhost"):
        with pytest.raises(IntegrationError) as refused:
            await backend.connect_tcp(host, 9, timeout=1)
        assert refused.value.code == ErrorCode.EGRESS_DENIED


async def test_unix_sockets_are_not_called() -> None:
    with pytest.raises(IntegrationError) as refused:
        await EgressBackend(EgressPolicy(["0.0.0.0/0"])).connect_unix_socket("/var/run/docker.sock")
    assert refused.value.code == ErrorCode.EGRESS_DENIED
