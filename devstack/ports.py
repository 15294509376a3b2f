"""Ports of the stack: those asked for must be free, the others are chosen once and kept over restarts."""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Mapping
from contextlib import ExitStack

from integration_service.contracts.errors import ErrorCode, IntegrationError

HOST = "127.0.0.1"
# Below the ports that systems hand out to outgoing connections (32768 on Linux, 49152 on macOS): one of those
# could sit on a child's port while the child restarts.
_CHOICE = range(10240, 32768)
_TRIES = 200


def claim_ports(asked: Mapping[str, int]) -> dict[str, int]:
    """A port for every option: the asked one, or for 0 a free one.

    Raises UNAVAILABLE naming port and option when one is taken, VALIDATION_ERROR when it is no port.
    """
    ports: dict[str, int] = {}
    with ExitStack() as held:  # all held until all are chosen: no port comes out twice
        for option, port in sorted(asked.items(), key=lambda item: item[1] == 0):
            if not 0 <= port <= 65535:
                raise IntegrationError(ErrorCode.VALIDATION_ERROR, f"{port} is not a port", path=option)
            ports[option] = _claim(held, option, port) if port else _choose(held, option)
    return ports


def _claim(held: ExitStack, option: str, port: int) -> int:
    listener = held.enter_context(socket.socket())
    # As the servers themselves do: connections of an earlier run in TIME_WAIT do not make a port taken.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(1)
    except OSError as error:
        why = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror}"
        raise IntegrationError(ErrorCode.UNAVAILABLE, f"port {port} {why} ({option})") from None
    return port


def _choose(held: ExitStack, option: str) -> int:
    for _ in range(_TRIES):
        try:
            return _claim(held, option, random.choice(_CHOICE))  # noqa: S311 - not a secret
        except IntegrationError:
            continue
    raise IntegrationError(ErrorCode.UNAVAILABLE, f"no free port found ({option})")
