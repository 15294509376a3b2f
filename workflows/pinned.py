"""`ExecuteMethod` as versioned workers register it: a call ends on the version that it began on.

Temporal takes a versioning behaviour from versioned workers only, and refuses it from all others, so the class that
those register has none. The entities have none either: they live for years and move on with each version, which is
what a versioned worker of ours says of all that names nothing else.
"""

from __future__ import annotations

from temporalio import workflow
from temporalio.common import RawValue, VersioningBehavior

from integration_service.workflows.execute_method import ExecuteMethod
from integration_service.workflows.inputs import NOTHING

with workflow.unsafe.imports_passed_through():
    from integration_service.contracts.calls import MethodResult
    from integration_service.contracts.names import EXECUTE_METHOD


@workflow.defn(name=EXECUTE_METHOD, versioning_behavior=VersioningBehavior.PINNED)
class PinnedExecuteMethod(ExecuteMethod):
    """Input `MethodCall`, output `MethodResult`."""

    @workflow.run
    async def run(self, call: RawValue = NOTHING) -> MethodResult:
        return await super().run(call)
