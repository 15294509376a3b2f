"""Cached responses, encrypted, one row a key; the same row says who fetches the answer now.

Every time is the database's own. A response is bound to the moment when its request left, so that neither a late
answer nor a changed row lives longer than its TTL. A claim lets one worker of all fetch; what it brings is kept only
while nobody else has claimed the key since.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg.errors import ForeignKeyViolation

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.storage.cache_key import CacheKey
from integration_service.storage.database import Database
from integration_service.storage.instances import not_found
from integration_service.storage.vault.envelope import ENVELOPE_COLUMNS, Context, Envelope, decrypt, encrypt
from integration_service.storage.vault.keyring import KeyProvider

_SWEEP = 20
"""How many expired rows a writer takes away: more than it adds, few enough to cost it nothing."""
_CLAIMED = "(cached.claimed_until IS NOT NULL AND cached.claimed_until > clock_timestamp())"
_KEPT = "(cached.ciphertext IS NOT NULL AND cached.expires_at > clock_timestamp())"
# An expired body is not even read.
_LOOK = f"""
SELECT asked_at, clock_timestamp() - asked_at AS age,
       {", ".join(name for name in ENVELOPE_COLUMNS if name != "ciphertext")},
       CASE WHEN {_KEPT} THEN ciphertext END AS ciphertext,
       CASE WHEN {_CLAIMED} THEN claimed_at END AS claimed_at,
       CASE WHEN {_CLAIMED} THEN clock_timestamp() - claimed_at END AS held,
       coalesce(unkept_until > clock_timestamp(), false) AS unkept
  FROM integrations.response_cache AS cached WHERE key = %(key)s
"""
_CLAIM = f"""
INSERT INTO integrations.response_cache AS cached
       (key, definition_id, instance_id, claim_id, claimed_at, claimed_until, expires_at)
SELECT %(key)s, %(definition_id)s, %(instance_id)s, %(claim_id)s, clock, clock + %(within)s, clock + %(within)s
  FROM (SELECT clock_timestamp() AS clock) AS now
ON CONFLICT (key) DO UPDATE
   SET claim_id = excluded.claim_id, claimed_at = excluded.claimed_at, claimed_until = excluded.claimed_until
 WHERE NOT {_CLAIMED} AND (%(anew)s OR NOT {_KEPT})
RETURNING claimed_at
"""
# By the statement's time: an index serves no `clock_timestamp()`, which is another time at each row.
_STORE = f"""
WITH swept AS (
    DELETE FROM integrations.response_cache WHERE key IN (
        SELECT key FROM integrations.response_cache AS cached
         WHERE expires_at < statement_timestamp() AND NOT {_CLAIMED} AND key <> %(key)s
         ORDER BY expires_at LIMIT {_SWEEP} FOR UPDATE SKIP LOCKED)
)
UPDATE integrations.response_cache
   SET claim_id = NULL, claimed_until = NULL, unkept_until = NULL,
       asked_at = claimed_at, expires_at = claimed_at + %(ttl)s,
       {", ".join(f"{name} = %({name})s" for name in ENVELOPE_COLUMNS)}
 WHERE key = %(key)s AND claim_id = %(claim_id)s AND claimed_at + %(ttl)s > clock_timestamp()
RETURNING key
"""
_RELEASE = """
UPDATE integrations.response_cache
   SET claim_id = NULL, claimed_until = NULL, unkept_until = clock_timestamp() + %(unkept)s
 WHERE key = %(key)s AND claim_id = %(claim_id)s
"""


@dataclass(frozen=True)
class Claim:
    """The right to fetch a key's answer. `at` is when it was taken: the request leaves later."""

    id: str
    at: datetime


@dataclass(frozen=True)
class CachedResponse:
    """A response as it was stored, and when its request had left."""

    body: bytes
    asked_at: datetime
    age: timedelta


@dataclass(frozen=True)
class Look:
    """How a key stands: what is cached; since when somebody fetches, and how long ago that was; and whether its
    answers cannot be kept, so that nobody need wait for anybody."""

    cached: CachedResponse | None = None
    claimed_at: datetime | None = None
    held: timedelta = timedelta(0)
    unkept: bool = False


class CachedResponses:
    """The response cache of one database."""

    def __init__(self, database: Database, provider: KeyProvider) -> None:
        self._database = database
        self._provider = provider

    async def look(self, key: CacheKey, *, ttl: timedelta) -> Look:
        """How the key stands. A body that does not open is none, and its row goes. Raises IntegrationError
        UNAVAILABLE."""
        row = await self._database.one(_LOOK, {"key": key.digest})
        if row is None:
            return Look()
        return Look(
            cached=await self._opened(key, row, ttl) if row["ciphertext"] is not None else None,
            claimed_at=row["claimed_at"],
            held=row["held"] or timedelta(0),
            unkept=row["unkept"],
        )

    async def claim(self, key: CacheKey, *, within: timedelta, anew: bool = False) -> Claim | None:
        """Take the key's claim for `within`; None when another has it, or when there is an answer by now.

        `anew` does not mind the answer that is there. Raises IntegrationError INSTANCE_NOT_FOUND or UNAVAILABLE.
        """
        claim_id = str(uuid.uuid4())
        try:
            row = await self._database.one(
                _CLAIM,
                {
                    "key": key.digest,
                    "definition_id": key.definition_id,
                    "instance_id": key.instance_id,
                    "claim_id": claim_id,
                    "within": within,
                    "anew": anew,
                },
            )
        except ForeignKeyViolation:
            raise not_found(str(key.instance_id)) from None
        return Claim(claim_id, row["claimed_at"]) if row else None

    async def store(self, key: CacheKey, claim: Claim, body: bytes, *, ttl: timedelta) -> bool:
        """Keep `body` until `ttl` after the claim and end the claim. False when the claim is another's by now, the
        row was forgotten meanwhile, or the time is over. Raises IntegrationError UNAVAILABLE or KEY_UNAVAILABLE."""
        envelope = await encrypt(self._provider, body, _context(key, claim.at))
        row = await self._database.one(
            _STORE, {"key": key.digest, "claim_id": claim.id, "ttl": ttl, **envelope.to_row()}
        )
        return row is not None

    async def release(self, key: CacheKey, claim: Claim, *, unkept: timedelta = timedelta(0)) -> None:
        """End the claim without an answer, so that the next may try at once; for `unkept` nobody need claim."""
        await self._database.one(_RELEASE, {"key": key.digest, "claim_id": claim.id, "unkept": unkept})

    async def forget(self, instance_id: str) -> None:
        """Erase what is cached for an instance alone; a fetch that is under way is not kept either."""
        await self._database.one(
            "DELETE FROM integrations.response_cache WHERE instance_id = %(id)s", {"id": instance_id}
        )

    async def _opened(self, key: CacheKey, row: dict[str, Any], ttl: timedelta) -> CachedResponse | None:
        if row["age"] >= ttl:
            return None
        try:
            body = await decrypt(self._provider, Envelope.from_row(row), _context(key, row["asked_at"]))
        except IntegrationError as error:
            if error.code not in (ErrorCode.INTEGRITY_ERROR, ErrorCode.KEY_UNAVAILABLE):
                raise
            # That row only: another may have come in its place.
            await self._database.one(
                "DELETE FROM integrations.response_cache WHERE key = %(key)s AND nonce = %(nonce)s",
                {"key": key.digest, "nonce": row["nonce"]},
            )
            return None
        return CachedResponse(body=body, asked_at=row["asked_at"], age=row["age"])


def _context(key: CacheKey, asked_at: datetime) -> Context:
    whose = key.instance_id or "shared"
    return Context(
        "response-cache", (key.digest.hex(), key.scope, whose, key.method, asked_at.astimezone(UTC).isoformat())
    )
