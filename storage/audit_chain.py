"""The execution log's seals: a hash chain over batches of rows, so that a row changed, removed or slipped in shows.

Rows are covered in the order of (recorded_xid, seq), and only below the oldest transaction that still runs: there no
row can appear any more. A batch's hash is made of one hash a month, so that a month can be dropped and what else the
batch holds still be checked. Each seal's hash holds the one before it; who keeps the newest elsewhere, as the log does,
can tell that the whole chain was not made anew.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from integration_service.storage.audit_seal import NO_SEAL, Seal, broken_link
from integration_service.storage.database import Database
from integration_service.storage.execution import COLUMNS

BATCH = 10_000
SETTLED_AFTER = timedelta(minutes=5)
_PAGE = 500
_ALL = (1 << 63) - 1


def _encoded(name: str) -> str:
    return f"(extract(epoch FROM {name}) * 1000000)::bigint" if name.endswith("_at") else name


# JSON tells null from "" and 1 from "1", and holds no line end. Times are microseconds: no setting changes them.
_ROW = f"json_build_array({', '.join(_encoded(name) for name in (*COLUMNS, 'recorded_at', 'recorded_xid', 'seq'))})"
_RANGE = """(recorded_xid, seq) > (%(from_xid)s, %(from_seq)s) AND (recorded_xid, seq) <= (%(to_xid)s, %(to_seq)s)
   AND seq > %(floor)s AND seq <= %(ceiling)s"""
_PARTS = f"""
SELECT to_char(scheduled_at AT TIME ZONE 'UTC', 'YYYY-MM') AS month, count(*) AS rows, max(seq) AS max_seq,
       encode(sha256(convert_to(string_agg({_ROW}::text, E'\\n' ORDER BY recorded_xid, seq), 'UTF8')), 'hex') AS hash
  FROM audit.executions
 WHERE {_RANGE} AND (%(since)s::timestamptz IS NULL OR scheduled_at >= %(since)s)
 GROUP BY 1 ORDER BY 1
"""
# What is young waits, with all that comes after it, so that a quiet time makes few seals; a time to come is not young.
_NEXT = """
SELECT recorded_xid, seq FROM (
    SELECT recorded_xid, seq, bool_or(recorded_at BETWEEN now() - %(settled)s AND now())
                              OVER (ORDER BY recorded_xid, seq) AS waits
      FROM (SELECT recorded_xid, seq, recorded_at FROM audit.executions
             WHERE (recorded_xid, seq) > (%(from_xid)s, %(from_seq)s) AND seq > %(floor)s
               AND (%(restored)s OR recorded_xid < pg_snapshot_xmin(pg_current_snapshot())::text::bigint)
             ORDER BY recorded_xid, seq LIMIT %(batch)s) AS batch) AS batch
 WHERE NOT waits ORDER BY recorded_xid DESC, seq DESC LIMIT 1
"""
# A number that was given before is ahead of the counter only where a dump was restored into another cluster.
_RESTORED = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint <= %(through_xid)s AS restored"


@dataclass(frozen=True)
class BadSeal:
    """The first seal that does not hold, and why: a sentence without values."""

    number: int
    reason: str


@dataclass(frozen=True)
class Verification:
    """What a check of the whole chain found. Rows of before `dropped_before` were dropped and are not looked at;
    `first` is the first seal of which rows are left."""

    seals: int
    rows: int
    first: int | None
    dropped_before: datetime | None
    head: bytes
    bad: BadSeal | None = None


@dataclass(frozen=True)
class _Extent:
    """Rows after `start` up to `through`, of one era."""

    era: int
    floor: int
    start: tuple[int, int]
    through: tuple[int, int] | None = None


class AuditChain:
    """The seals of one database."""

    def __init__(self, database: Database, *, settled_after: timedelta = SETTLED_AFTER, batch: int = BATCH) -> None:
        self._database = database
        self._settled_after = settled_after
        self._batch = batch

    async def head(self) -> Seal | None:
        """The newest seal."""
        row = await self._database.one("SELECT * FROM audit.seals ORDER BY number DESC LIMIT 1", {})
        return Seal.read(row) if row else None

    async def seal(self, *, drop_before: datetime | None = None) -> Seal | None:
        """Seal the next batch; None when there is nothing to seal.

        `drop_before`, the first of a month, announces that rows of older months may go; a seal without rows says so
        where there are none to seal.
        Of two that seal at once one fails by the key of `audit.seals`: nothing is sealed twice.
        """
        last = await self.head() or NO_SEAL
        extent = await self._extent(last)
        dropped = max((moment for moment in (last.dropped_before, drop_before) if moment), default=None)
        if extent.through is None and dropped == last.dropped_before:
            return None
        parts = [] if extent.through is None else await self._parts(extent, extent.through)
        at = extent.through or extent.start
        seal = Seal(
            number=last.number + 1,
            era=extent.era,
            floor_seq=extent.floor,
            through_xid=at[0],
            through_seq=at[1],
            max_seq=max([last.max_seq, *(part["max_seq"] for part in parts)]),
            parts=tuple((part["month"], part["rows"], part["hash"]) for part in parts),
            dropped_before=dropped,
            previous_hash=last.hash,
            sealed_at=datetime.now(UTC),
        )
        return await self._write(seal)

    async def verify(self, *, progress: Callable[[Seal], None] = lambda _: None) -> Verification:
        """Compute every seal anew, oldest first, and stop at the first that does not hold."""
        while True:
            broken, since = await self._check_links()
            found = await self._check_rows(broken, since, progress)
            if found.bad is None or found.bad == broken or (await self._check_links())[1] == since:
                return found
            # A month was dropped while it was being checked.

    async def _check_links(self) -> tuple[BadSeal | None, datetime | None]:
        """The first seal that does not follow, and before what the sound ones say that rows may be dropped."""
        last, since = NO_SEAL, None
        async for seal in self._seals():
            if (reason := broken_link(last, seal)) is not None:
                return BadSeal(seal.number, reason), since
            last, since = seal, seal.dropped_before
        return None, since

    async def _check_rows(
        self, broken: BadSeal | None, since: datetime | None, progress: Callable[[Seal], None]
    ) -> Verification:
        ceilings = await self._ceilings()
        last, rows, first, bad = NO_SEAL, 0, None, broken
        async for seal in self._seals():
            if broken is not None and seal.number >= broken.number:
                break
            if (reason := await self._broken_rows(last, seal, since, ceilings)) is not None:
                bad = BadSeal(seal.number, reason)
                break
            left = sum(count for month, count, _ in seal.parts if _is_left(month, since))
            rows += left
            if left and first is None:
                first = seal.number
            last = seal
            progress(seal)
        return Verification(last.number, rows, first, since, last.hash, bad)

    async def holds(self, head: bytes) -> bool:
        """Whether some seal has that hash: a chain that was made anew has not."""
        return await self._database.one("SELECT 1 FROM audit.seals WHERE hash = %(hash)s", {"hash": head}) is not None

    async def unsealed(self) -> int:
        """How many rows no seal covers yet."""
        last = await self.head() or NO_SEAL
        row = await self._database.one(
            """SELECT count(*) AS rows FROM audit.executions
                WHERE (recorded_xid, seq) > (%(xid)s, %(seq)s) AND seq > %(floor)s""",
            {"xid": last.through_xid, "seq": last.through_seq, "floor": last.floor_seq},
        )
        return int(row["rows"]) if row else 0

    async def _extent(self, last: Seal) -> _Extent:
        """What the next seal covers; `through` is None while there is nothing."""
        found = await self._database.one(_RESTORED, {"through_xid": last.through_xid})
        restored = bool(found and found["restored"])
        extent = _Extent(last.era, last.floor_seq, (last.through_xid, last.through_seq))
        through = await self._next(extent, restored=restored)
        if through is None and restored:
            # All of the old cluster is sealed: from here on the new one's numbers count.
            anew = _Extent(last.era + 1, last.max_seq, (0, 0))
            through = await self._next(anew, restored=False)
            extent = anew if through else extent
        return replace(extent, through=through)

    async def _next(self, extent: _Extent, *, restored: bool) -> tuple[int, int] | None:
        values = {"from_xid": extent.start[0], "from_seq": extent.start[1], "floor": extent.floor}
        settings = {"restored": restored, "settled": self._settled_after, "batch": self._batch}
        row = await self._database.one(_NEXT, {**values, **settings})
        return (row["recorded_xid"], row["seq"]) if row else None

    async def _parts(
        self, extent: _Extent, through: tuple[int, int], *, ceiling: int = _ALL, since: datetime | None = None
    ) -> list[dict[str, Any]]:
        values = {"from_xid": extent.start[0], "from_seq": extent.start[1], "to_xid": through[0], "to_seq": through[1]}
        limits = {"floor": extent.floor, "ceiling": ceiling, "since": since}
        return await self._database.all(_PARTS, {**values, **limits})

    async def _write(self, seal: Seal) -> Seal:
        values = {field.name: getattr(seal, field.name) for field in fields(seal)}
        await self._database.one(
            f"""INSERT INTO audit.seals ({", ".join(values)})
                VALUES ({", ".join(f"%({name})s" for name in values)})""",
            {**values, "parts": json.dumps(seal.parts), "hash": seal.digest()},
        )
        return replace(seal, hash=seal.digest())

    async def _seals(self) -> AsyncIterator[Seal]:
        after = 0
        while page := await self._database.all(
            f"SELECT * FROM audit.seals WHERE number > %(after)s ORDER BY number LIMIT {_PAGE}", {"after": after}
        ):
            for row in page:
                yield Seal.read(row)
            after = page[-1]["number"]

    async def _ceilings(self) -> dict[int, int]:
        """The greatest seq of each era that has ended: the floor of the next."""
        rows = await self._database.all("SELECT era, min(floor_seq) AS floor FROM audit.seals GROUP BY era")
        return {row["era"] - 1: row["floor"] for row in rows}

    async def _broken_rows(
        self, last: Seal, seal: Seal, since: datetime | None, ceilings: dict[int, int]
    ) -> str | None:
        start = (last.through_xid, last.through_seq) if seal.era == last.era else (0, 0)
        parts = await self._parts(
            _Extent(seal.era, seal.floor_seq, start),
            (seal.through_xid, seal.through_seq),
            ceiling=ceilings.get(seal.era, _ALL),
            since=since,
        )
        found = {part["month"]: (part["rows"], part["hash"]) for part in parts}
        sealed = {month: (rows, hashed) for month, rows, hashed in seal.parts if _is_left(month, since)}
        for month in sorted({*found, *sealed}):
            here, was = found.get(month, (0, "")), sealed.get(month, (0, ""))
            if here[0] < was[0]:
                return f"{was[0] - here[0]} of {was[0]} rows of {month} are missing"
            if here[0] > was[0]:
                return f"{here[0] - was[0]} rows of {month} were added"
            if here != was:
                return f"rows of {month} were changed"
        return None


def _is_left(month: str, since: datetime | None) -> bool:
    return since is None or month >= f"{since.astimezone(UTC):%Y-%m}"
