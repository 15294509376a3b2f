"""An instance's workflow hears of its upstreams' breakers from whoever opened or closed one."""

from __future__ import annotations

import contextlib

from temporalio import activity
from temporalio.service import RPCError

from integration_service.activities.execution.target import Progress
from integration_service.contracts.instances import BreakerNews
from integration_service.contracts.names import connection_workflow_id


async def tell_of_breaker(progress: Progress) -> None:
    """Signal what the attempt changed, if it changed something. A terminated owner is no reason to fail."""
    change = progress.breaker_change
    if change is None or progress.target is None:
        return
    news = BreakerNews(host=change.host, failures=change.failures, sends=change.sends, open_until=change.open_until)
    owner = activity.client().get_workflow_handle(connection_workflow_id(progress.target.instance.id))
    with contextlib.suppress(RPCError):
        await owner.signal("breaker_changed", news)
