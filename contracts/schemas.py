"""JSON Schemas (draft 2020-12) of all that goes over the wire, and the one table of what that is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import quote

from pydantic import TypeAdapter

from integration_service.contracts import (
    answers,
    call_status,
    calls,
    connect_tickets,
    connections,
    credentials,
    definitions,
    events,
    failures,
    instances,
    keys,
    maintenance,
    names,
    nexus,
    oauth,
    retry,
)
from integration_service.contracts.definitions import IntegrationDefinition
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.wire import JsonObject, JsonSchema

SCHEMAS_PATH = "/v1/schemas"
"""Where the gateway serves them."""
DIALECT = "https://json-schema.org/draft/2020-12/schema"
_URN = "urn:integration-service:v1"

WIRE_TYPES: dict[str, Any] = {
    model.__name__: model
    for model in (
        calls.MethodCall,
        calls.MethodResult,
        calls.ResultRef,
        call_status.CallStatus,
        failures.Failure,
        failures.Refusal,
        instances.ConnectInstanceInput,
        answers.ConnectionStatus,
        instances.Configure,
        instances.SubmitCredentials,
        instances.Upgrade,
        instances.Disconnect,
        instances.Nothing,
        instances.Observed,
        instances.BreakerNews,
        oauth.Authorize,
        oauth.PendingAuthorization,
        connections.CompleteAuthorization,
        connect_tickets.ConnectTicketWanted,
        connect_tickets.ConnectTicket,
        oauth.RefreshInput,
        oauth.RefreshWanted,
        oauth.RefreshAnswer,
        oauth.RefreshState,
        oauth.CredentialChanged,
        credentials.Sealed,
        credentials.SealKey,
        credentials.CredentialPayload,
        credentials.IntegrationCredential,
        nexus.InstanceReference,
        nexus.AuthorizeInstance,
        nexus.RefreshInstance,
        events.CloudEvent,
        events.NewSubscription,
        events.Subscription,
        events.DeliverEventsInput,
        keys.RotateKeys,
        keys.Rotation,
        maintenance.MaintenanceReport,
        definitions.DefinitionFile,
        definitions.IntegrationDefinition,
        definitions.IntegrationMethod,
        definitions.OAuth2Config,
        oauth.OAuthClientRecord,
        retry.RetryConfig,
        instances.IntegrationInstance,
    )
}


@dataclass(frozen=True)
class WorkflowMessages:
    """Which of the types a workflow takes and answers. An update has what it takes, then what it answers."""

    input: str | None = None
    result: str | None = None
    updates: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    queries: Mapping[str, str] = field(default_factory=dict)
    signals: Mapping[str, str | None] = field(default_factory=dict)


WORKFLOWS: dict[str, WorkflowMessages] = {
    names.EXECUTE_METHOD: WorkflowMessages(
        "MethodCall", "MethodResult", queries={"status": "CallStatus"}, signals={"instance_connected": None}
    ),
    names.CONNECT_INSTANCE: WorkflowMessages(
        "ConnectInstanceInput",
        "ConnectionStatus",
        updates={
            "await_settled": ("Nothing", "ConnectionStatus"),
            "configure": ("Configure", "ConnectionStatus"),
            "authorize": ("Authorize", "PendingAuthorization"),
            "complete_authorization": ("CompleteAuthorization", "ConnectionStatus"),
            "submit_credentials": ("SubmitCredentials", "ConnectionStatus"),
            "test": ("Nothing", "ConnectionStatus"),
            "upgrade": ("Upgrade", "ConnectionStatus"),
            "disconnect": ("Disconnect", "ConnectionStatus"),
            "reconnect": ("Nothing", "ConnectionStatus"),
            "delete": ("Nothing", "ConnectionStatus"),
        },
        queries={"status": "ConnectionStatus"},
        signals={"observed": "Observed", "breaker_changed": "BreakerNews"},
    ),
    names.REFRESH_OAUTH: WorkflowMessages(
        "RefreshInput",
        updates={"refresh": ("RefreshWanted", "RefreshAnswer")},
        queries={"status": "RefreshState"},
        signals={"credential_changed": "CredentialChanged", "stop": None},
    ),
    maintenance.MAINTAIN_STORAGE: WorkflowMessages(result="MaintenanceReport"),
    keys.ROTATE_KEYS: WorkflowMessages("RotateKeys", "Rotation"),
    events.DELIVER_EVENTS: WorkflowMessages("DeliverEventsInput"),
}
NEXUS_OPERATIONS: dict[str, tuple[str, str]] = {
    "execute_method": ("MethodCall", "MethodResult"),
    "connection_status": ("InstanceReference", "ConnectionStatus"),
    "authorize": ("AuthorizeInstance", "PendingAuthorization"),
    "refresh": ("RefreshInstance", "RefreshAnswer"),
}


def index() -> JsonObject:
    """What there is: every type's name, and where each is used."""
    return {
        "types": list(WIRE_TYPES),
        "workflows": {name: _given(messages) for name, messages in WORKFLOWS.items()},
        "nexus": {name: list(pair) for name, pair in NEXUS_OPERATIONS.items()},
    }


def type_schema(name: str) -> JsonObject:
    """The schema of a wire type. Raises IntegrationError VALIDATION_ERROR where there is none of that name."""
    found = WIRE_TYPES.get(name)
    if found is None:
        raise IntegrationError(
            ErrorCode.VALIDATION_ERROR, f"no such type; there are {', '.join(WIRE_TYPES)}", path="type"
        )
    # As input: the custom serializer that leaves absent keys out hides the shape from the other mode.
    schema = TypeAdapter(found).json_schema(by_alias=True, mode="validation")
    return {"$schema": DIALECT, "$id": f"{_URN}:{name}", **schema}


def method_schemas(definition: IntegrationDefinition, name: str) -> JsonObject:
    """A method's `params`, and its `result`, which is `data` of a MethodResult, as documents of their own.

    Raises IntegrationError METHOD_NOT_FOUND.
    """
    method = next((one for one in definition.methods if one.name == name), None)
    if method is None:
        raise IntegrationError(
            ErrorCode.METHOD_NOT_FOUND, f"{definition.name} {definition.version} has no such method", path="method"
        )
    place = ":".join(quote(part, safe="") for part in (definition.scope, definition.name, definition.version, name))
    return {
        "activityType": names.activity_type(definition.name, name),
        "description": method.description,
        "params": _document(method.param_schema, f"{_URN}:method:{place}:params"),
        "result": _document(method.result_schema, f"{_URN}:method:{place}:result"),
    }


def definition_schemas(definition: IntegrationDefinition) -> JsonObject:
    """Every method of a definition, and what an instance's config must be."""
    place = ":".join(quote(part, safe="") for part in (definition.scope, definition.name, definition.version))
    return {
        "scope": definition.scope,
        "definition": definition.name,
        "version": definition.version,
        "config": _document(definition.config_schema, f"{_URN}:config:{place}"),
        "methods": {method.name: method_schemas(definition, method.name) for method in definition.methods},
    }


def _document(schema: JsonSchema, identity: str) -> JsonObject:
    """The author's `$schema` and `$id` stand where there are any: their references rest on them."""
    body = schema if isinstance(schema, dict) else {} if schema else {"not": {}}
    return {"$schema": DIALECT, "$id": identity, **body}


def _given(messages: WorkflowMessages) -> JsonObject:
    return {key: value for key, value in asdict(messages).items() if value}
