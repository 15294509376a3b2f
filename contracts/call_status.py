"""Where a call of `ExecuteMethod` stands: what its query `status` answers, and what its page in the Web UI is made of.

Names, codes, times and our own sentences only: an upstream's words, params and results are not in it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from integration_service.contracts.advice import advice_for, connect_link, refused_call
from integration_service.contracts.calls import MethodCall, MethodResult, ResolvedMethod
from integration_service.contracts.errors import Decision, IntegrationError
from integration_service.contracts.wire import AnswerModel, Timestamp

CallState = Literal["STARTING", "RUNNING", "WAITING", "PARKED", "DONE", "FAILED", "CANCELLED"]


class CallStatus(AnswerModel):
    """Query `status` of `ExecuteMethod`. `why` and `whatToDo` are for people, commands in backticks.

    `triesSpent` counts what earlier activities of this call used up; the tries of one that runs are told by Temporal,
    as its attempt. `until` ends the wait, `deadline` the whole call. `message` and `path` say what a refusal is about.
    """

    state: CallState
    why: str
    what_to_do: str
    instance: str | None = None
    """As the caller named it."""
    scope: str | None = None
    method: str | None = None
    instance_id: str | None = None
    definition: str | None = None
    definition_version: str | None = None
    tries_spent: int = Field(default=0, ge=0)
    max_tries: int | None = None
    code: str | None = None
    message: str | None = None
    path: str | None = None
    until: Timestamp | None = None
    deadline: Timestamp | None = None
    called_by: str | None = None
    """The id of the workflow that started this one."""
    correlation_id: str | None = None

    def known(self, resolved: ResolvedMethod) -> CallStatus:
        """What the call is, once it was looked up."""
        return self.model_copy(
            update={
                "instance_id": resolved.instance_id,
                "definition": resolved.definition,
                "definition_version": resolved.definition_version,
                "method": resolved.method,
                "max_tries": resolved.retry.max_tries,
            }
        )

    def runs(self, *, spent: int) -> CallStatus:
        return self._now("RUNNING", "The method's activity is at work, or waits for its next try.", tries_spent=spent)

    def waits(self, error: IntegrationError, until: datetime, *, spent: int) -> CallStatus:
        """A throttle, an open breaker or an outage is waited out."""
        means, do = advice_for(error.code)
        return self._now(
            "WAITING",
            f"{means} (`{error.code}`) The call then goes on by itself, and this spends none of its retries.",
            f"nothing, unless it lasts. {do}",
            code=error.code,
            until=until,
            tries_spent=spent,
        )

    def parked(self, code: str, until: datetime) -> CallStatus:
        """The instance is to be authorised first."""
        reference, scope = self.instance_id or self.instance or "", self.scope or ""
        return self._now(
            "PARKED",
            "The instance has no credential that works, and this call is to wait until somebody has authorised it.",
            f"{connect_link(reference, scope)}. The call then goes on by itself. The page of the connection's own "
            "workflow tells other ways.",
            code=code,
            until=until,
        )

    def done(self, result: MethodResult) -> CallStatus:
        how = "from the cache" if result.cached else f"HTTP {result.status_code}, tries: {result.attempts}"
        return self._now("DONE", f"The upstream answered: {how}.", tries_spent=result.attempts)

    def failed(self, error: IntegrationError) -> CallStatus:
        """It is given up. The message is told where it is our own: the input was refused."""
        means, _ = advice_for(error.code)
        return self._now(
            "FAILED",
            means,
            refused_call(error, self.instance, self.scope, definition=self.definition),
            code=error.code,
            message=error.message if error.decision is Decision.FIX_INPUT else None,
            path=error.path,
        )

    def cancelled(self) -> CallStatus:
        return self._now("CANCELLED", "Its caller cancelled it. A request that was on its way may have arrived.")

    def _now(self, state: CallState, why: str, what_to_do: str = "nothing.", **more: Any) -> CallStatus:
        over = {"code": None, "message": None, "path": None, "until": None, "tries_spent": 0}
        return self.model_copy(update={**over, "state": state, "why": why, "what_to_do": what_to_do, **more})


UNREAD = CallStatus(state="STARTING", why="It has not read its input yet.", what_to_do="nothing.")


def starts(call: MethodCall, *, deadline: datetime, called_by: str | None) -> CallStatus:
    """A call whose input was read."""
    return CallStatus(
        state="STARTING",
        why="It looks up the instance and its method.",
        what_to_do="nothing.",
        instance=call.instance_id,
        scope=call.scope,
        method=call.method,
        deadline=deadline,
        called_by=called_by,
        correlation_id=call.correlation_id,
    )
