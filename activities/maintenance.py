"""The steps of `MaintainStorage`: each may be run again at any time, and by two workers at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from psycopg.errors import UniqueViolation
from temporalio import activity

from integration_service.activities.failures import typed
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.maintenance import (
    DROP_PARTITIONS,
    PARTITION_MISSING,
    PREPARE_PARTITIONS,
    SEAL_AUDIT,
    SEALED,
    SWEEP_LEFTOVERS,
    AuditSealed,
    LeftoversSwept,
    PartitionsDropped,
    PartitionsPrepared,
)
from integration_service.contracts.wire import JsonObject, format_time
from integration_service.storage.audit_chain import AuditChain
from integration_service.storage.audit_months import month_of
from integration_service.storage.audit_partitions import AuditPartitions
from integration_service.storage.audit_stats import AuditStats
from integration_service.storage.decrypt_log import DecryptLog
from integration_service.storage.leftovers import Leftovers
from integration_service.storage.upstream_health import BreakerRows

_SEALS_AT_ONCE = 20
_SWEEPS_AT_ONCE = 10
_LOG = logging.getLogger(__name__)

Notify = Callable[[str, JsonObject], Awaitable[None]]


async def _nobody(_kind: str, _data: JsonObject) -> None:
    """Where no events are published."""


class MaintenanceActivities:
    """What runs on the control queue for `MaintainStorage`.

    `notify` publishes what somebody should know: ``partition_missing`` ``{"months"}``, ``sealed``
    ``{"number", "rows", "head", "sealedAt"}``. Both are logged in any case.
    """

    def __init__(
        self,
        *,
        partitions: AuditPartitions,
        chain: AuditChain,
        stats: AuditStats,
        leftovers: Leftovers,
        breakers: BreakerRows,
        decrypts: DecryptLog,
        retention: timedelta,
        notify: Notify = _nobody,
    ) -> None:
        self._partitions = partitions
        self._chain = chain
        self._stats = stats
        self._leftovers = leftovers
        self._breakers = breakers
        self._decrypts = decrypts
        self._retention = retention
        self._notify = notify

    @activity.defn(name=PREPARE_PARTITIONS)
    async def prepare(self) -> PartitionsPrepared:
        """Make the partitions of this month and the next ones, and empty the default one into them."""
        async with typed():
            found = await self._partitions.prepare(
                keep=self._retention, dropped_before=await self._announced(), progress=activity.heartbeat
            )
            if found.missed:
                months = ", ".join(found.missed)
                sentence = f"the execution log had no partition for {months}; its rows were kept and moved"
                _LOG.warning("%s: %s", PARTITION_MISSING, sentence)
                await self._stats.alert(PARTITION_MISSING, sentence)
                await self._notify(PARTITION_MISSING, {"months": list(found.missed)})
            return PartitionsPrepared(
                created=list(found.created),
                missed=list(found.missed),
                locked_ms=round(found.locked_for / timedelta(milliseconds=1)),
            )

    @activity.defn(name=SEAL_AUDIT)
    async def seal(self) -> AuditSealed:
        """Seal what is settled, up to so many batches, and announce what retention lets go."""
        async with typed():
            last, rows, seals = None, 0, 0
            try:
                while seals < _SEALS_AT_ONCE and (seal := await self._chain.seal(drop_before=self._cutoff())):
                    last, rows, seals = seal, rows + seal.rows, seals + 1
                    activity.heartbeat()
            except UniqueViolation:
                raise IntegrationError(ErrorCode.UNAVAILABLE, "another worker seals the execution log") from None
            if last is None:
                head = await self._chain.head()
                return AuditSealed(head=head.hash.hex() if head else None)
            _LOG.info("audit head: seal %d, %s", last.number, last.hash.hex())
            news = {"number": last.number, "rows": rows, "head": last.hash.hex()}
            await self._notify(SEALED, {**news, "sealedAt": format_time(last.sealed_at)})
            return AuditSealed(seals=seals, rows=rows, head=last.hash.hex(), more=seals == _SEALS_AT_ONCE)

    @activity.defn(name=DROP_PARTITIONS)
    async def drop(self) -> PartitionsDropped:
        """Drop the months that are older than the retention, once a seal has announced them."""
        async with typed():
            before = await self._announced()
            dropped = await self._partitions.drop(before=before) if before else ()
            if dropped:
                _LOG.info("audit retention dropped %s", ", ".join(dropped))
            return PartitionsDropped(dropped=list(dropped))

    @activity.defn(name=SWEEP_LEFTOVERS)
    async def sweep(self) -> LeftoversSwept:
        """Delete what nobody will ask for again, up to so many batches."""
        async with typed():
            await self._breakers.delete_stale()
            await self._decrypts.prune(self._retention)
            await self._stats.prune_alerts(self._retention)
            total: dict[str, int] = {}
            more = True
            for _ in range(_SWEEPS_AT_ONCE):
                deleted, more = await self._leftovers.sweep()
                activity.heartbeat()
                for table, count in deleted.items():
                    total[table] = total.get(table, 0) + count
                if not more:
                    break
                # Calls come first: between batches they have the disk and the locks.
                await asyncio.sleep(0.05)
            return LeftoversSwept(deleted=total, more=more)

    def _cutoff(self) -> datetime:
        return month_of(datetime.now(UTC) - self._retention)

    async def _announced(self) -> datetime | None:
        """Before what rows may go: as a seal has said, and not more than the retention allows today."""
        head = await self._chain.head()
        return min(head.dropped_before, self._cutoff()) if head and head.dropped_before else None
