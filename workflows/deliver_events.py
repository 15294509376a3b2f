"""`DeliverEvents`: one long-running workflow that keeps an activity delivering; it knows nothing of events itself."""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RawValue, RetryPolicy
from temporalio.exceptions import ActivityError

from integration_service.workflows.history import is_long
from integration_service.workflows.inputs import NOTHING, read_input
from integration_service.workflows.messages import as_application_error

with workflow.unsafe.imports_passed_through():
    from integration_service.contracts.errors import IntegrationError
    from integration_service.contracts.events import (
        DELIVER_DUE_EVENTS,
        DELIVER_EVENTS,
        DeliverEventsInput,
        ShiftReport,
    )
    from integration_service.contracts.upkeep_pages import delivery_page
    from integration_service.contracts.wire import parse

_AFTER_THE_SHIFT = timedelta(minutes=2)
_HEARTBEAT_TIMEOUT = timedelta(seconds=20)
_AFTER_TROUBLE = timedelta(seconds=30)
_LONGEST_RETRY = timedelta(seconds=30)


@workflow.defn(name=DELIVER_EVENTS)
class DeliverEvents:
    """Input `DeliverEventsInput` or none, id ``deliver-events:<control queue>``; runs until it is terminated.

    A shift of ten minutes is one activity: idle, that is a few events of history an hour.
    """

    @workflow.run
    async def run(self, wanted: RawValue = NOTHING) -> None:
        try:
            given = parse(DeliverEventsInput, read_input(wanted) or {})
        except IntegrationError as error:
            raise as_application_error(error) from None
        workflow.set_current_details(delivery_page(None, None))
        while not is_long():
            try:
                done: ShiftReport = await workflow.execute_activity(
                    DELIVER_DUE_EVENTS,
                    given,
                    result_type=ShiftReport,
                    start_to_close_timeout=given.shift + _AFTER_THE_SHIFT,
                    heartbeat_timeout=_HEARTBEAT_TIMEOUT,
                    retry_policy=RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=_LONGEST_RETRY),
                    summary="a shift of ten minutes",
                )
            except ActivityError:
                # A bug of ours: events wait, and delivery goes on with the program that mends it.
                workflow.logger.error("a shift of delivering events failed")
                workflow.set_current_details(delivery_page(None, None, trouble=True))
                await workflow.sleep(_AFTER_TROUBLE, summary="after a shift that failed")
            else:
                workflow.set_current_details(delivery_page(done, workflow.now()))
        workflow.continue_as_new(given)
