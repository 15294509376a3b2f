"""The circuit breaker, one per instance and host for all workers.

It opens when of at least 20 sends in 30 s half failed, by connection, timeout or 5xx. After 30 s exactly one call
probes: its success closes the breaker, its failure opens it again for twice as long, up to five minutes.

While nothing fails, nothing is written: each process counts its own sends. The first failure makes a row, which others
read with their instance; from then on they add what they have counted, at most once a second as long as it cannot
matter. A process that has sent nothing since the first failure is not counted.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

import httpx2

from integration_service.activities.outbound.messages import InboundResponse, OutboundRequest
from integration_service.activities.outbound.transport import SendFailed
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.wire import format_time
from integration_service.storage.upstream_health import WINDOW_S, BreakerRows, BreakerState

_FLUSH_EVERY_S = 1.0
_KEPT_TALLIES = 10_000
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class BreakerRule:
    """When a breaker opens, and for how long."""

    min_sends: int = 20
    open_for: timedelta = timedelta(seconds=30)
    longest: timedelta = timedelta(minutes=5)
    probe_margin: timedelta = timedelta(seconds=5)
    """How much longer than its own bound a probe is waited for, before another caller may probe."""


@dataclass(frozen=True)
class Admission:
    """That a call may send; handed back with what came of it. `probe_id` is set where it probes."""

    instance_id: str
    host: str
    probe_id: str | None = None


@dataclass(frozen=True)
class BreakerChange:
    """A breaker that opened or closed, with its evidence: `failures` of `sends` in 30 s. Told to one process only."""

    to: Literal["OPENED", "CLOSED"]
    host: str
    failures: int
    sends: int
    open_until: datetime | None


@dataclass
class _Tally:
    """What this process sent to one host for one instance and has not yet written, oldest second first."""

    seconds: deque[list[int]] = field(default_factory=deque)
    """Each one second, its sends and its failures."""
    hot_until: float = 0
    """Until when the row is known to hold failures."""
    written_at: float = 0
    known: tuple[int, int] = (0, 0)
    """Sends and failures in the row when it was last seen."""
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    def add(self, *, failed: bool) -> None:
        second = int(time.monotonic())
        if not self.seconds or self.seconds[-1][0] != second:
            self.seconds.append([second, 0, 0])
        self.seconds[-1][1] += 1
        self.seconds[-1][2] += failed
        self._forget(second)

    def see(self, state: BreakerState) -> None:
        self.known = state.sends, state.failures
        self.hot_until = time.monotonic() + WINDOW_S

    def due(self, min_sends: int) -> bool:
        """Whether what was counted should be written now."""
        now = time.monotonic()
        if any(failures for _, _, failures in self.seconds):
            return True
        if now >= self.hot_until or not self.seconds:
            return False
        sends = self.known[0] + sum(sends for _, sends, _ in self.seconds)
        decides = sends >= min_sends and self.known[1] * 2 >= sends
        return decides or now - self.written_at >= _FLUSH_EVERY_S

    def take(self) -> tuple[list[int], list[int], deque[list[int]]]:
        """Sends and failures by the second, this one first; what was taken comes back with `restore`."""
        second = int(time.monotonic())
        self._forget(second)
        sends, failures = [0] * WINDOW_S, [0] * WINDOW_S
        for at, sent, failed in self.seconds:
            sends[second - at] += sent
            failures[second - at] += failed
        taken, self.seconds = self.seconds, deque()
        return sends, failures, taken

    def restore(self, taken: deque[list[int]]) -> None:
        self.seconds = deque(sorted([*taken, *self.seconds]))

    def _forget(self, second: int) -> None:
        while self.seconds and self.seconds[0][0] <= second - WINDOW_S:
            self.seconds.popleft()


class Breakers:
    """Lets sends through, and hears what came of them. One for all calls of a process, for its counts are in it."""

    def __init__(self, rows: BreakerRows, *, rule: BreakerRule | None = None) -> None:
        self._rows = rows
        self._rule = rule or BreakerRule()
        self._tallies: dict[tuple[str, str], _Tally] = {}

    async def admit(self, instance_id: str, host: str, seen: BreakerState | None, *, within: timedelta) -> Admission:
        """Let a send through that will last `within` at most. `seen` is the breaker as it was read with the instance.

        No statement is sent unless a probe is due. Raises IntegrationError CIRCUIT_OPEN, with the evidence and a wait
        that differs from caller to caller, so that they do not come back together.
        """
        if seen is None:
            return Admission(instance_id, host)
        if seen.open_for is None:
            self._tally(instance_id, host).see(seen)
            return Admission(instance_id, host)
        if seen.open_for > timedelta(0):
            raise self._refused(seen, seen.open_for)
        probe_id, is_open = await self._rows.claim(instance_id, host, within=within + self._rule.probe_margin)
        if probe_id is None and is_open:
            raise self._refused(seen, timedelta(0))
        return Admission(instance_id, host, probe_id)

    async def note(self, admission: Admission, *, failed: bool | None) -> BreakerChange | None:
        """Hear what came of a send that was let through; None says nothing of the upstream, and gives a probe back.

        The change that this send brought about, where it did. Never raises: a database that is down forgets breakers.
        """
        try:
            if admission.probe_id is not None:
                return await self._probed(admission, admission.probe_id, failed)
            return await self._counted(admission, failed) if failed is not None else None
        except IntegrationError:
            return None

    async def _probed(self, admission: Admission, probe_id: str, failed: bool | None) -> BreakerChange | None:
        at = (admission.instance_id, admission.host)
        if failed is None:
            await self._rows.release(*at, probe_id)
            return None
        if failed:
            state = await self._rows.reopen(*at, probe_id, longest=self._rule.longest)
        else:
            state = await self._rows.close(*at, probe_id)
            self._tallies.pop(at, None)
        return _change(state, "OPENED" if failed else "CLOSED") if state else None

    async def _counted(self, admission: Admission, failed: bool) -> BreakerChange | None:
        tally = self._tally(admission.instance_id, admission.host)
        tally.add(failed=failed)
        if not tally.due(self._rule.min_sends):
            return None
        async with tally.turn:
            # Whoever had the turn before may have written this one's count too.
            if not tally.due(self._rule.min_sends):
                return None
            sends, failures, taken = tally.take()
            try:
                state = await self._rows.note(
                    admission.instance_id,
                    admission.host,
                    sends=sends,
                    failures=failures,
                    min_sends=self._rule.min_sends,
                    open_for=self._rule.open_for,
                )
            except BaseException:
                tally.restore(taken)
                raise
            tally.written_at = time.monotonic()
        if state is None:
            return None
        tally.see(state)
        return _change(state, "OPENED") if state.open_until is not None else None

    def _tally(self, instance_id: str, host: str) -> _Tally:
        if len(self._tallies) >= _KEPT_TALLIES:
            oldest = int(time.monotonic()) - WINDOW_S
            kept = {at: tally for at, tally in self._tallies.items() if tally.seconds and tally.seconds[-1][0] > oldest}
            self._tallies = kept if len(kept) < _KEPT_TALLIES else {}
        return self._tallies.setdefault((instance_id, host), _Tally())

    def _refused(self, seen: BreakerState, left: timedelta) -> IntegrationError:
        spread = max(left / 5, timedelta(seconds=1))
        return IntegrationError(
            ErrorCode.CIRCUIT_OPEN,
            f"the upstream is not called for now: {seen.failures} of {seen.sends} sends failed",
            details={
                "host": seen.host,
                "failures": seen.failures,
                "sends": seen.sends,
                "openUntil": format_time(seen.open_until) if seen.open_until else None,
            },
            retry_after=left + random.random() * spread,  # noqa: S311 - no secret
        )


def host_of(request: OutboundRequest) -> str:
    """The host and port that a breaker stands for, lower case. Raises IntegrationError VALIDATION_ERROR."""
    try:
        parsed = request.parsed_url
    except httpx2.InvalidURL:
        raise IntegrationError(ErrorCode.VALIDATION_ERROR, "no URL that can be called", path="baseUrl") from None
    return f"{parsed.raw_host.decode().lower()}:{parsed.port or _PORTS.get(parsed.scheme, 0)}"


def has_failed(outcome: InboundResponse | SendFailed) -> bool | None:
    """Whether a send failed as a breaker counts it: by connection, timeout or 5xx. None where it tells nothing."""
    if isinstance(outcome, InboundResponse):
        return outcome.status >= 500
    if outcome.code in (ErrorCode.TIMEOUT, ErrorCode.CONNECTION_ERROR):
        return True
    return False if outcome.maybe_sent else None


def _change(state: BreakerState, to: Literal["OPENED", "CLOSED"]) -> BreakerChange:
    return BreakerChange(to, state.host, state.failures, state.sends, state.open_until)
