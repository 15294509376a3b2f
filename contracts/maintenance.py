"""`MaintainStorage`: the names, and what its steps answer."""

from __future__ import annotations

from pydantic import Field

from integration_service.contracts.wire import AnswerModel

MAINTAIN_STORAGE = "MaintainStorage"
MAINTENANCE_SCHEDULE = "maintain-storage"

PREPARE_PARTITIONS = "PreparePartitions"
SEAL_AUDIT = "SealAudit"
DROP_PARTITIONS = "DropPartitions"
SWEEP_LEFTOVERS = "SweepLeftovers"

PARTITION_MISSING = "partition_missing"
"""The alert: months had begun, or had rows, and no partition."""
TOKEN_NOT_REVOKED = "token_not_revoked"  # noqa: S105 - a kind of alert
"""The alert: a provider still has a token that was given up here; somebody may revoke it there."""
SEALED = "sealed"
"""The news of a new head."""


class PartitionsPrepared(AnswerModel):
    """Months as ``2026-11``. `missed` had begun, or had rows, before they had a partition."""

    created: list[str] = Field(default_factory=list)
    missed: list[str] = Field(default_factory=list)
    locked_ms: int = 0


class AuditSealed(AnswerModel):
    """How many seals and rows were added; `head` is the newest hash in hex. `more` rows wait."""

    seals: int = 0
    rows: int = 0
    head: str | None = None
    more: bool = False


class PartitionsDropped(AnswerModel):
    """The names of the partitions that went."""

    dropped: list[str] = Field(default_factory=list)


class LeftoversSwept(AnswerModel):
    """How many rows went, by table."""

    deleted: dict[str, int] = Field(default_factory=dict)
    more: bool = False


class MaintenanceReport(AnswerModel):
    """What one run did."""

    created: list[str] = Field(default_factory=list)
    missed: list[str] = Field(default_factory=list)
    sealed_rows: int = 0
    head: str | None = None
    dropped: list[str] = Field(default_factory=list)
    deleted: dict[str, int] = Field(default_factory=dict)
