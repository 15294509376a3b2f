"""One fetch for all who ask the same at once, over all workers.

In a process the callers of a key join one flight: its leader looks into the store, and on a miss claims the key and
fetches; the others wait for what it brings. Between processes the claim in the store decides who fetches, and only the
leaders look again whether the answer has come. Nobody waits here for longer than `_PATIENCE`, nor do more than
`max_waiting` callers: the others go back to their caller, which comes again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, Literal, TypeVar

from integration_service.contracts.calls import MAX_RESULT_BYTES, MethodResult
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.storage.cache import CachedResponses, Claim
from integration_service.storage.cache_key import CacheKey

Mode = Literal["use", "bypass", "refresh"]
Fetch = Callable[[], Awaitable[MethodResult]]
Done = TypeVar("Done")

_PATIENCE = timedelta(seconds=1)
_FIRST_POLL_S, _LAST_POLL_S = 0.02, 0.2
_FIRST_RETURN, _LAST_RETURN = timedelta(milliseconds=500), timedelta(seconds=5)
_UNKEPT = timedelta(seconds=10)
"""How long nobody waits for anybody after an answer that could not be kept."""
_STORED = ("data", "statusCode", "definition", "definitionVersion", "nextPage")


@dataclass(frozen=True)
class _Answer:
    """A result that others may have too; `asked` is the moment of its request, by this process's clock."""

    result: MethodResult
    asked: float

    def served(self, *, began: float, ttl: timedelta) -> MethodResult | None:
        """The result as a caller who did not fetch gets it, or None when it is too old by now."""
        now = time.monotonic()
        age = timedelta(seconds=max(now - self.asked, 0))
        if age >= ttl:
            return None
        return self.result.model_copy(
            update={
                "cached": True,
                "cache_age_ms": round(age / timedelta(milliseconds=1)),
                "attempts": 0,
                "duration_ms": round((now - began) * 1000),
            }
        )


class _NoAnswer(Enum):
    TRY_AGAIN = "the leader failed, or gave up"
    FETCH_YOURSELF = "what is fetched cannot be kept"


@dataclass(frozen=True)
class _Flight:
    """What the callers of one key in this process wait for together."""

    began: float = field(default_factory=time.monotonic)
    outcome: asyncio.Future[_Answer | _NoAnswer] = field(default_factory=lambda: asyncio.Future())


class ResponseCache:
    """The cache as the pipeline sees it. One for all calls of a process, for the flights are in it."""

    def __init__(self, responses: CachedResponses, *, max_waiting: int, patience: timedelta = _PATIENCE) -> None:
        self._responses = responses
        self._patience = patience
        self._max_waiting = max_waiting
        self._waiting = 0
        self._flights: dict[tuple[bytes, bool], _Flight] = {}

    async def through(
        self, key: CacheKey, *, mode: Mode, ttl: timedelta, claim_for: timedelta, fetch: Fetch
    ) -> MethodResult:
        """The cached result of a key, or what `fetch` gives, which is then kept for `ttl` from before its request.

        `claim_for` is how long others may be held back by a fetch whose worker has died: more than a fetch can last.
        A result that was not fetched for this caller is `cached`, with its age, and `attempts` is 0. `refresh` shares
        the fetch that is under way, or fetches. Results with `errors`, with a `resultRef`, or too large are not kept.

        Raises what `fetch` raises, to its own caller alone; IntegrationError UNAVAILABLE with `retry_after` when
        another has not finished fetching within a second.
        """
        if mode == "bypass":
            return await fetch()
        caller = _Caller(key, anew=mode == "refresh", ttl=ttl, claim_for=claim_for, fetch=fetch)
        while True:
            flight = self._flights.get(caller.flight)
            if flight is None:
                result = await self._lead(caller)
                if result is not None:
                    return result
                continue
            outcome = await self._follow(flight, caller)
            if outcome is _NoAnswer.FETCH_YOURSELF:
                return await fetch()
            if isinstance(outcome, _Answer):
                served = outcome.served(began=caller.began, ttl=ttl)
                if served is not None:
                    return served

    async def at_hand(self, key: CacheKey, *, ttl: timedelta) -> MethodResult | None:
        """The cached result of a key, where there is one now: nothing is fetched, and nobody waited for.

        Raises IntegrationError UNAVAILABLE.
        """
        began = time.monotonic()
        cached = (await self._responses.look(key, ttl=ttl)).cached
        if cached is None:
            return None
        answer = _Answer(_decoded(cached.body), began - cached.age.total_seconds())
        return answer.served(began=began, ttl=ttl)

    async def _lead(self, caller: _Caller) -> MethodResult | None:
        """The leader's own result; None when the cached one ran out in this moment."""
        flight = self._flights[caller.flight] = _Flight()
        outcome: _Answer | _NoAnswer = _NoAnswer.TRY_AGAIN
        try:
            found = await self._find_or_claim(caller)
            if isinstance(found, _Answer):
                outcome = found
                return found.served(began=caller.began, ttl=caller.ttl)
            if found is None:
                outcome = _NoAnswer.FETCH_YOURSELF
            else:
                result, outcome = await self._fetch(caller, found)
                return result
        finally:
            del self._flights[caller.flight]
            flight.outcome.set_result(outcome)
        return await caller.fetch()

    async def _find_or_claim(self, caller: _Caller) -> _Answer | _Claimed | None:
        """The answer, or the claim to fetch it; None where answers of this key are not kept.

        Raises IntegrationError UNAVAILABLE when another has the claim for longer than this caller waits.
        """
        pause = _FIRST_POLL_S
        awaited: datetime | None = None
        while True:
            before = time.monotonic()
            look = await self._responses.look(caller.key, ttl=caller.ttl)
            cached = look.cached
            if cached is not None and (not caller.anew or (awaited is not None and cached.asked_at >= awaited)):
                return _Answer(_decoded(cached.body), before - cached.age.total_seconds())
            if look.unkept:
                return None
            if look.claimed_at is None:
                before = time.monotonic()
                claim = await self._responses.claim(caller.key, within=caller.claim_for, anew=caller.anew)
                if claim is not None:
                    return _Claimed(claim, before)
            awaited = awaited or look.claimed_at
            left = caller.began + self._patience.total_seconds() - time.monotonic()
            if left <= 0:
                raise _fetched_elsewhere(look.held)
            with self._place_to_wait(look.held):
                await asyncio.sleep(min(pause, left))
            pause = min(pause * 2, _LAST_POLL_S)

    async def _follow(self, flight: _Flight, caller: _Caller) -> _Answer | _NoAnswer:
        left = caller.began + self._patience.total_seconds() - time.monotonic()
        held = timedelta(seconds=time.monotonic() - flight.began)
        with self._place_to_wait(held):
            await asyncio.wait({flight.outcome}, timeout=max(left, 0))
        if not flight.outcome.done():
            raise _fetched_elsewhere(timedelta(seconds=time.monotonic() - flight.began))
        return flight.outcome.result()

    async def _fetch(self, caller: _Caller, claimed: _Claimed) -> tuple[MethodResult, _Answer | _NoAnswer]:
        try:
            result = await caller.fetch()
        except BaseException:
            # Cancelled or failed: the next one tries at once.
            await _whatever_comes(self._responses.release(caller.key, claimed.claim))
            raise
        body = _encoded(result)
        too_old = time.monotonic() - claimed.before >= caller.ttl.total_seconds()
        if body is None or too_old:
            await _whatever_comes(self._responses.release(caller.key, claimed.claim, unkept=_UNKEPT))
            return result, _NoAnswer.FETCH_YOURSELF
        await _whatever_comes(self._keep(caller, claimed.claim, body))
        return result, _Answer(result, claimed.before)

    async def _keep(self, caller: _Caller, claim: Claim, body: bytes) -> None:
        # The upstream has answered: an outage of ours costs the others a fetch, and this caller nothing.
        with contextlib.suppress(IntegrationError):
            if await self._responses.store(caller.key, claim, body, ttl=caller.ttl):
                return
        await self._responses.release(caller.key, claim)

    @contextmanager
    def _place_to_wait(self, held: timedelta) -> Iterator[None]:
        if self._waiting >= self._max_waiting:
            raise _fetched_elsewhere(held)
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1


@dataclass(frozen=True)
class _Claimed:
    """A claim, and a moment before it by this process's clock."""

    claim: Claim
    before: float


@dataclass(frozen=True)
class _Caller:
    """One call on its way through. `anew` does not want what is cached already."""

    key: CacheKey
    anew: bool
    ttl: timedelta
    claim_for: timedelta
    fetch: Fetch
    began: float = field(default_factory=time.monotonic)

    @property
    def flight(self) -> tuple[bytes, bool]:
        """Who refreshes does not join those who would take what is there."""
        return self.key.digest, self.anew


def _fetched_elsewhere(held: timedelta) -> IntegrationError:
    # As long again as it took so far, spread, so that those who wait do not come back all at once.
    after = min(max(held, _FIRST_RETURN), _LAST_RETURN) * random.uniform(1, 1.25)  # noqa: S311 - no secret
    return IntegrationError(
        ErrorCode.UNAVAILABLE, "another call is fetching the same answer", details={"cause": "cache"}, retry_after=after
    )


def _encoded(result: MethodResult) -> bytes | None:
    """What is stored of a result, or None when it is not to be kept."""
    if result.errors or result.result_ref is not None:
        return None
    wire = result.to_wire()
    kept = {name: wire[name] for name in _STORED if name in wire}
    body = json.dumps(kept, separators=(",", ":"), ensure_ascii=False).encode()
    return body if len(body) <= MAX_RESULT_BYTES else None


def _decoded(body: bytes) -> MethodResult:
    stored: dict[str, Any] = json.loads(body)
    return MethodResult.model_validate({**stored, "attempts": 0, "durationMs": 0})


async def _whatever_comes(write: Coroutine[Any, Any, Done]) -> None:
    """Write to the end, even when the caller is cancelled; a failure only costs others a fetch of their own."""
    with contextlib.suppress(IntegrationError):
        await asyncio.shield(asyncio.ensure_future(write))
