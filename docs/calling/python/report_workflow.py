"""A workflow of yours that calls methods by name. Nothing of ours is installed, only `temporalio`."""

from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.workflow import ParentClosePolicy


@workflow.defn
class Report:
    @workflow.run
    async def run(self, instance: str) -> dict[str, Any]:
        call = {"instanceId": instance, "method": "list_workflows", "params": {"pageSize": 5}}

        # As a child: throttles and outages are waited out until `deadlineMs`.
        child: dict[str, Any] = await workflow.execute_child_workflow(
            "ExecuteMethod",
            call,
            task_queue="integrations",
            result_type=dict,
            parent_close_policy=ParentClosePolicy.REQUEST_CANCEL,
        )

        # As an activity of this workflow: one hop less, and throttles spend its attempts.
        try:
            await workflow.execute_activity(
                "temporal.list_workflows",
                {**call, "params": {"pageSize": "five"}},
                task_queue="integrations",
                start_to_close_timeout=timedelta(seconds=45),
                schedule_to_close_timeout=timedelta(minutes=5),
                heartbeat_timeout=timedelta(seconds=10),
            )
        except ActivityError as error:
            if not isinstance(error.cause, ApplicationError) or error.cause.type != "VALIDATION_ERROR":
                raise
            refused = error.cause.details[0]["details"]["path"]
        return {"statusCode": child["statusCode"], "refused": refused}
