"""Ports: asked ones must be free, chosen ones are free and different."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.devstack.ports import HOST, claim_ports


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server((HOST, 0)) as listener:
        yield listener.getsockname()[1]


def test_zero_chooses_different_free_ports() -> None:
    ports = claim_ports({f"--{n}": 0 for n in range(20)})
    assert len(set(ports.values())) == 20
    for port in ports.values():
        socket.create_server((HOST, port)).close()


def test_an_asked_port_is_kept() -> None:
    asked = claim_ports({"--ui-port": 0})["--ui-port"]
    assert claim_ports({"--ui-port": asked}) == {"--ui-port": asked}


def test_a_taken_port_names_port_and_option(taken: int) -> None:
    with pytest.raises(IntegrationError) as caught:
        claim_ports({"--ui-port": 0, "--temporal-port": taken})
    assert caught.value.code == ErrorCode.UNAVAILABLE
    assert caught.value.message == f"port {taken} is taken (--temporal-port)"
    assert str(caught.value).count("--temporal-port") == 1


def test_two_options_cannot_share_a_port() -> None:
    port = claim_ports({"--ui-port": 0})["--ui-port"]
    with pytest.raises(IntegrationError, match=rf"port {port} is taken \(--ui-port\)"):
        claim_ports({"--temporal-port": port, "--ui-port": port})


@pytest.mark.parametrize("port", [-1, 65536])
def test_what_is_no_port_is_bad_input(port: int) -> None:
    with pytest.raises(IntegrationError) as caught:
        claim_ports({"--ui-port": port})
    assert caught.value.code == ErrorCode.VALIDATION_ERROR
    assert caught.value.path == "--ui-port"
