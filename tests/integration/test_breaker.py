"""The circuit breaker in a real Postgres: the rule, one probe over all workers, nothing written while all is well."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from integration_service.activities.outbound.breaker import (
    Admission,
    BreakerChange,
    BreakerRule,
    Breakers,
    has_failed,
    host_of,
)
from integration_service.activities.outbound.messages import InboundResponse, OutboundRequest
from integration_service.activities.outbound.transport import SendFailed
from integration_service.contracts.errors import Decision, ErrorCode, IntegrationError
from integration_service.devstack.stack import Stack
from integration_service.storage.database import Database
from integration_service.storage.upstream_health import HEALTH_COLUMNS, HEALTH_JOIN, BreakerRows, BreakerState
from integration_service.storage.upstream_health import UpstreamHealth as Health
from tests.integration.conftest import Add
from tests.waiting import eventually

HOST = "api.example.test:443"
WITHIN = timedelta(seconds=1)
SHORT = BreakerRule(open_for=timedelta(milliseconds=300), longest=timedelta(seconds=1), probe_margin=timedelta(0))


class Counting(Database):
    """A database that counts the statements that go to it."""

    statements = 0

    async def one(self, query: str, parameters: dict[str, Any]) -> Any:
        self.statements += 1
        return await super().one(query, parameters)


@pytest.fixture
async def workers(stack: Stack) -> AsyncIterator[list[Worker]]:
    """Four processes' worth of breakers, each with its own pool."""
    async with AsyncExitStack() as pools:
        databases = [await pools.enter_async_context(Counting(stack.ready.database)) for _ in range(4)]
        yield [Worker(database) for database in databases]


class Worker:
    """What one process does around a send."""

    def __init__(self, database: Counting, *, rule: BreakerRule | None = None) -> None:
        self.database = database
        self.breakers = Breakers(BreakerRows(database), rule=rule)

    def ruled(self, rule: BreakerRule) -> Worker:
        return Worker(self.database, rule=rule)

    async def health(self, instance_id: str) -> Health:
        query = f"SELECT {HEALTH_COLUMNS} FROM integrations.instances i {HEALTH_JOIN} WHERE i.id = %(id)s"
        row = await Database.one(self.database, query, {"id": instance_id, "method": "get"})
        assert row is not None
        return Health.read(row)

    async def seen(self, instance_id: str) -> BreakerState | None:
        return (await self.health(instance_id)).breaker(HOST)

    async def admit(self, instance_id: str) -> Admission:
        return await self.breakers.admit(instance_id, HOST, await self.seen(instance_id), within=WITHIN)

    async def send(self, instance_id: str, *, failed: bool) -> BreakerChange | None:
        return await self.breakers.note(await self.admit(instance_id), failed=failed)


async def opened(worker: Worker, instance_id: str) -> BreakerChange:
    changes = [await worker.send(instance_id, failed=True) for _ in range(20)]
    assert changes[:-1] == [None] * 19
    assert changes[-1] is not None
    return changes[-1]


async def probe_is_due(worker: Worker, instance_id: str) -> BreakerState:
    async def look() -> BreakerState | None:
        seen = await worker.seen(instance_id)
        return seen if seen and seen.open_for is not None and seen.open_for <= timedelta(0) else None

    return await eventually(look, within_s=5)


async def test_twenty_failures_open_it_and_no_fewer(workers: list[Worker], add: Add) -> None:
    instance_id = await add()
    change = await opened(workers[0], instance_id)
    assert (change.to, change.host, change.failures, change.sends) == ("OPENED", HOST, 20, 20)
    assert change.open_until is not None
    assert timedelta(seconds=29) < change.open_until - datetime.now(UTC) <= timedelta(seconds=30)


async def test_an_open_breaker_refuses_every_worker_with_its_evidence_and_no_statement(
    workers: list[Worker], add: Add
) -> None:
    instance_id = await add()
    await opened(workers[0], instance_id)
    for worker in workers:
        seen, before = await worker.seen(instance_id), worker.database.statements
        with pytest.raises(IntegrationError) as refused:
            await worker.breakers.admit(instance_id, HOST, seen, within=WITHIN)
        error = refused.value
        assert worker.database.statements == before
        assert (error.code, error.decision) == (ErrorCode.CIRCUIT_OPEN, Decision.WAIT)
        assert {**error.details, "openUntil": ""} == {"host": HOST, "failures": 20, "sends": 20, "openUntil": ""}
        assert error.details["openUntil"].endswith("Z")
        assert error.retry_after is not None
        assert timedelta(seconds=25) < error.retry_after < timedelta(seconds=36)


async def test_another_host_and_another_instance_are_let_through(workers: list[Worker], add: Add) -> None:
    instance_id, other = await add(), await add()
    await opened(workers[0], instance_id)
    assert (await workers[1].health(instance_id)).breaker("other.test:443") is None
    assert await workers[1].admit(other) == Admission(other, HOST)


async def test_while_nothing_fails_nothing_is_written(workers: list[Worker], add: Add) -> None:
    instance_id, worker = await add(), workers[0]
    for _ in range(200):
        assert await worker.send(instance_id, failed=False) is None
    assert worker.database.statements == 0
    assert await worker.seen(instance_id) is None


async def test_a_single_failure_among_successes_costs_few_statements(workers: list[Worker], add: Add) -> None:
    instance_id, worker = await add(), workers[0]
    for number in range(200):
        await worker.send(instance_id, failed=number == 50)
    # One for the failure, and one a second.
    assert worker.database.statements <= 5
    state = await worker.seen(instance_id)
    assert state is not None
    assert (state.failures, state.open_until) == (1, None)
    assert state.sends >= 51


async def test_successes_of_a_process_that_wrote_nothing_count_once_it_hears_of_failures(
    workers: list[Worker], add: Add
) -> None:
    instance_id = await add()
    well, ill = workers[:2]
    for _ in range(30):
        await well.send(instance_id, failed=False)
    for _ in range(10):
        await ill.send(instance_id, failed=True)
    await well.send(instance_id, failed=False)
    state = await well.seen(instance_id)
    assert state is not None
    assert (state.sends, state.failures) == (41, 10)
    # By now 31 succeeded: the 31st failure opens, and not the twentieth.
    changes = [await ill.send(instance_id, failed=True) for _ in range(21)]
    assert changes[:-1] == [None] * 20
    assert changes[-1] is not None
    assert (changes[-1].sends, changes[-1].failures) == (62, 31)


def expected(outcomes: list[bool]) -> int | None:
    """The index of the send that opens it."""
    failures = 0
    for index, failed in enumerate(outcomes):
        failures += failed
        if failures and index >= 19 and failures * 2 >= index + 1:
            return index
    return None


@given(outcomes=st.lists(st.booleans(), min_size=15, max_size=40), who=st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_it_opens_at_the_send_that_the_rule_names(
    workers: list[Worker], add: Add, outcomes: list[bool], who: random.Random
) -> None:
    instance_id, worker = await add(), workers[0].ruled(BreakerRule())
    opens_at = expected(outcomes)
    for index, failed in enumerate(outcomes):
        change = await worker.send(instance_id, failed=failed)
        assert (change is not None) == (index == opens_at), index
        if change:
            assert (change.sends, change.failures) == (index + 1, sum(outcomes[: index + 1]))
            return


async def test_failures_at_the_same_time_over_all_workers_are_all_counted_and_one_hears_of_it(
    workers: list[Worker], add: Add
) -> None:
    instance_id = await add()
    admitted = [(worker, await worker.admit(instance_id)) for worker in workers for _ in range(25)]
    changes = await asyncio.gather(*(worker.breakers.note(one, failed=True) for worker, one in admitted))
    [change] = [change for change in changes if change]
    assert change.to == "OPENED"
    assert 20 <= change.sends == change.failures <= 100


async def test_what_is_older_than_half_a_minute_no_longer_counts(
    workers: list[Worker], add: Add, database: Database
) -> None:
    instance_id = await add()
    for _ in range(15):
        await workers[0].send(instance_id, failed=True)
    # Moved by 28 s they count still, by 30 s they do not.
    for back, failures in ((28, 16), (2, 2)):
        await database.one(
            "UPDATE integrations.breakers SET newest = newest - %(back)s WHERE instance_id = %(id)s",
            {"back": back, "id": instance_id},
        )
        assert await workers[1].send(instance_id, failed=True) is None
        state = await workers[1].seen(instance_id)
        assert state is not None
        assert state.failures == failures


async def test_exactly_one_of_fifty_probes_and_its_success_closes_it(workers: list[Worker], add: Add) -> None:
    instance_id = await add()
    short = [worker.ruled(SHORT) for worker in workers]
    await opened(short[0], instance_id)
    seen = await probe_is_due(short[0], instance_id)

    async def admit(worker: Worker) -> Admission | IntegrationError:
        try:
            return await worker.breakers.admit(instance_id, HOST, seen, within=timedelta(minutes=1))
        except IntegrationError as error:
            return error

    callers = [short[number % 4] for number in range(50)]
    answers = await asyncio.gather(*(admit(worker) for worker in callers))
    [probe] = [answer for answer in answers if isinstance(answer, Admission)]
    refused = [answer for answer in answers if isinstance(answer, IntegrationError)]
    assert {error.code for error in refused} == {ErrorCode.CIRCUIT_OPEN}
    waits = sorted(error.retry_after for error in refused if error.retry_after)
    assert len(waits) == 49
    # Nobody comes back together with many others.
    assert waits[-1] - waits[0] > timedelta(milliseconds=500)
    change = await callers[0].breakers.note(probe, failed=False)
    assert change is not None
    assert (change.to, change.failures, change.sends) == ("CLOSED", 20, 20)
    assert await short[1].seen(instance_id) is None
    # Who had read it as open is let through all the same.
    assert await short[2].breakers.admit(instance_id, HOST, seen, within=WITHIN) == Admission(instance_id, HOST)
    # And what failed before it closed does not count any more.
    assert await short[0].send(instance_id, failed=True) is None


async def test_a_failed_probe_opens_it_for_longer_up_to_a_bound(workers: list[Worker], add: Add) -> None:
    instance_id, worker = await add(), workers[0].ruled(SHORT)
    await opened(worker, instance_id)
    spans = []
    for _ in range(3):
        await probe_is_due(worker, instance_id)
        change = await worker.send(instance_id, failed=True)
        assert change is not None
        assert change.to == "OPENED"
        assert change.open_until is not None
        spans.append((change.open_until - datetime.now(UTC)).total_seconds())
    assert spans == [pytest.approx(span, abs=0.2) for span in (0.6, 1.0, 1.0)]


async def test_when_the_prober_dies_another_probes_after_its_time(workers: list[Worker], add: Add) -> None:
    instance_id = await add()
    first, second = workers[0].ruled(SHORT), workers[1].ruled(SHORT)
    await opened(first, instance_id)
    seen = await probe_is_due(first, instance_id)
    dead = await first.breakers.admit(instance_id, HOST, seen, within=timedelta(milliseconds=400))
    assert dead.probe_id is not None
    with pytest.raises(IntegrationError):
        await second.breakers.admit(instance_id, HOST, seen, within=WITHIN)

    async def again() -> Admission | None:
        try:
            return await second.breakers.admit(instance_id, HOST, seen, within=WITHIN)
        except IntegrationError:
            return None

    probe = await eventually(again, within_s=5)
    assert probe.probe_id not in (None, dead.probe_id)
    # He was not dead, but late: the breaker is no longer his to close.
    assert await first.breakers.note(dead, failed=False) is None
    assert await first.breakers.note(dead, failed=True) is None
    change = await second.breakers.note(probe, failed=False)
    assert change is not None
    assert change.to == "CLOSED"


async def test_a_probe_that_tells_nothing_is_given_back(workers: list[Worker], add: Add) -> None:
    instance_id, worker = await add(), workers[0].ruled(SHORT)
    await opened(worker, instance_id)
    await probe_is_due(worker, instance_id)
    probe = await worker.admit(instance_id)
    assert probe.probe_id is not None
    assert await worker.breakers.note(probe, failed=None) is None
    assert (await worker.admit(instance_id)).probe_id is not None


async def test_what_was_sent_before_it_opened_changes_nothing_after(workers: list[Worker], add: Add) -> None:
    instance_id, worker = await add(), workers[0]
    early = [await worker.admit(instance_id) for _ in range(2)]
    await opened(worker, instance_id)
    for failed in (True, False):
        assert await worker.breakers.note(early.pop(), failed=failed) is None
    state = await worker.seen(instance_id)
    assert state is not None
    assert (state.sends, state.failures) == (20, 20)


async def test_a_deleted_instance_is_no_error(workers: list[Worker]) -> None:
    gone = Admission(str(uuid.uuid4()), HOST)
    assert await workers[0].breakers.note(gone, failed=True) is None


async def test_a_database_that_is_down_forgets_breakers_and_fails_no_call() -> None:
    async with Database("postgresql://u@127.0.0.1:1/x", patience=timedelta(milliseconds=200)) as down:
        breakers = Breakers(BreakerRows(down))
        assert await breakers.note(Admission(str(uuid.uuid4()), HOST), failed=True) is None


async def test_breakers_that_nobody_asks_for_are_forgotten(workers: list[Worker], add: Add, database: Database) -> None:
    quiet, busy = await add(), await add()
    for instance_id in (quiet, busy):
        await workers[0].send(instance_id, failed=True)
    await database.one(
        "UPDATE integrations.breakers SET newest = newest - 1000 WHERE instance_id = %(id)s", {"id": quiet}
    )
    await BreakerRows(database).delete_stale()
    rows = await database.all(
        "SELECT instance_id FROM integrations.breakers WHERE instance_id = ANY(%(ids)s::uuid[])",
        {"ids": [quiet, busy]},
    )
    assert [str(row["instance_id"]) for row in rows] == [busy]


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://API.Example.com/x?y", "api.example.com:443"),
        ("http://api.example.com:80", "api.example.com:80"),
        ("http://u:p@h:8080/", "h:8080"),
        ("http://[::1]:5/", "::1:5"),
        ("https://bücher.example/", "xn--bcher-kva.example:443"),
    ],
)
def test_a_breaker_stands_for_host_and_port(url: str, host: str) -> None:
    assert host_of(OutboundRequest("GET", url)) == host


def test_connection_timeout_and_5xx_are_failures() -> None:
    def response(status: int) -> InboundResponse:
        return InboundResponse(status=status, headers={}, body=b"")

    assert [has_failed(response(status)) for status in (200, 302, 404, 429, 499, 500, 503, 599)] == [False] * 5 + [
        True
    ] * 3
    for code in (ErrorCode.TIMEOUT, ErrorCode.CONNECTION_ERROR):
        assert has_failed(SendFailed(code, "x", maybe_sent=False)) is True
    assert has_failed(SendFailed(ErrorCode.RESPONSE_TOO_LARGE, "x", maybe_sent=True)) is False
    assert has_failed(SendFailed(ErrorCode.EGRESS_DENIED, "x", maybe_sent=False)) is None
