"""What `RotateKeys` and its activities say to each other."""

from __future__ import annotations

from pydantic import Field

from integration_service.contracts.wire import AnswerModel, WireModel

ROTATE_KEYS = "RotateKeys"
LIST_WRAPPED = "ListWrapped"
REWRAP = "RewrapKeys"
COUNT_LEFT = "CountLeft"


def rotation_workflow_id(task_queue: str) -> str:
    """The one rotation of an installation: a newer one takes the place of the one that runs."""
    return f"rotate-keys:{task_queue}"


class KeyName(AnswerModel):
    """Names a key-encryption key; never the key."""

    id: str = Field(min_length=1, max_length=255)
    version: int = Field(ge=1, lt=2**31)


class RotateKeys(WireModel):
    """Input of `RotateKeys`: the key that everything shall be under. Workers' keyrings already hold it as active.

    `settleMs` is how long a write that began under the old key may take to arrive: the last look comes after it.
    """

    active: KeyName
    results: KeyName | None = None
    """The same for large results, where they have a key set of their own."""
    settle_ms: int = Field(default=20_000, ge=0, le=600_000)


class WrappedTables(AnswerModel):
    """The tables in which something is wrapped, in the order in which they are done."""

    names: list[str]


class Rewrap(AnswerModel):
    """Asks for one table's rows after a position, until it ends or a while has passed."""

    table: str
    to: RotateKeys
    after: list[str] | None = None


class Rewrapped(AnswerModel):
    """What was done. `after` is where to go on, None at the table's end.

    `broken` rows do not open under the key that they name, `missing` ones name a key that this worker's keyring lacks.
    """

    rewrapped: int = 0
    broken: int = 0
    missing: int = 0
    after: list[str] | None = None


class Left(AnswerModel):
    """How many rows of each table are under other keys; tables without any are left out."""

    rows: dict[str, int]

    @property
    def total(self) -> int:
        return sum(self.rows.values())


class Rotation(AnswerModel):
    """Result of `RotateKeys`: how many rows were wrapped anew, and how many do not open and stay as they are."""

    rewrapped: int = 0
    broken: int = 0


class RotationCarried(AnswerModel):
    """What one run of `RotateKeys` hands to the next."""

    rewrapped: int = 0
    tables: list[str]
    """Those that are still to be done in this pass."""
    after: list[str] | None = None
    passes: int = 0
    broken: int = 0
    missing: int = 0
