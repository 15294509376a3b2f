"""uvicorn's HTTP protocol with bounds for slow clients: by itself it waits for ever for a request to come to its end.

h11 and no other parser: it takes no head of a request over 64 KiB.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


class PatientProtocol(H11Protocol):
    """One connection. What takes too long to send its request is closed; an answer may take any time."""

    head_within = timedelta(seconds=10)
    """From the connection, or the answer before, to the end of the headers."""
    body_within = timedelta(seconds=60)
    """From there to the end of the body."""
    most = 500
    """Connections of a process. Above that the one goes that has waited longest without a whole request."""

    _awaited: tuple[object, bool] | None = None
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()
        if len(self.connections) > self.most:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Measure what is awaited now, from when it began: single bytes win no time."""
        begun = self.cycle is not None and not self.cycle.response_complete
        awaited = (self.cycle, begun) if not begun or self.cycle.more_body else None
        if awaited == self._awaited or self.transport.is_closing():
            return
        self._stop()
        if awaited is not None:
            within = self.body_within if begun else self.head_within
            self._awaited, self._timer = awaited, self.loop.call_later(within.total_seconds(), self._give_up)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._awaited = self._timer = None

    def _give_up(self) -> None:
        # Not `close`: what the client does not read would keep the connection.
        self.transport.abort()

    def _make_room(self) -> None:
        waiting = [one for one in self.connections if isinstance(one, PatientProtocol) and one._timer is not None]
        if waiting:
            min(waiting, key=lambda one: one._timer.when() if one._timer else 0.0)._give_up()


SERVING: Mapping[str, Any] = {
    "http": PatientProtocol,
    "ws": "none",
    "loop": "asyncio",
    "log_config": None,
    # A callback's query string holds a code and a state.
    "access_log": False,
    "server_header": False,
}
"""How every process of ours serves HTTP: arguments of `uvicorn.Config`."""
