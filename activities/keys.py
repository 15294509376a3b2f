"""What `RotateKeys` has done: it wraps anew, a while at a time, and counts what is left."""

from __future__ import annotations

import time
from datetime import timedelta

from temporalio import activity

from integration_service.activities.failures import typed
from integration_service.activities.openings import current_use
from integration_service.contracts import keys as names
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.keys import KeyName, Left, Rewrap, Rewrapped, RotateKeys, WrappedTables
from integration_service.storage.key_rotation import MAIN, RESULTS, WRAPPED_TABLES, KeyRotation
from integration_service.storage.vault.keyring import KeyRef

_WHILE = timedelta(seconds=10)
"""Long enough to keep the history short, short enough that a killed worker's successor repeats little."""


class KeyActivities:
    """What runs on the control queue for `RotateKeys`."""

    def __init__(self, rotation: KeyRotation) -> None:
        self._rotation = rotation

    @activity.defn(name=names.LIST_WRAPPED)
    async def list_wrapped(self, to: RotateKeys) -> WrappedTables:
        """The tables to do."""
        return WrappedTables(names=list(WRAPPED_TABLES))

    @activity.defn(name=names.REWRAP)
    async def rewrap(self, wanted: Rewrap) -> Rewrapped:
        """Wrap a table's rows anew, for ten seconds or to its end. An attempt goes on where the last one stopped.

        Raises KEY_UNAVAILABLE, and is tried again, until this worker's keyring has the wanted key as its active one.
        """
        async with typed():
            table = WRAPPED_TABLES.get(wanted.table)
            if table is None:
                raise IntegrationError(ErrorCode.VALIDATION_ERROR, "no table of that name is known", path="table")
            done = _noted() or Rewrapped(after=wanted.after)
            until = time.monotonic() + _WHILE.total_seconds()
            while True:
                batch = await self._rotation.rewrap(
                    table, _targets(wanted.to)[table.ring], after=done.after, use=current_use()
                )
                done = Rewrapped(
                    rewrapped=done.rewrapped + batch.rewrapped,
                    broken=done.broken + batch.broken,
                    missing=done.missing + batch.missing,
                    after=batch.after,
                )
                if batch.after is None or time.monotonic() > until:
                    return done
                activity.heartbeat(done.to_wire())

    @activity.defn(name=names.COUNT_LEFT)
    async def count_left(self, to: RotateKeys) -> Left:
        """How many rows are under other keys."""
        async with typed():
            return Left(rows=await self._rotation.left(_targets(to)))


def _noted() -> Rewrapped | None:
    """How far the attempt before this one came."""
    noted = activity.info().heartbeat_details
    return Rewrapped.model_validate(noted[0]) if noted else None


def _targets(to: RotateKeys) -> dict[str, KeyRef]:
    return {MAIN: _ref(to.active), RESULTS: _ref(to.results or to.active)}


def _ref(name: KeyName) -> KeyRef:
    return KeyRef(name.id, name.version)
