"""The response cache in a real Postgres: one fetch for all, nothing in clear, nothing beyond its time."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from integration_service.activities.execution.caching import Mode, ResponseCache
from integration_service.contracts.calls import MAX_RESULT_BYTES, MethodResult
from integration_service.contracts.credentials import parse_credential
from integration_service.contracts.definitions import DefinitionFile
from integration_service.contracts.errors import Decision, ErrorCode, IntegrationError
from integration_service.contracts.instances import ConnectInstanceInput
from integration_service.contracts.wire import parse
from integration_service.storage.cache import CachedResponses, Claim
from integration_service.storage.cache_key import CacheKey
from integration_service.storage.credentials import Credentials
from integration_service.storage.database import Database
from integration_service.storage.definitions import Definitions
from integration_service.storage.instances import Instances
from integration_service.storage.vault.keyring import Keyring, generate_keyring
from tests.waiting import eventually
from tests.world import definition_file

SECRET = "planted-answer-2f9c11"
MINUTE = timedelta(minutes=1)
Add = Callable[[], Awaitable[str]]


@pytest.fixture
async def add(database: Database, name: str) -> Add:
    """Makes an instance; returns its id."""
    definition = await Definitions(database).apply(parse(DefinitionFile, definition_file(name)), publish=True)

    async def make() -> str:
        id_ = str(uuid.uuid4())
        await Instances(database).add(
            ConnectInstanceInput(instance_id=id_, definition=name, name=f"i {id_[:8]}"), definition
        )
        return id_

    return make


@pytest.fixture
async def key(add: Add) -> CacheKey:
    return a_key(await add())


@pytest.fixture
def responses(database: Database, keyring: Keyring) -> CachedResponses:
    return CachedResponses(database, keyring)


def a_key(instance_id: str, *, shared: bool = False, **changes: Any) -> CacheKey:
    given: dict[str, Any] = {
        "definition_id": str(uuid.uuid4()),
        "method": "get",
        "scope": "global",
        "epoch": 1,
        "config": {},
        "connection": None,
        "params": {"q": uuid.uuid4().hex},
    }
    return CacheKey.of(instance_id=instance_id, shared=shared, **{**given, **changes})


def result(data: Any = SECRET, **more: Any) -> MethodResult:
    return MethodResult(
        data=data, status_code=200, attempts=1, duration_ms=5, definition="d", definition_version="1.0.0", **more
    )


@dataclass
class Upstream:
    """Answers slowly, counts, and can be held back."""

    takes: float = 0.05
    calls: int = 0
    fails: int = 0
    most: int = 0
    more: dict[str, Any] = field(default_factory=dict)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    held: bool = False
    running: int = 0

    async def __call__(self) -> MethodResult:
        self.calls += 1
        number = self.calls
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(self.takes)
            if self.held:
                await self.open.wait()
            if number <= self.fails:
                raise IntegrationError(ErrorCode.TIMEOUT, f"no answer {number}")
            return result({"call": number, "text": SECRET}, **self.more)
        finally:
            self.running -= 1


@dataclass
class Workers:
    """As many processes as there are caches: each has its own flights and its own connections."""

    caches: list[ResponseCache]
    key: CacheKey
    ttl: timedelta = MINUTE
    claim_for: timedelta = MINUTE

    async def call(self, number: int, fetch: Upstream, mode: Mode = "use") -> MethodResult:
        cache = self.caches[number % len(self.caches)]
        return await cache.through(self.key, mode=mode, ttl=self.ttl, claim_for=self.claim_for, fetch=fetch)

    async def patient(self, number: int, fetch: Upstream, mode: Mode = "use") -> MethodResult:
        """As `ExecuteMethod`: comes again when told to wait."""
        while True:
            try:
                return await self.call(number, fetch, mode)
            except IntegrationError as error:
                if error.decision is not Decision.WAIT or error.retry_after is None:
                    raise
                await asyncio.sleep(error.retry_after.total_seconds())


@pytest.fixture
async def workers(stack: Any, keyring: Keyring, key: CacheKey) -> AsyncIterator[Workers]:
    async with AsyncExitStack() as opened:
        caches = []
        for _ in range(3):
            database = await opened.enter_async_context(Database(stack.ready.database, max_connections=5))
            caches.append(ResponseCache(CachedResponses(database, keyring), max_waiting=25))
        yield Workers(caches, key)


async def claimed(responses: CachedResponses, key: CacheKey, within: timedelta = MINUTE, **more: Any) -> Claim:
    claim = await responses.claim(key, within=within, **more)
    assert claim is not None
    return claim


async def stored(responses: CachedResponses, key: CacheKey, body: bytes = b'{"data":1}') -> Claim:
    claim = await claimed(responses, key)
    assert await responses.store(key, claim, body, ttl=MINUTE)
    return claim


async def body(responses: CachedResponses, key: CacheKey, ttl: timedelta = MINUTE) -> bytes | None:
    look = await responses.look(key, ttl=ttl)
    return look.cached.body if look.cached else None


async def rows(database: Database, key: CacheKey) -> int:
    row = await database.one(
        "SELECT count(*) AS n FROM integrations.response_cache WHERE key = %(key)s", {"key": key.digest}
    )
    assert row is not None
    return int(row["n"])


async def age(database: Database, key: CacheKey, seconds: float) -> None:
    """Let time pass for a row, as far as the database knows."""
    await database.one(
        """UPDATE integrations.response_cache
              SET claimed_at = claimed_at - make_interval(secs => %(s)s),
                  claimed_until = claimed_until - make_interval(secs => %(s)s),
                  expires_at = expires_at - make_interval(secs => %(s)s),
                  unkept_until = unkept_until - make_interval(secs => %(s)s)
            WHERE key = %(key)s""",
        {"key": key.digest, "s": seconds},
    )


# What the store keeps


async def test_what_was_stored_is_found_with_its_age(responses: CachedResponses, key: CacheKey) -> None:
    assert await body(responses, key) is None
    await stored(responses, key, b"one")
    look = await responses.look(key, ttl=MINUTE)
    assert look.cached is not None
    assert (look.cached.body, look.claimed_at, look.unkept) == (b"one", None, False)
    assert timedelta(0) <= look.cached.age < timedelta(seconds=30)


async def test_of_twenty_one_claims(responses: CachedResponses, key: CacheKey) -> None:
    claims = await asyncio.gather(*(responses.claim(key, within=MINUTE) for _ in range(20)))
    assert sum(claim is not None for claim in claims) == 1
    assert (await responses.look(key, ttl=MINUTE)).claimed_at is not None


async def test_a_released_claim_is_free_at_once_and_one_whose_owner_died_in_time(
    responses: CachedResponses, database: Database, key: CacheKey
) -> None:
    await responses.release(key, await claimed(responses, key))
    first = await claimed(responses, key)
    assert await responses.claim(key, within=MINUTE) is None
    await age(database, key, 61)
    second = await claimed(responses, key)
    assert not await responses.store(key, first, b"late", ttl=MINUTE)
    await responses.release(key, first)
    assert await responses.claim(key, within=MINUTE) is None
    assert await responses.store(key, second, b"newer", ttl=MINUTE)
    assert not await responses.store(key, first, b"late", ttl=MINUTE)
    assert await body(responses, key) == b"newer"


async def test_a_late_owner_whose_claim_nobody_took_still_stores(
    responses: CachedResponses, database: Database, key: CacheKey
) -> None:
    claim = await claimed(responses, key, timedelta(milliseconds=1))
    await asyncio.sleep(0.002)
    assert await responses.store(key, claim, b"late", ttl=MINUTE)
    assert await body(responses, key) == b"late"


async def test_an_answer_stands_while_it_is_refreshed(responses: CachedResponses, key: CacheKey) -> None:
    await stored(responses, key, b"old")
    assert await responses.claim(key, within=MINUTE) is None
    claim = await claimed(responses, key, anew=True)
    assert await body(responses, key) == b"old"
    assert await responses.store(key, claim, b"new", ttl=MINUTE)
    assert await body(responses, key) == b"new"


async def test_the_time_counts_from_the_claim(responses: CachedResponses, database: Database, key: CacheKey) -> None:
    """A slow answer does not live longer: the request left after the claim."""
    claim = await claimed(responses, key, timedelta(minutes=5))
    await age(database, key, 61)
    assert not await responses.store(key, claim, b"slow", ttl=MINUTE)
    assert await body(responses, key) is None


async def test_nothing_outlives_its_time_even_with_its_row_changed(
    responses: CachedResponses, database: Database, key: CacheKey
) -> None:
    await stored(responses, key)
    assert await body(responses, key, timedelta(0)) is None
    await database.one(
        "UPDATE integrations.response_cache SET expires_at = 'infinity', asked_at = now() WHERE key = %(key)s",
        {"key": key.digest},
    )
    assert await body(responses, key) is None


async def test_nothing_is_in_clear(database: Database, responses: CachedResponses, add: Add) -> None:
    key = a_key(await add(), params={"token": SECRET}, config={"password": SECRET})
    await stored(responses, key, json.dumps({"data": SECRET}).encode())
    row = await database.one(
        "SELECT r::text AS text FROM integrations.response_cache r WHERE key = %(key)s", {"key": key.digest}
    )
    assert row is not None
    for spelling in (SECRET, SECRET.encode().hex()):
        assert spelling not in row["text"]


@pytest.mark.parametrize("column", ["ciphertext", "nonce", "commitment", "wrapped_key"])
async def test_a_changed_row_is_a_miss_and_goes(
    responses: CachedResponses, database: Database, key: CacheKey, column: str
) -> None:
    await stored(responses, key)
    await database.one(
        f"UPDATE integrations.response_cache SET {column} = set_byte({column}, 1, get_byte({column}, 1) # 1) "
        "WHERE key = %(key)s",
        {"key": key.digest},
    )
    assert await body(responses, key) is None
    assert await rows(database, key) == 0
    await stored(responses, key, b"again")
    assert await body(responses, key) == b"again"


async def test_another_keys_row_does_not_open(responses: CachedResponses, database: Database, add: Add) -> None:
    one, other = a_key(await add()), a_key(await add())
    await stored(responses, one, b"one's")
    await database.one(
        "UPDATE integrations.response_cache SET key = %(other)s WHERE key = %(one)s",
        {"one": one.digest, "other": other.digest},
    )
    assert await body(responses, other) is None


async def test_an_unknown_key_is_a_miss(responses: CachedResponses, database: Database, key: CacheKey) -> None:
    await stored(responses, key)
    strange = CachedResponses(database, Keyring.load(generate_keyring()))
    assert await body(strange, key) is None
    assert await rows(database, key) == 0


async def test_expired_rows_go_when_somebody_writes(responses: CachedResponses, database: Database, add: Add) -> None:
    instance = await add()
    old, running = [a_key(instance) for _ in range(5)], a_key(instance)
    for one in old:
        await stored(responses, one)
        await age(database, one, 120)
    await stored(responses, running)
    await age(database, running, 120)
    await claimed(responses, running)
    await stored(responses, a_key(instance))

    async def gone() -> bool:
        # A sweep is bounded: rows of other tests may come first.
        await stored(responses, a_key(instance))
        return sum([await rows(database, one) for one in old]) == 0

    await eventually(gone)
    assert await rows(database, running) == 1


async def test_forgetting(responses: CachedResponses, database: Database, add: Add) -> None:
    mine, other = await add(), await add()
    key, others = a_key(mine), a_key(other)
    shared = a_key(mine, shared=True)
    under_way = a_key(mine)
    for one in (key, others, shared):
        await stored(responses, one)
    claim = await claimed(responses, under_way)
    await responses.forget(mine)
    assert not await responses.store(under_way, claim, b"from before", ttl=MINUTE)
    assert [await rows(database, one) for one in (key, under_way, others, shared)] == [0, 0, 1, 1]


async def test_a_deleted_instance_takes_its_answers_along(
    responses: CachedResponses, database: Database, add: Add
) -> None:
    instance = await add()
    key = a_key(instance)
    await stored(responses, key)
    await Instances(database).delete(instance)
    assert await rows(database, key) == 0
    with pytest.raises(IntegrationError) as refused:
        await responses.claim(key, within=MINUTE)
    assert refused.value.code == ErrorCode.INSTANCE_NOT_FOUND


# One fetch for all


async def test_three_hundred_misses_in_three_workers_are_one_fetch(workers: Workers) -> None:
    upstream = Upstream(takes=0.3)
    began = time.monotonic()
    results = await asyncio.gather(*(workers.patient(number, upstream) for number in range(300)))
    assert upstream.calls == 1
    assert {one.data["call"] for one in results} == {1}
    assert sum(not one.cached for one in results) == 1
    assert {one.attempts for one in results if one.cached} == {0}
    assert all(one.cache_age_ms is not None and one.cache_age_ms >= 0 for one in results if one.cached)
    assert time.monotonic() - began < 10


async def test_a_hit_says_so_with_its_age(workers: Workers, database: Database) -> None:
    upstream = Upstream(takes=0, more={"next_page": {"after": 3}})
    first = await workers.call(0, upstream)
    again = await workers.call(1, upstream)
    assert (first.cached, first.cache_age_ms, first.attempts) == (False, None, 1)
    assert (again.cached, again.attempts, again.status_code, again.definition) == (True, 0, 200, "d")
    assert (again.data, again.next_page, again.definition_version) == (first.data, {"after": 3}, "1.0.0")
    assert upstream.calls == 1


async def test_a_failure_is_its_own_callers_alone(workers: Workers) -> None:
    upstream = Upstream(takes=0.01, fails=3)
    ends = await asyncio.gather(*(workers.patient(number, upstream) for number in range(30)), return_exceptions=True)
    failed = [end for end in ends if isinstance(end, IntegrationError)]
    assert sorted(error.message for error in failed) == ["no answer 1", "no answer 2", "no answer 3"]
    assert (upstream.calls, upstream.most) == (4, 1)
    assert sum(isinstance(end, MethodResult) for end in ends) == 27


async def test_a_cancelled_fetch_leaves_the_key_free(workers: Workers) -> None:
    upstream = Upstream(held=True)
    first = asyncio.create_task(workers.call(0, upstream))
    await eventually(lambda: _true(upstream.running == 1))
    others = [asyncio.create_task(workers.patient(number, upstream)) for number in range(6)]
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    upstream.open.set()
    assert {(await other).data["call"] for other in others} == {2}


async def test_who_waits_too_long_goes_back_and_frees_its_place(workers: Workers) -> None:
    upstream = Upstream(held=True)
    first = asyncio.create_task(workers.call(0, upstream))
    await eventually(lambda: _true(upstream.running == 1))
    for number in (0, 1):
        began = time.monotonic()
        with pytest.raises(IntegrationError) as told:
            await workers.call(number, upstream)
        assert 0.9 < time.monotonic() - began < 3
        assert (told.value.code, told.value.decision) == (ErrorCode.UNAVAILABLE, Decision.WAIT)
        assert told.value.retry_after is not None
        assert timedelta(milliseconds=500) <= told.value.retry_after < timedelta(seconds=7)
    upstream.open.set()
    assert not (await first).cached
    assert (await workers.call(1, upstream)).cached


async def test_no_more_wait_than_may(workers: Workers) -> None:
    cache = ResponseCache(workers.caches[0]._responses, max_waiting=2)
    workers.caches = [cache]
    upstream = Upstream(held=True)
    first = asyncio.create_task(workers.call(0, upstream))
    await eventually(lambda: _true(upstream.running == 1))
    began = time.monotonic()
    waiting = [asyncio.create_task(workers.call(0, upstream)) for _ in range(10)]
    done, pending = await asyncio.wait(waiting, timeout=0.5)
    assert (len(done), len(pending)) == (8, 2)
    assert time.monotonic() - began < 0.9
    assert all(isinstance(one.exception(), IntegrationError) for one in done)
    upstream.open.set()
    assert [one.cached for one in await asyncio.gather(*pending)] == [True, True]
    await first


async def test_a_dead_workers_claim_is_taken_over(workers: Workers, responses: CachedResponses) -> None:
    await claimed(responses, workers.key, timedelta(milliseconds=300))
    upstream = Upstream(takes=0)
    assert (await workers.call(0, upstream)).data["call"] == 1


async def test_refresh_fetches_and_bypass_leaves_all_as_it_is(workers: Workers) -> None:
    upstream = Upstream(takes=0)
    await workers.call(0, upstream)
    bypassed = await workers.call(0, upstream, "bypass")
    assert (bypassed.data["call"], bypassed.cached) == (2, False)
    assert (await workers.call(1, upstream)).data["call"] == 1
    refreshed = await workers.call(0, upstream, "refresh")
    assert (refreshed.data["call"], refreshed.cached) == (3, False)
    assert (await workers.call(1, upstream)).data["call"] == 3


async def test_refreshes_at_once_share_a_fetch(workers: Workers) -> None:
    upstream = Upstream(takes=0.2)
    await workers.call(0, upstream)
    results = await asyncio.gather(*(workers.patient(number, upstream, "refresh") for number in range(60)))
    assert {one.data["call"] for one in results} == {2}
    assert upstream.calls == 2


async def test_while_it_is_refreshed_the_answer_that_stands_is_served(workers: Workers) -> None:
    upstream = Upstream(takes=0)
    await workers.call(0, upstream)
    slow = Upstream(held=True)
    refreshing = asyncio.create_task(workers.call(0, slow, "refresh"))
    await eventually(lambda: _true(slow.running == 1))
    assert (await workers.call(0, upstream)).cached
    slow.open.set()
    assert not (await refreshing).cached


async def test_a_failed_refresh_keeps_what_was_there(workers: Workers) -> None:
    await workers.call(0, Upstream(takes=0))
    with pytest.raises(IntegrationError):
        await workers.call(0, Upstream(takes=0, fails=1), "refresh")
    assert (await workers.call(0, Upstream(takes=0))).cached


@pytest.mark.parametrize("more", [{"errors": [{"message": "half"}]}, {"next_page": "x" * MAX_RESULT_BYTES}])
async def test_what_cannot_be_kept_holds_nobody_up(workers: Workers, database: Database, more: dict[str, Any]) -> None:
    """Else every caller would wait for every other, one at a time."""
    upstream = Upstream(takes=0.2, more=more)
    results = await asyncio.gather(*(workers.patient(number, upstream) for number in range(12)))
    assert not any(one.cached for one in results)
    assert (upstream.calls, upstream.most > 1) == (12, True)
    await age(database, workers.key, 11)
    await workers.call(0, Upstream(takes=0))
    assert (await workers.call(1, upstream)).cached


async def test_an_answer_older_than_its_time_is_not_kept(workers: Workers) -> None:
    workers.ttl = timedelta(milliseconds=20)
    upstream = Upstream(takes=0.1)
    assert not (await workers.call(0, upstream)).cached
    assert not (await workers.call(1, upstream)).cached


async def test_a_store_that_fails_costs_the_caller_nothing(workers: Workers, database: Database) -> None:
    """The key that is gone stands for any outage of ours after the answer."""

    class Broken(CachedResponses):
        async def store(self, *_: Any, **__: Any) -> bool:
            raise IntegrationError(ErrorCode.KEY_UNAVAILABLE, "no key")

    workers.caches = [ResponseCache(Broken(database, Keyring.load(generate_keyring())), max_waiting=25)]
    upstream = Upstream(takes=0)
    assert [(await workers.call(0, upstream)).data["call"] for _ in range(2)] == [1, 2]


async def test_a_database_that_is_down_is_told_to_the_caller(key: CacheKey, keyring: Keyring) -> None:
    async with Database("postgresql://u:p@127.0.0.1:1/d", patience=timedelta(milliseconds=300)) as down:
        cache = ResponseCache(CachedResponses(down, keyring), max_waiting=25)
        with pytest.raises(IntegrationError) as told:
            await cache.through(key, mode="use", ttl=MINUTE, claim_for=MINUTE, fetch=Upstream())
    assert told.value.code == ErrorCode.UNAVAILABLE


# The epoch of a credential


async def test_a_renewal_keeps_the_epoch_and_a_new_credential_moves_it(
    database: Database, keyring: Keyring, add: Add
) -> None:
    credentials, instance = Credentials(database, keyring), await add()

    async def store(*, renewal: bool) -> tuple[int, int]:
        wire = {"type": "oauth2", "oauth2": {"accessToken": uuid.uuid4().hex}}
        payload = parse_credential(json.dumps(wire).encode())
        await credentials.store(instance_id=instance, scope="global", payload=payload, renewal=renewal)
        kept = await credentials.load(instance)
        for_call = (await Instances(database).for_call("global", instance)).credential
        assert kept is not None
        assert for_call is not None
        assert for_call.epoch == kept.epoch
        return kept.generation, kept.epoch

    assert [await store(renewal=renewal) for renewal in (False, True, True, False, True)] == [
        (1, 1), (2, 1), (3, 1), (4, 4), (5, 4),
    ]  # fmt: skip
    await credentials.erase(instance)
    # The first token of a grant that needs nobody.
    assert await store(renewal=True) == (6, 6)


async def _true(value: bool) -> bool:
    return value
