"""With 100,000 instances every statement of a call, of the lists and of the sweeps goes by an index.

The statements are those that the repositories send, run by a login with a worker's rights, row security included. Each
line says how many rows it may look at: an index that is read from end to end is as bad as none.

Not here: what an operator counts or looks through as a whole (`keys status`, `audit stats`, `audit verify`, `audit tail
--scope`, a list of all instances). An index for these would cost every write.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from integration_service.contracts.credentials import parse_credential
from integration_service.contracts.events import EventDraft, EventType
from integration_service.contracts.instances import IntegrationInstanceStatus
from integration_service.devstack.stack import Stack
from integration_service.storage.audit import AuditLog, Execution
from integration_service.storage.audit_chain import AuditChain
from integration_service.storage.audit_stats import AuditStats
from integration_service.storage.authorizations import Authorizations, pending
from integration_service.storage.cache import CachedResponses
from integration_service.storage.cache_key import CacheKey
from integration_service.storage.credentials import Credentials
from integration_service.storage.database import within_scope
from integration_service.storage.decrypt_log import DecryptLog
from integration_service.storage.definitions import Definitions
from integration_service.storage.deliveries import Deliveries
from integration_service.storage.instances import Instances
from integration_service.storage.key_rotation import MAIN, WRAPPED_TABLES, KeyRotation
from integration_service.storage.leftovers import Leftovers
from integration_service.storage.outbox import Outbox
from integration_service.storage.rate_buckets import RateBuckets
from integration_service.storage.refresh_intents import RefreshIntents
from integration_service.storage.upstream_health import BreakerRows
from integration_service.storage.vault.keyring import KeyRef, Keyring
from integration_service.storage.vault.openings import Use
from integration_service.storage.waiters import Waiters
from tests.explained import Explained, explain_everything
from tests.fresh_database import fresh_database
from tests.many_rows import INSTANCES, SCOPES, fill

pytestmark = pytest.mark.slow

FEW, PAGE, BATCH = 50, 500, 25_000
NUMBER = 777
INSTANCE = f"00000000-0000-4000-8000-{NUMBER:012x}"
SCOPE = f"s{NUMBER % SCOPES}"
DEFINITION = f"00000000-0000-4000-9000-{NUMBER % 50 + 1:012x}"
KEY = CacheKey(bytes(32), DEFINITION, "get", SCOPE, INSTANCE)
USE = Use("w", "rotate", "a", "1", 1)
HOUR = timedelta(hours=1)
SMALL = {"definitions", "subscriptions", "seals", "alerts", "seal_keys", "oauth_clients", "subscription_secrets"}
"""A few rows each, as the operator makes them; Postgres reads them whole whatever indexes they have."""
SWEPT_WHOLE = {"rate_buckets", "breakers"}
"""Written at every call, so an index of their times would cost each call more than the hourly sweep, which reads them
whole: a row an instance and method of late."""


class Stores:
    """The repositories, on connections that tell what was done."""

    def __init__(self, database: Explained, keyring: Keyring) -> None:
        self.database, self.keyring = database, keyring
        self.instances = Instances(database)
        self.audit, self.stats, self.chain = AuditLog(database), AuditStats(database), AuditChain(database, batch=FEW)
        self.credentials, self.authorizations = Credentials(database, keyring), Authorizations(database, keyring)
        self.cache, self.buckets = CachedResponses(database, keyring), RateBuckets(database)
        self.waiters, self.intents, self.breakers = Waiters(database), RefreshIntents(database), BreakerRows(database)
        self.outbox, self.deliveries = Outbox(database), Deliveries(database)
        self.leftovers, self.decrypts = Leftovers(database), DecryptLog(database)
        self.rotation = KeyRotation(database, {MAIN: keyring})


@pytest.fixture(scope="module")
async def stores(stack: Stack, keyring: Keyring) -> AsyncIterator[Stores]:
    async with fresh_database(stack) as fresh:
        await fill(fresh.superuser)
        await explain_everything(fresh.superuser)
        async with fresh.login("worker", "maintenance", "audit_reader") as login, Explained(login) as database:
            yield Stores(database, keyring)


async def rewritten(stores: Stores) -> None:
    read = await stores.instances.get(INSTANCE)
    await stores.instances.update(
        read,
        status=IntegrationInstanceStatus.DISCONNECTED,
        error=None,
        config={},
        definition_id=read.integration_definition_id,
    )


async def stored(stores: Stores) -> None:
    payload = parse_credential(b'{"type":"custom","custom":{"a":"b"}}')
    await stores.credentials.begin_submission(INSTANCE, at=(at := datetime.now(UTC)))
    await stores.credentials.store(instance_id=INSTANCE, scope=SCOPE, payload=payload, submission=at)
    await stores.credentials.store(instance_id=INSTANCE, scope=SCOPE, payload=payload, renewal=True)


async def recorded(stores: Stores) -> None:
    known: dict[str, Any] = {
        "scheduled_at": datetime.now(UTC),
        "execution_key": str(uuid.uuid4()),
        "attempt": 1,
        "scope": SCOPE,
        "instance_id": INSTANCE,
        "definition": "d1",
        "definition_version": "1.0.0",
        "method": "get",
        "status": "SUCCEEDED",
        "duration_ms": 1,
        "request_bytes": 0,
        "response_bytes": 0,
    }
    row = Execution(**{name: known.get(name) for name in Execution.__dataclass_fields__})
    await stores.audit.intend(row.execution_key)
    await stores.audit.record(row, settles_intent=True)


async def cached(stores: Stores) -> None:
    await stores.cache.look(KEY, ttl=HOUR)
    claim = await stores.cache.claim(KEY, within=HOUR, anew=True)
    assert claim is not None
    await stores.cache.store(KEY, claim, b"{}", ttl=HOUR)


async def authorized(stores: Stores) -> None:
    await stores.authorizations.begin(
        hashed="h-new", instance_id=INSTANCE, scope=SCOPE, return_url=None, secret={}, lifetime=HOUR
    )
    await pending(stores.database, "h-new")
    await stores.authorizations.claim("h-new", INSTANCE, claimant="c")
    await stores.authorizations.erase(INSTANCE)


async def delivered(stores: Stores) -> None:
    first, second, *_ = await stores.deliveries.claim(limit=50, each=10, lease=HOUR)
    await stores.deliveries.delivered(first)
    await stores.deliveries.failed(second, "HTTP_500", again_in=HOUR)


async def refreshed(stores: Stores) -> None:
    held = await stores.credentials.load(INSTANCE)
    assert held is not None
    await stores.intents.begin(instance_id=INSTANCE, generation=held.generation, token_hash=b"x", lease=HOUR)
    await stores.intents.answered(instance_id=INSTANCE, generation=held.generation, lost=False)
    await stores.intents.erase(INSTANCE)


async def limited(stores: Stores) -> None:
    await stores.buckets.reserve(INSTANCE, "get", interval=HOUR, tolerance=HOUR, here=HOUR)
    await stores.buckets.take(INSTANCE, "get", interval=HOUR, tolerance=HOUR, here=HOUR)


async def parked(stores: Stores) -> None:
    await stores.waiters.add(instance_id=INSTANCE, workflow_id="w", run_id="r")
    await stores.waiters.take(INSTANCE)


async def told(stores: Stores) -> None:
    draft = EventDraft(EventType.AUDIT_ALERT, {})
    await stores.outbox.publish(draft, subject="s", scope=SCOPE, only_if_wanted=True)


QUERIES: dict[str, tuple[int, Callable[[Stores], Awaitable[Any]]]] = {
    # A call
    "a call's instance by id": (FEW, lambda s: s.instances.for_call(SCOPE, INSTANCE, method="get")),
    "a call's instance by name": (FEW, lambda s: s.instances.for_call(SCOPE, f"n{NUMBER}", method="get")),
    "a call's definition": (FEW, lambda s: Definitions(s.database).get(DEFINITION)),
    "intent, log row, last use, events": (FEW, recorded),
    "cache: look, claim, store, sweep": (FEW, cached),
    "a place in a limit": (FEW, limited),
    "a waiting call": (FEW, parked),
    # A connection
    "an instance": (FEW, lambda s: s.instances.find(SCOPE, f"n{NUMBER}")),
    "an instance's write, with its events": (FEW, rewritten),
    "a credential": (FEW, stored),
    "an authorization": (FEW, authorized),
    "a token request": (FEW, refreshed),
    "what an instance has cached": (FEW, lambda s: s.cache.forget(INSTANCE)),
    # Lists
    "the instances of a scope": (3 * INSTANCES // SCOPES, lambda s: s.instances.list(scope=SCOPE)),
    "the log's newest rows": (PAGE, lambda s: s.audit.tail(limit=FEW)),
    "the log of an instance": (FEW, lambda s: s.audit.tail(limit=FEW, instance_id=INSTANCE)),
    "the newest events": (PAGE, lambda s: s.outbox.tail(limit=FEW)),
    "the events of an instance": (FEW, lambda s: s.outbox.tail(limit=FEW, instance_id=INSTANCE)),
    "dead letters": (FEW, lambda s: s.deliveries.dead(limit=FEW)),
    # Events
    "an event of the service": (FEW, told),
    "what is due, delivered, failed": (6 * PAGE, delivered),
    "when the next is due": (6 * PAGE, lambda s: s.deliveries.next_due()),
    "credentials that end soon": (PAGE, lambda s: s.outbox.announce_expiring()),
    "events that are old": (FEW, lambda s: s.outbox.prune()),
    # Keys
    "rows under another key": (
        INSTANCES,
        lambda s: s.rotation.rewrap(WRAPPED_TABLES["vault.credentials"], s.keyring.active, after=None, use=USE),
    ),
    # Maintenance
    "leftovers": (2 * BATCH + FEW, lambda s: s.leftovers.sweep()),
    "stale breakers": (BATCH, lambda s: s.breakers.delete_stale()),
    "old decrypts": (10 * PAGE, lambda s: s.decrypts.prune(timedelta(days=400))),
    "old alerts": (FEW, lambda s: s.stats.prune_alerts(timedelta(days=400))),
    "a seal": (PAGE, lambda s: s.chain.seal()),
}
SCOPED = list(QUERIES)[: list(QUERIES).index("the instances of a scope")]
"""What a worker sends on behalf of one owner, and the rest for nobody in particular."""


@pytest.mark.parametrize(
    ("query", "scoped"),
    [(query, scoped) for query in QUERIES for scoped in (False, True) if query in SCOPED or not scoped],
)
async def test_no_table_is_read_whole(stores: Stores, query: str, scoped: bool) -> None:
    most, send = QUERIES[query]
    stores.database.scans.clear()
    with within_scope(SCOPE) if scoped else nullcontext():
        await send(stores)
    scans = stores.database.scans
    assert scans, "nothing was explained"
    for scan in scans:
        print(scan)
    # Of an empty table, such as next month's, there is nothing to read.
    whole = {scan.table for scan in scans if scan.node == "Seq Scan" and scan.looked_at} - SMALL
    assert whole <= (SWEPT_WHOLE if query in ("leftovers", "stale breakers") else set()), scans
    for scan in scans:
        assert scan.looked_at <= most, str(scan)


async def test_a_rotation_that_is_nearly_done_looks_at_what_is_left_only(stores: Stores) -> None:
    """Counting what is under another key, which ends each rotation: 1,000 rows of 100,000."""
    stores.database.scans.clear()
    left = await stores.rotation.left({MAIN: KeyRef("kek-new", 1), "results": KeyRef("kek-old", 1)})
    few = INSTANCES // 100 + 1  # and the one that was stored here
    assert few - 1 <= left["vault.credentials"] <= few
    scans = [scan for scan in stores.database.scans if scan.table == "credentials"]
    assert {scan.index for scan in scans} == {None, "credentials_key"}  # the rows, and the bitmap that names them
    assert {scan.node for scan in scans} == {"Bitmap Heap Scan", "Bitmap Index Scan"}
    assert max(scan.looked_at for scan in scans) <= few


async def test_a_busy_instance_has_no_hot_row(stores: Stores) -> None:
    """When it was last used stands beside it and is written once in ten seconds; the instance's own row never is."""
    began = time.monotonic()
    versions: dict[str, set[int]] = {"instances": set(), "instance_usage": set()}
    for _ in range(200):
        with within_scope(SCOPE):
            await recorded(stores)
        row = await stores.database.one(
            """SELECT i.xmin::text::bigint AS instances, u.xmin::text::bigint AS instance_usage
                 FROM integrations.instances i JOIN integrations.instance_usage u ON u.instance_id = i.id
                WHERE i.id = %(id)s""",
            {"id": INSTANCE},
        )
        assert row is not None
        for table, seen in versions.items():
            seen.add(row[table])
    assert len(versions["instances"]) == 1
    assert len(versions["instance_usage"]) <= 2 + (time.monotonic() - began) / 10
