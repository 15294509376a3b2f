"""One link of the execution log's hash chain."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any


@dataclass(frozen=True)
class Seal:
    """One link. `parts` are (month, rows, hash in hex); the other fields are those of `audit.seals`."""

    number: int
    era: int
    floor_seq: int
    through_xid: int
    through_seq: int
    max_seq: int
    parts: tuple[tuple[str, int, str], ...]
    dropped_before: datetime | None
    previous_hash: bytes
    sealed_at: datetime
    hash: bytes = b""

    def digest(self) -> bytes:
        """SHA-256 over all fields but the hash itself, as JSON; times in microseconds."""
        value = [_plain(getattr(self, field.name)) for field in fields(self) if field.name != "hash"]
        return hashlib.sha256(json.dumps(value, separators=(",", ":")).encode()).digest()

    @property
    def rows(self) -> int:
        return sum(rows for _, rows, _ in self.parts)

    @classmethod
    def read(cls, row: dict[str, Any]) -> Seal:
        """From a row of `audit.seals`; parts that somebody made unreadable are none, so that the hash tells."""
        try:
            parts = tuple((str(month), int(rows), str(hashed)) for month, rows, hashed in row["parts"])
        except (TypeError, ValueError):
            parts = ()
        return cls(**{field.name: row[field.name] for field in fields(cls) if field.name != "parts"}, parts=parts)


NO_SEAL = Seal(0, 0, 0, 0, 0, 0, (), None, b"", datetime.min.replace(tzinfo=UTC), bytes(32))
"""What the first seal follows."""


def broken_link(last: Seal, seal: Seal) -> str | None:
    """Why a seal does not follow from the one before it, whatever the rows are; None when it does."""
    if seal.number != last.number + 1:
        return f"{seal.number - last.number - 1} seals before it are missing"
    if seal.digest() != seal.hash:
        return "the seal itself was changed"
    if seal.previous_hash != last.hash:
        return "it does not follow from the seal before it"
    same_era = seal.era == last.era or last.number == 0
    if same_era and (seal.through_xid, seal.through_seq) < (last.through_xid, last.through_seq):
        return "it goes back behind the seal before it"
    return None


def _plain(value: object) -> object:
    match value:
        case bytes():
            return value.hex()
        case datetime():
            return (value - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
        case _:
            return value
