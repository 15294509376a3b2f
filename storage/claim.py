"""The claim on an authorization: whoever stores its tokens uses it up with the same commit."""

from __future__ import annotations

from dataclasses import dataclass

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.storage.database import Connection

OUTDATE_SUBMISSIONS = b"""
UPDATE integrations.instances SET submitted_at = greatest(submitted_at + interval '1 microsecond', %(at)s)
 WHERE id = %(id)s
"""
"""What was submitted before and is not stored yet will not be. Locks the instance."""


@dataclass(frozen=True)
class Claim:
    """Leave to store the tokens of one authorization, once. A device's polls claim nothing: there is one poller."""

    state_hash: str
    claimant: str | None = None


async def use_up(connection: Connection, claim: Claim, instance_id: str) -> None:
    """Within the transaction that stores its tokens: the authorization must still be the claimant's, and unused.

    Locks the instance first, as whoever begins or erases an authorization does. Raises IntegrationError
    VALIDATION_ERROR (path ``state``) when it was given up, or replaced by a newer one.
    """
    values = {"instance_id": instance_id, "hashed": claim.state_hash, "claimant": claim.claimant}
    await connection.execute(OUTDATE_SUBMISSIONS, {"id": instance_id, "at": None})
    used = await connection.execute(
        b"""UPDATE vault.authorizations SET stored_at = clock_timestamp()
             WHERE state_hash = %(hashed)s AND instance_id = %(instance_id)s
               AND claimed_by IS NOT DISTINCT FROM %(claimant)s::text AND stored_at IS NULL
            RETURNING state_hash""",
        values,
    )
    if await used.fetchone() is None:
        raise IntegrationError(
            ErrorCode.VALIDATION_ERROR,
            "that authorization was given up or replaced while its code was exchanged; begin a new one",
            path="state",
        )
