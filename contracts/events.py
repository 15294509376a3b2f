"""Events: what happened to a connection, as CloudEvents 1.0, and who wants to hear of it.

Source: CloudEvents 1.0.2 with its JSON format and the Sequence extension (https://github.com/cloudevents/spec).
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal, Self
from urllib.parse import quote, urlsplit

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from integration_service.contracts.instances import InstanceError, IntegrationInstanceStatus
from integration_service.contracts.names import DEFAULT_SCOPE, DefinitionName, Scope, Uuid, control_queue
from integration_service.contracts.wire import AnswerModel, JsonObject, Timestamp, WireModel, format_time

DELIVER_EVENTS = "DeliverEvents"
DELIVER_DUE_EVENTS = "DeliverDueEvents"

KEPT_FOR = timedelta(days=30)
"""How long an event can be replayed."""
DELIVERY_TRIES_FOR = timedelta(days=3)
"""After that an event that could not be delivered is a dead letter."""


class EventType(StrEnum):
    """The types of our events. Those of connections and credentials are in order per instance."""

    CONNECTED = "integration.connected"
    DISCONNECTED = "integration.disconnected"
    AUTH_FAILED = "integration.auth.failed"
    STATUS = "integration.instance.status"
    METHOD_EXECUTED = "integration.method.executed"
    METHOD_FAILED = "integration.method.failed"
    CREDENTIAL_EXPIRING = "integration.credential.expiring"
    CREDENTIAL_REFRESHED = "integration.credential.refreshed"
    AUDIT_SEALED = "integration.audit.sealed"
    AUDIT_ALERT = "integration.audit.alert"


class CloudEvent(AnswerModel):
    """One event on the wire. `subject` is the instance's id; `data` holds no secret and no parameter."""

    specversion: Literal["1.0"] = "1.0"
    id: Uuid
    source: str
    type: str
    subject: str
    time: Timestamp
    datacontenttype: Literal["application/json"] = "application/json"
    sequence: str | None = None
    """Orders an instance's connection and credential events as text; method events have none."""
    data: JsonObject


def event_source(scope: str, definition: str | None) -> str:
    """The `source` of an event, a URI reference: the scope, and the definition where the event has one."""
    return "/integrations/" + "/".join(quote(part, safe="") for part in (scope, definition) if part)


def sequence_text(sequence: int) -> str:
    """A sequence number so that texts sort as numbers do."""
    return f"{sequence:020d}"


@dataclass(frozen=True)
class EventDraft:
    """An event before the statement that writes it adds instance, definition, scope, sequence and time."""

    type: EventType
    data: dict[str, Any]

    def to_wire(self) -> dict[str, Any]:
        return {"id": str(uuid.uuid4()), "type": self.type.value, "data": self.data}


def status_events(
    previous: IntegrationInstanceStatus,
    current: IntegrationInstanceStatus,
    *,
    error: InstanceError | None,
    error_before: InstanceError | None,
) -> list[EventDraft]:
    """What a write of an instance's row tells, in order; nothing where no status changed.

    `reason` is the error's code. An instance that is in AUTH_ERROR and fails anew, with another code, tells it.
    """
    status = IntegrationInstanceStatus
    reason = {"reason": error.code} if error else {}
    code, code_before = (one.code if one else None for one in (error, error_before))
    drafts = []
    if previous is not current:
        change = {"previous": previous.value, "current": current.value, **reason}
        drafts.append(EventDraft(EventType.STATUS, change))
    if previous is not current and current is status.CONNECTED:
        drafts.append(EventDraft(EventType.CONNECTED, {}))
    if previous is not current and current is status.DISCONNECTED:
        drafts.append(EventDraft(EventType.DISCONNECTED, reason))
    if current is status.AUTH_ERROR and (previous is not current or code != code_before):
        drafts.append(EventDraft(EventType.AUTH_FAILED, reason))
    return drafts


def is_webhook_url(url: str) -> bool:
    """Whether `url` can be posted to: http(s) with a host, and nothing that a log should not show."""
    try:
        parts = urlsplit(url)
        plain = url.isascii() and url.isprintable() and " " not in url and "\\" not in url
        readable = parts.port is None or parts.port > 0
    except ValueError:
        return False
    has_user = "@" in parts.netloc
    return plain and readable and parts.scheme in ("http", "https") and bool(parts.hostname) and not has_user


def _webhook_url(url: str) -> str:
    if not is_webhook_url(url):
        raise ValueError("must be a plain http(s) URL without user info")
    return url.partition("#")[0]


_Text = Annotated[str, StringConstraints(min_length=1, max_length=1000, pattern=r"^[^\x00]*$")]
EventPattern = Annotated[str, StringConstraints(pattern=r"^(\*|[a-z]+(\.[a-z]+)*(\.\*)?)$", max_length=100)]
"""An event type, or the beginning of one with ``.*``, or ``*`` for every type."""


class WebhookTarget(WireModel):
    """Where events are posted to. The signing secret stands in the vault."""

    url: Annotated[str, StringConstraints(max_length=2048), AfterValidator(_webhook_url)]


class WorkflowTarget(WireModel):
    """Which workflow is signalled, the CloudEvent being the signal's one argument."""

    workflow_id: _Text
    signal_name: _Text


class NewSubscription(WireModel):
    """Asks for events. A filter that is left out lets everything through.

    A subscription hears its own scope's events; `allScopes`, which only one of the global scope may have, hears all.
    """

    scope: Scope = DEFAULT_SCOPE
    all_scopes: bool = False
    webhook: WebhookTarget | None = None
    workflow: WorkflowTarget | None = None
    event_types: list[EventPattern] = Field(default_factory=lambda: ["*"], min_length=1, max_length=50)
    definition: DefinitionName | None = None
    instance_id: Uuid | None = None

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if (self.webhook is None) == (self.workflow is None):
            raise ValueError("takes either a webhook or a workflow")
        if self.all_scopes and self.scope != DEFAULT_SCOPE:
            raise ValueError("only a subscription of the global scope hears all scopes")
        return self


class Subscription(NewSubscription):
    """A subscription as it is kept."""

    id: Uuid
    enabled: bool
    disabled_reason: str | None = None
    created_at: Timestamp


def like_pattern(pattern: str) -> str:
    """An `EventPattern` as SQL's LIKE has it. Event types hold nothing that LIKE reads otherwise."""
    return pattern.replace("*", "%")


def deliver_events_workflow_id(task_queue: str) -> str:
    """The id of the one workflow that delivers the events of a deployment."""
    return f"deliver-events:{control_queue(task_queue)}"


class DeliverEventsInput(WireModel):
    """Input of `DeliverEvents`, and of its activity: how long one shift of the activity lasts."""

    shift_ms: int = Field(default=600_000, ge=1, le=3_600_000)

    @property
    def shift(self) -> timedelta:
        return timedelta(milliseconds=self.shift_ms)


class ShiftReport(AnswerModel):
    """What one shift of the delivering activity did."""

    delivered: int = 0
    failed: int = 0
    dead: int = 0


def refreshed_draft(expires_at: datetime | None, generation: int) -> EventDraft:
    """The event of a credential that was renewed."""
    expiry = {"expiresAt": format_time(expires_at)} if expires_at else {}
    return EventDraft(EventType.CREDENTIAL_REFRESHED, {"generation": generation, **expiry})
