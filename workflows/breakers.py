"""What an instance's workflow was told of its upstreams' circuit breakers."""

from __future__ import annotations

from datetime import datetime, timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from integration_service.contracts.errors import ErrorCode
    from integration_service.contracts.instances import BreakerNews, InstanceError

_BELIEVED_FOR = timedelta(hours=1)
"""Each probe that fails brings news; a breaker whose row was lost brings none."""
_MAX_HOSTS = 20


class BreakersSeen:
    """The open ones, by host."""

    def __init__(self) -> None:
        self._open: dict[str, BreakerNews] = {}

    @property
    def carried(self) -> list[BreakerNews]:
        """What the next run needs."""
        return list(self._open.values())

    def hear(self, news: BreakerNews) -> None:
        """Take over what a call met."""
        self._open.pop(news.host, None)
        if news.open_until is not None:
            self._open[news.host] = news
            if len(self._open) > _MAX_HOSTS:
                del self._open[next(iter(self._open))]

    def error(self, now: datetime) -> InstanceError | None:
        """What the instance shows while one is open."""
        known = [news for news in self._open.values() if news.open_until and now < news.open_until + _BELIEVED_FOR]
        if not known:
            return None
        worst = known[-1]
        return InstanceError(
            message=f"calls to {worst.host} wait: {worst.failures} of {worst.sends} sends in 30 s failed",
            code=ErrorCode.CIRCUIT_OPEN,
            details={"breakers": [news.to_wire() for news in known]},
        )
