"""What a call resolves to, and how far an attempt at it came."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import timedelta

from integration_service.activities.execution.compiled import CompiledDefinition, CompiledMethod
from integration_service.activities.outbound.breaker import BreakerChange
from integration_service.activities.outbound.messages import InboundResponse
from integration_service.contracts.calls import MethodPlan
from integration_service.contracts.definitions import IntegrationAuthType, OAuth2Config
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.instances import IntegrationInstanceStatus
from integration_service.contracts.retry import DEFAULT_RETRY, RetryConfig
from integration_service.contracts.wire import JsonObject
from integration_service.storage.instances import InstanceForCall


@dataclass(frozen=True)
class Target:
    """The instance, its definition and the method, compiled."""

    instance: InstanceForCall
    compiled: CompiledDefinition
    method: CompiledMethod
    config: JsonObject = field(repr=False)
    """The instance's over the definition's."""

    @property
    def plan(self) -> MethodPlan:
        """How the method's activity is scheduled."""
        return MethodPlan(
            definition=self.compiled.definition.name,
            definition_version=self.compiled.definition.version,
            retry=self.method.method.effective_retry,
            timeout_ms=round(self.method.longest_fetch / timedelta(milliseconds=1)),
        )

    @property
    def oauth(self) -> OAuth2Config | None:
        """The definition's OAuth config, where calls use it."""
        definition = self.compiled.definition
        return definition.oauth2_config if definition.auth_type is IntegrationAuthType.OAUTH2 else None

    @property
    def is_renewable(self) -> bool:
        """Whether there is something to get a newer token with."""
        return self.instance.credential is not None and self.instance.credential.renewable


@dataclass
class Progress:
    """What kind of attempt it is and how far it came: what the failure's decision and the log row are made from."""

    testing: bool = False
    """The call proves a credential, so the instance need not be CONNECTED yet, and nothing is cached."""
    renewing: bool = True
    """A refused token may be renewed."""
    started: float = field(default_factory=time.monotonic)
    target: Target | None = None
    intended: bool = False
    renewed: bool = False
    maybe_sent: bool = False
    without_effect: bool = False
    """The last answer refused the request, for coming too soon or for its token: it had no effect."""
    request_bytes: int = 0
    response_bytes: int = 0
    response: InboundResponse | None = None
    pages_read: int = 0
    hold_until: float = 0
    """Until when the upstream asked for a pause, by the monotonic clock."""
    throttled: bool = False
    """It waited in its slot for a place in the rate limit."""
    breaker_change: BreakerChange | None = None
    """A breaker that this attempt opened or closed."""

    @property
    def resolved(self) -> Target:
        """The target of a call that has one."""
        if self.target is None:
            raise RuntimeError("nothing was resolved yet")
        return self.target

    @property
    def status_code(self) -> int:
        """The status of the last answer."""
        return self.response.status if self.response is not None else 0

    @property
    def retry(self) -> RetryConfig:
        return self.target.method.method.effective_retry if self.target else DEFAULT_RETRY

    @property
    def repeatable(self) -> bool:
        """Whether the request may be sent again: safe by nature, never sent, or refused without effect."""
        return self.target is None or self.target.method.safe_to_repeat or not self.maybe_sent or self.without_effect

    def duration_ms(self) -> int:
        return round((time.monotonic() - self.started) * 1000)


def require_connected(instance: InstanceForCall) -> None:
    """Raises IntegrationError with the code that tells what to do about an instance that is not CONNECTED."""
    status = instance.status
    if status is IntegrationInstanceStatus.CONNECTED:
        return
    code = {
        IntegrationInstanceStatus.AUTH_ERROR: ErrorCode.REAUTH_REQUIRED,
        IntegrationInstanceStatus.CONFIG_ERROR: ErrorCode.CONFIG_ERROR,
    }.get(status, ErrorCode.INSTANCE_NOT_CONNECTED)
    raise IntegrationError(
        code, f"instance {instance.name} is {status}", path="instanceId", details={"status": status.value}
    )
