"""Rewrapping: every data key in the database under the active key-encryption key. Payloads stay closed.

Rows are taken in the order of their key, a batch at a time, and each is written only if nobody has written it since: it
holds the wrapped key that was read. Doing it twice, or from the middle on, does no harm.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.storage.credentials import StoredCredential
from integration_service.storage.database import Database
from integration_service.storage.decrypt_log import INSERT_DECRYPTS, decrypt_parameters
from integration_service.storage.vault.envelope import Context, Wrapped, rewrap
from integration_service.storage.vault.keyring import KeyProvider, KeyRef
from integration_service.storage.vault.openings import Opening, Use

BATCH = 250
"""Rows of one commit: some milliseconds of an event loop, and no lock that a call would notice."""
MAIN, RESULTS = "keyring", "results"
# Below it or above it: what is only told to be another, no index finds.
_OTHER = """wrapped_key IS NOT NULL AND ((key_id, key_version) < (%(key_id)s, %(key_version)s)
                                      OR (key_id, key_version) > (%(key_id)s, %(key_version)s))"""


@dataclass(frozen=True)
class WrappedTable:
    """A table with the columns of an envelope.

    `order` are the expressions of its unique key, with their types; `context` gives what a row's secret is bound to
    from `columns`. `ring` names the key set. Rows of a table without `context` are worth nothing and are emptied.
    """

    name: str
    order: Mapping[str, str]
    columns: tuple[str, ...] = ()
    context: Callable[[dict[str, Any]], Context] | None = None
    ring: str = MAIN


_UUID = {"id": "uuid"}
WRAPPED_TABLES = {
    table.name: table
    for table in (
        WrappedTable(
            "vault.credentials",
            _UUID,
            ("scope", "instance_id", "id", "type", "schema_version", "generation"),
            lambda row: StoredCredential(row).context,
        ),
        WrappedTable("vault.seal_keys", {"id": "text"}, ("id",), lambda row: Context("seal_key", (row["id"],))),
        WrappedTable(
            "vault.oauth_clients",
            {"scope": "text", "definition_name": "text", "coalesce(instance_id::text, '')": "text"},
            ("scope", "definition_name", "instance_id"),
            lambda row: Context(
                "oauth_client",
                (row["scope"], row["definition_name"], *([str(row["instance_id"])] if row["instance_id"] else [])),
            ),
        ),
        WrappedTable(
            "vault.authorizations",
            {"state_hash": "text"},
            ("state_hash", "instance_id"),
            lambda row: Context("authorization", (row["state_hash"], str(row["instance_id"]))),
        ),
        WrappedTable(
            "vault.subscription_secrets",
            _UUID,
            (
                "(SELECT s.scope FROM integrations.subscriptions s WHERE s.id = subscription_id) AS scope",
                "subscription_id",
                "id",
            ),
            lambda row: Context("subscription_secret", (row["scope"], str(row["subscription_id"]), str(row["id"]))),
        ),
        WrappedTable(
            "integrations.large_results",
            _UUID,
            ("id", "instance_id"),
            lambda row: Context("large-result", (str(row["id"]), str(row["instance_id"]))),
            ring=RESULTS,
        ),
        WrappedTable("integrations.response_cache", {"key": "bytea"}),
    )
}
"""Whoever stores an envelope somewhere else adds its table here; a test compares with the database."""


@dataclass(frozen=True)
class Batch:
    """What became of some rows, and the key of the last one: None when there were no more."""

    rewrapped: int = 0
    broken: int = 0
    missing: int = 0
    after: list[str] | None = None


@dataclass(frozen=True)
class KeyUse:
    """How many rows of each table are under a key."""

    key: KeyRef
    rows: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return sum(self.rows.values())


class KeyRotation:
    """Rewraps the rows of one database. `rings` are the key sets by name, `MAIN` and `RESULTS`."""

    def __init__(self, database: Database, rings: Mapping[str, KeyProvider]) -> None:
        self._database = database
        self._rings = rings

    def active(self, ring: str) -> KeyRef:
        """The active key of a key set, as this process sees it now."""
        return self._rings[ring].active

    async def rewrap(
        self, table: WrappedTable, to: KeyRef, *, after: Sequence[str] | None, use: Use, limit: int = BATCH
    ) -> Batch:
        """Wrap the next rows anew that are not under `to`, those behind the key `after`.

        Raises IntegrationError KEY_UNAVAILABLE while this process's active key is another.
        """
        provider = self._rings[table.ring]
        if provider.active != to:
            raise IntegrationError(
                ErrorCode.KEY_UNAVAILABLE, f"{to} is not the active key here (yet): {provider.active} is", path="key"
            )
        rows = await self._next(table, to, after, limit)
        if not rows:
            return Batch()
        position = [str(text) for text in rows[-1]["position"]]
        if table.context is None:
            return Batch(rewrapped=await self._empty(table, rows), after=position)
        moved: list[tuple[dict[str, Any], Wrapped]] = []
        failed = {ErrorCode.INTEGRITY_ERROR: 0, ErrorCode.KEY_UNAVAILABLE: 0}
        for row in rows:
            held = Wrapped(KeyRef(row["key_id"], row["key_version"]), row["wrapped_key"])
            try:
                moved.append((row, await rewrap(provider, held, table.context(row))))
            except IntegrationError as error:
                if error.code not in failed:
                    raise
                failed[ErrorCode(error.code)] += 1
        return Batch(
            rewrapped=await self._write(table, moved, use),
            broken=failed[ErrorCode.INTEGRITY_ERROR],
            missing=failed[ErrorCode.KEY_UNAVAILABLE],
            after=position,
        )

    async def left(self, targets: Mapping[str, KeyRef]) -> dict[str, int]:
        """How many rows of each table are not under their key set's target; tables without any are left out.

        Raises IntegrationError VALIDATION_ERROR for a table that this version does not know how to rewrap.
        """
        found: dict[str, int] = {}
        for name in await wrapped_tables(self._database):
            table = WRAPPED_TABLES.get(name)
            to = targets[table.ring] if table else targets[MAIN]
            row = await self._database.one(
                f"SELECT count(*) AS rows FROM {name} WHERE {_OTHER}",
                {"key_id": to.key_id, "key_version": to.version},
            )
            if row is None or not row["rows"]:
                continue
            if table is None:
                raise IntegrationError(
                    ErrorCode.VALIDATION_ERROR, "this version does not know how to rewrap a table", path=name
                )
            found[name] = row["rows"]
        return found

    async def _next(
        self, table: WrappedTable, to: KeyRef, after: Sequence[str] | None, limit: int
    ) -> list[dict[str, Any]]:
        position = ", ".join(table.order)
        bounds = {f"after_{number}": text for number, text in enumerate(after or ())}
        types = zip(bounds, table.order.values(), strict=bool(after))
        behind = f"AND ({position}) > ({', '.join(f'%({name})s::{kind}' for name, kind in types)})" if after else ""
        return await self._database.all(
            f"""SELECT {", ".join((*table.columns, "key_id", "key_version", "wrapped_key"))},
                       ARRAY[{", ".join(f"({one})::text" for one in table.order)}] AS position
                  FROM {table.name} WHERE {_OTHER} {behind} ORDER BY {position} LIMIT %(limit)s""",
            {"key_id": to.key_id, "key_version": to.version, "limit": limit, **bounds},
        )

    async def _write(self, table: WrappedTable, moved: list[tuple[dict[str, Any], Wrapped]], use: Use) -> int:
        if not moved:
            return 0
        keys = {f"key_{number}": kind for number, kind in enumerate(table.order.values())}
        same = " AND ".join(f"{one} = moved.{name}" for one, name in zip(_qualified(table), keys, strict=True))
        given: dict[str, list[Any]] = {
            name: [row["position"][number] for row, _ in moved] for number, name in enumerate(keys)
        }
        # A line in the log for all that were under one key: nothing was opened but the wraps.
        unwrapped = Counter(KeyRef(row["key_id"], row["key_version"]) for row, _ in moved)
        openings = [Opening(use, "data_key", (table.name, f"{rows} rows"), ref) for ref, rows in unwrapped.items()]
        row = await self._database.one(
            f"""WITH decrypts AS ({INSERT_DECRYPTS}),
                     written AS (
                  UPDATE {table.name} AS t
                     SET wrapped_key = moved.new, key_id = moved.key_id, key_version = moved.key_version
                    FROM unnest({", ".join(f"%({name})s::{kind}[]" for name, kind in keys.items())},
                                %(old)s::bytea[], %(new)s::bytea[], %(key_ids)s::text[], %(key_versions)s::integer[])
                         AS moved ({", ".join(keys)}, old, new, key_id, key_version)
                   WHERE {same} AND t.wrapped_key = moved.old
               RETURNING 1)
               SELECT count(*) AS rows FROM written""",
            {
                **decrypt_parameters(openings),
                **given,
                "old": [row["wrapped_key"] for row, _ in moved],
                "new": [wrapped.wrapped_key for _, wrapped in moved],
                "key_ids": [wrapped.key.key_id for _, wrapped in moved],
                "key_versions": [wrapped.key.version for _, wrapped in moved],
            },
        )
        return int(row["rows"]) if row else 0

    async def _empty(self, table: WrappedTable, rows: list[dict[str, Any]]) -> int:
        [(key, kind)] = table.order.items()
        emptied = await self._database.all(
            f"""UPDATE {table.name} SET ciphertext = NULL, wrapped_key = NULL, key_id = NULL, key_version = NULL
                 WHERE {key} = ANY(%(keys)s::{kind}[]) AND wrapped_key = ANY(%(old)s) RETURNING 1""",
            {"keys": [row["position"][0] for row in rows], "old": [row["wrapped_key"] for row in rows]},
        )
        return len(emptied)


async def wrapped_tables(database: Database) -> list[str]:
    """The tables in which something is wrapped, as the database tells."""
    rows = await database.all("SELECT name FROM integrations.wrapped_tables ORDER BY name")
    return [row["name"] for row in rows]


async def key_use(database: Database) -> list[KeyUse]:
    """Every key that a row names, by id and version."""
    found: dict[KeyRef, dict[str, int]] = {}
    for name in await wrapped_tables(database):
        rows = await database.all(
            f"""SELECT key_id, key_version, count(*) AS rows FROM {name}
                 WHERE wrapped_key IS NOT NULL GROUP BY key_id, key_version"""
        )
        for row in rows:
            found.setdefault(KeyRef(row["key_id"], row["key_version"]), {})[name] = row["rows"]
    return [KeyUse(key, found[key]) for key in sorted(found, key=lambda ref: (ref.key_id, ref.version))]


def _qualified(table: WrappedTable) -> list[str]:
    """The key's expressions, of the table that is written and not of what it is joined with."""
    return [one.replace("(", "(t.") if "(" in one else f"t.{one}" for one in table.order]
