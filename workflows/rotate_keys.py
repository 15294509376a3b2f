"""`RotateKeys`: everything that is encrypted comes under another key, while the service runs on.

It is over when a look that came after every write that began before finds no row under another key. It may be killed,
repeated and overtaken anywhere: each row is written only as it was read.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RawValue, RetryPolicy
from temporalio.exceptions import ActivityError, is_cancelled_exception

from integration_service.workflows.history import hand_on, handed_on, is_long
from integration_service.workflows.inputs import NOTHING, read_input
from integration_service.workflows.messages import as_application_error

with workflow.unsafe.imports_passed_through():
    from integration_service.contracts import keys as names
    from integration_service.contracts.errors import ErrorCode, IntegrationError, to_application_error
    from integration_service.contracts.keys import (
        Left,
        Rewrap,
        Rewrapped,
        RotateKeys,
        Rotation,
        RotationCarried,
        WrappedTables,
    )
    from integration_service.contracts.upkeep_pages import rotation_page
    from integration_service.contracts.wire import WireModel, parse

_RETRY = RetryPolicy(
    initial_interval=timedelta(seconds=1), backoff_coefficient=2, maximum_interval=timedelta(seconds=30)
)
_BEAT = timedelta(seconds=15)
_ONE_STEP = timedelta(seconds=60)
_PASSES = 5
"""How often rows whose key nobody has are looked for, before it says so and ends."""
_BETWEEN_PASSES = timedelta(seconds=10)


@workflow.defn(name=names.ROTATE_KEYS)
class RotateKeysWorkflow:
    """Input `RotateKeys`, result `Rotation`.

    Fails KEY_UNAVAILABLE, details ``{"rows": {table: count}}``, when rows stay under keys that no keyring holds; all
    others are done by then.
    """

    def __init__(self) -> None:
        self._done = RotationCarried(tables=[])

    @workflow.run
    async def run(self, raw: RawValue = NOTHING) -> dict[str, Any]:
        try:
            given, state = handed_on(read_input(raw))
            to = parse(RotateKeys, {} if given is None else given)
            if state is None:
                self._done = RotationCarried(tables=await self._tables(to))
            else:
                self._done = RotationCarried.model_validate(state)
            return (await self._rotate(to)).to_wire()
        except IntegrationError as error:
            raise to_application_error(error) from None
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            raise as_application_error(error) from None

    async def _rotate(self, to: RotateKeys) -> Rotation:
        while True:
            await self._pass(to)
            self._show(to, "waits for writes that are on their way")
            # A write that began before may still be on its way, under the key that was active then.
            await workflow.sleep(timedelta(milliseconds=to.settle_ms), summary="Writes that are on their way")
            left: Left = await self._do(names.COUNT_LEFT, to, Left)
            if left.total <= self._done.broken:
                self._show(to, "done")
                return Rotation(rewrapped=self._done.rewrapped, broken=left.total)
            if self._done.missing and self._done.passes >= _PASSES:
                raise IntegrationError(
                    ErrorCode.KEY_UNAVAILABLE,
                    f"{left.total} rows are under keys that the workers' keyrings lack: add those, then rotate again",
                    details={"rows": left.rows},
                )
            if self._done.missing:
                self._show(to, "waits for keys that are missing")
                await workflow.sleep(_BETWEEN_PASSES, summary="Rows under keys that are missing")
            self._done = self._done.model_copy(
                update={"tables": await self._tables(to), "after": None, "broken": 0, "missing": 0}
            )

    async def _pass(self, to: RotateKeys) -> None:
        """Every table once, from where the run before stopped."""
        while self._done.tables:
            table = self._done.tables[0]
            self._show(to, f"at work on {table}")
            asked = Rewrap(table=table, to=to, after=self._done.after)
            part: Rewrapped = await self._do(names.REWRAP, asked, Rewrapped)
            self._done = self._done.model_copy(
                update={
                    "rewrapped": self._done.rewrapped + part.rewrapped,
                    "broken": self._done.broken + part.broken,
                    "missing": self._done.missing + part.missing,
                    "after": part.after,
                    "tables": self._done.tables if part.after is not None else self._done.tables[1:],
                }
            )
            if is_long():
                hand_on(to, self._done)
        self._done = self._done.model_copy(update={"passes": self._done.passes + 1})

    def _show(self, to: RotateKeys, doing: str) -> None:
        workflow.set_current_details(rotation_page(to, self._done, doing))

    async def _tables(self, to: RotateKeys) -> list[str]:
        found: WrappedTables = await self._do(names.LIST_WRAPPED, to, WrappedTables)
        return found.names

    async def _do(self, activity: str, argument: WireModel, result: type[Any]) -> Any:
        return await workflow.execute_activity(
            activity,
            argument,
            result_type=result,
            start_to_close_timeout=_ONE_STEP,
            heartbeat_timeout=_BEAT if activity == names.REWRAP else None,
            retry_policy=_RETRY,
            summary=argument.table if isinstance(argument, Rewrap) else None,
        )
