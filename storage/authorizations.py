"""Authorizations under way: what the callback, or the device's polling, needs to end what was begun."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.oauth import state_hash
from integration_service.contracts.wire import JsonObject
from integration_service.storage.database import Database
from integration_service.storage.instances import not_found
from integration_service.storage.vault.envelope import ENVELOPE_COLUMNS, Context, Envelope, decrypt, encrypt
from integration_service.storage.vault.keyring import KeyProvider

__all__ = ["Authorizations", "PendingRow", "pending", "state_hash"]

_ENVELOPE = ", ".join(ENVELOPE_COLUMNS)
_VALUES = ", ".join(f"%({name})s" for name in ENVELOPE_COLUMNS)
_OPEN = "claimed_by IS NULL AND stored_at IS NULL AND expires_at > clock_timestamp()"


@dataclass(frozen=True)
class PendingRow:
    """An authorization that can still be completed: whose it is, and where the browser goes afterwards."""

    instance_id: str
    return_url: str | None


async def pending(database: Database, hashed: str) -> PendingRow | None:
    """The unexpired, unclaimed authorization of a state's hash, or None. Needs no keyring and uses nothing up."""
    row = await database.one(
        f"SELECT instance_id, return_url FROM vault.authorizations WHERE state_hash = %(hashed)s AND {_OPEN}",
        {"hashed": hashed},
    )
    return PendingRow(str(row["instance_id"]), row["return_url"]) if row else None


class Authorizations:
    """The authorizations of one database. Times are the database's own."""

    def __init__(self, database: Database, provider: KeyProvider) -> None:
        self._database = database
        self._provider = provider

    async def begin(
        self,
        *,
        hashed: str,
        instance_id: str,
        scope: str,
        return_url: str | None,
        secret: JsonObject,
        lifetime: timedelta,
    ) -> datetime:
        """Keep a new authorization, the only one of its instance; returns when it expires.

        `secret` (PKCE verifier, nonce, device code) is encrypted and bound to the state and the instance.
        Raises IntegrationError INSTANCE_NOT_FOUND.
        """
        envelope = await encrypt(self._provider, json.dumps(secret).encode(), _context(hashed, instance_id))
        values = {
            "hashed": hashed,
            "instance_id": instance_id,
            "scope": scope,
            "return_url": return_url,
            "lifetime": lifetime,
            **envelope.to_row(),
        }
        async with self._database.transaction() as connection:
            # Locked first: of two that begin at once, the second then sees the first's row and erases it.
            found = await connection.execute(
                b"""SELECT 1 FROM integrations.instances
                     WHERE id = %(instance_id)s AND scope = %(scope)s FOR NO KEY UPDATE""",
                values,
            )
            if await found.fetchone() is None:
                raise not_found(instance_id)
            # An expired row stays for a day, so that who comes late is told so.
            await connection.execute(
                b"""WITH stale AS (
                      DELETE FROM vault.authorizations WHERE state_hash IN (
                          SELECT state_hash FROM vault.authorizations
                           WHERE expires_at < statement_timestamp() - interval '1 day'
                             AND instance_id <> %(instance_id)s FOR UPDATE SKIP LOCKED))
                    DELETE FROM vault.authorizations WHERE instance_id = %(instance_id)s""",
                values,
            )
            written = await connection.execute(
                f"""INSERT INTO vault.authorizations (state_hash, instance_id, return_url, expires_at, {_ENVELOPE})
                    VALUES (%(hashed)s, %(instance_id)s, %(return_url)s, clock_timestamp() + %(lifetime)s, {_VALUES})
                    RETURNING expires_at""".encode(),
                values,
            )
            [row] = await written.fetchall()
            expires_at: datetime = row["expires_at"]
            return expires_at

    async def claim(self, hashed: str, instance_id: str, *, claimant: str) -> JsonObject:
        """Take an authorization for `claimant`, once; the same claimant may come again. Returns the secret.

        Raises IntegrationError VALIDATION_ERROR (path ``state``) for a state that is unknown or of another
        instance, used, or expired; INTEGRITY_ERROR or KEY_UNAVAILABLE.
        """
        # RFC 6749 §10.12, RFC 9700 §4.7: a state is good for one callback. Who claimed in time may end late.
        row = await self._database.one(
            f"""UPDATE vault.authorizations SET claimed_by = %(claimant)s
                 WHERE state_hash = %(hashed)s AND instance_id = %(instance_id)s
                   AND (claimed_by = %(claimant)s OR ({_OPEN}))
                RETURNING {_ENVELOPE}""",
            {"hashed": hashed, "instance_id": instance_id, "claimant": claimant},
        )
        if row is None:
            raise await self._refusal(hashed, instance_id)
        return await self._open(row, hashed, instance_id)

    async def leaves(self, hashed: str, *, claimant: str) -> bool:
        """Commit that the code is about to be sent.

        False when that was committed before, by an attempt that may have spent the code, or when the
        authorization is not the claimant's.
        """
        row = await self._database.one(
            """UPDATE vault.authorizations SET sent_at = clock_timestamp()
                WHERE state_hash = %(hashed)s AND claimed_by = %(claimant)s AND sent_at IS NULL
               RETURNING state_hash""",
            {"hashed": hashed, "claimant": claimant},
        )
        return row is not None

    async def is_stored(self, hashed: str, *, claimant: str | None = None) -> bool:
        """Whether the tokens of the claimant's authorization were stored."""
        row = await self._database.one(
            """SELECT 1 FROM vault.authorizations
                WHERE state_hash = %(hashed)s AND claimed_by IS NOT DISTINCT FROM %(claimant)s::text
                  AND stored_at IS NOT NULL""",
            {"hashed": hashed, "claimant": claimant},
        )
        return row is not None

    async def read(self, hashed: str, instance_id: str) -> JsonObject | None:
        """The secret of an unexpired, unclaimed and unused authorization, or None. Uses nothing up."""
        row = await self._database.one(
            f"""SELECT {_ENVELOPE} FROM vault.authorizations
                 WHERE state_hash = %(hashed)s AND instance_id = %(instance_id)s AND {_OPEN}""",
            {"hashed": hashed, "instance_id": instance_id},
        )
        return await self._open(row, hashed, instance_id) if row else None

    async def erase(self, instance_id: str) -> None:
        """Delete what is under way for an instance."""
        await self._database.one(
            "DELETE FROM vault.authorizations WHERE instance_id = %(instance_id)s", {"instance_id": instance_id}
        )

    async def _open(self, row: dict[str, Any], hashed: str, instance_id: str) -> JsonObject:
        plaintext = await decrypt(self._provider, Envelope.from_row(row), _context(hashed, instance_id))
        secret: JsonObject = json.loads(plaintext)
        return secret

    async def _refusal(self, hashed: str, instance_id: str) -> IntegrationError:
        row = await self._database.one(
            """SELECT claimed_by IS NOT NULL OR stored_at IS NOT NULL AS used FROM vault.authorizations
                WHERE state_hash = %(hashed)s AND instance_id = %(instance_id)s""",
            {"hashed": hashed, "instance_id": instance_id},
        )
        if row is None:
            sentence = "no authorization of this instance has that state"
        elif row["used"]:
            sentence = "that state was used already; begin a new authorization"
        else:
            sentence = "that authorization has expired; begin a new one"
        return IntegrationError(ErrorCode.VALIDATION_ERROR, sentence, path="state")


def _context(hashed: str, instance_id: str) -> Context:
    return Context("authorization", (hashed, instance_id))
