"""Around every activity: who opens secrets in it, and why, is written down; and where its input names a scope, the
database lets no row of another one through."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from temporalio import activity
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from integration_service.contracts import connections, keys, oauth
from integration_service.contracts.errors import IntegrationError
from integration_service.storage.database import within_scope
from integration_service.storage.decrypt_log import DecryptLog
from integration_service.storage.vault.openings import Use, opening_for

CALL = "call"
RESOLVE = "resolve"
_REASONS = {
    oauth.REFRESH_TOKEN: "refresh",
    oauth.REVOKE_TOKENS: "revoke",
    oauth.START_REFRESH: "refresh",
    oauth.BEGIN_AUTHORIZATION: "authorize",
    oauth.COMPLETE_AUTHORIZATION: "authorize",
    oauth.POLL_DEVICE: "authorize",
    connections.STORE_CREDENTIAL: "store",
    connections.TEST_CONNECTION: "test",
    keys.REWRAP: "rotate",
    RESOLVE: CALL,  # a cached answer is given there, and recorded
}
# They are recorded with an execution, in its statement; what is left of them afterwards is written apart.
_RECORDED = frozenset({CALL, "test"})

_log = logging.getLogger(__name__)


def current_use() -> Use:
    """The running activity's."""
    info = activity.info()
    ours = info.activity_type in _REASONS or "." not in info.activity_type
    return Use(
        worker=activity.client().identity,
        reason=_REASONS.get(info.activity_type, info.activity_type if ours else CALL),
        activity_type=info.activity_type,
        activity_id=info.activity_id,
        attempt=info.attempt,
        workflow_id=info.workflow_id,
        run_id=info.workflow_run_id or info.activity_run_id,
    )


class OpeningsInterceptor(Interceptor):
    """For every worker of ours."""

    def __init__(self, log: DecryptLog) -> None:
        self._log = log

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        return _Noting(next, self._log)


class _Noting(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, log: DecryptLog) -> None:  # noqa: A002
        super().__init__(next)
        self._log = log

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        use = current_use()
        waits = use.reason in _RECORDED
        scope = _scope(input.args)
        with (
            opening_for(use, write=None if waits else self._log.write) as openings,
            within_scope(scope) if scope is not None else nullcontext(),
        ):
            try:
                return await super().execute_activity(input)
            finally:
                if left := openings.take():
                    try:
                        await self._log.write(left)
                    except IntegrationError as error:
                        # The call is over, and what it did stands; its own row was not written either.
                        _log.error("%d decrypts of %s could not be logged: %s", len(left), use.activity_type, error)


def _scope(arguments: Sequence[Any]) -> str | None:
    """The scope that an activity's input names, itself or by its instance."""
    for argument in arguments:
        scope = getattr(getattr(argument, "instance", argument), "scope", None)
        if isinstance(scope, str):
            return scope
    return None
