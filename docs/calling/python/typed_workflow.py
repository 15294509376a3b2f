"""The same with our package: typed, and nothing of it has to be passed through the sandbox."""

from temporalio import workflow

from integration_service.contracts.calls import MethodCall
from integration_service.contracts.errors import ErrorCode
from integration_service.workflows.calling import MethodFailed, execute_activity, execute_method


@workflow.defn
class TypedReport:
    @workflow.run
    async def run(self, instance: str) -> int:
        call = MethodCall(instance_id=instance, method="list_workflows", params={"pageSize": 5})
        result = await execute_method(call)
        try:
            await execute_activity("temporal", call.model_copy(update={"params": {"pageSize": "five"}}))
        except MethodFailed as failure:
            if failure.code != ErrorCode.VALIDATION_ERROR:
                raise
        return result.status_code
