"""The floor: what somebody would write who needs one HTTP call to be durable, and nothing else."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from temporalio import activity, workflow

with workflow.unsafe.imports_passed_through():
    import httpx2


@workflow.defn
class BareCall:
    """One activity, with the timeouts and retries that anyone should set."""

    @workflow.run
    async def run(self, url: str) -> dict[str, Any]:
        answer: dict[str, Any] = await workflow.execute_activity(
            "fetch", url, result_type=dict, start_to_close_timeout=timedelta(seconds=45)
        )
        return answer


class Fetch:
    """The activity, over one client for all calls."""

    def __init__(self, client: httpx2.AsyncClient, key: str) -> None:
        self._client = client
        self._key = key

    @activity.defn(name="fetch")
    async def fetch(self, url: str) -> dict[str, Any]:
        """What `url` answers."""
        response = await self._client.get(url, headers={"X-Api-Key": self._key})
        response.raise_for_status()
        answer: dict[str, Any] = response.json()
        return answer
