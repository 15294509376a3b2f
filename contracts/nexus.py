"""The Nexus service `integrations`: what callers in other namespaces use, over the endpoint of the same name."""

from __future__ import annotations

from typing import Any

import nexusrpc
from pydantic import Field

from integration_service.contracts.calls import MethodCall, MethodResult
from integration_service.contracts.names import DEFAULT_SCOPE, Scope
from integration_service.contracts.oauth import Authorize, PendingAuthorization, RefreshAnswer, RefreshWanted
from integration_service.contracts.wire import WireModel

NEXUS_SERVICE = "integrations"
NEXUS_ENDPOINT = "integrations"
"""What `dev` and compose create; an operator may choose another name."""


class InstanceReference(WireModel):
    """Names an instance, by id or name: input of operation `connection_status`."""

    instance_id: str = Field(min_length=1, max_length=255, pattern=r"^[^\x00]*$")
    scope: Scope = DEFAULT_SCOPE


class AuthorizeInstance(InstanceReference, Authorize):
    """Input of operation `authorize`: which instance, and what update `authorize` takes."""


class RefreshInstance(InstanceReference, RefreshWanted):
    """Input of operation `refresh`: which instance, and what update `refresh` takes."""


@nexusrpc.service(name=NEXUS_SERVICE)
class IntegrationsService:
    """`execute_method` runs as the workflow `ExecuteMethod`; the others answer at once.

    `connection_status` answers the status object (`ConnectionStatus`). Failures arrive below a NexusOperationError as
    the same ApplicationErrors that other callers get.
    """

    execute_method: nexusrpc.Operation[MethodCall, MethodResult]
    connection_status: nexusrpc.Operation[InstanceReference, dict[str, Any]]
    authorize: nexusrpc.Operation[AuthorizeInstance, PendingAuthorization]
    refresh: nexusrpc.Operation[RefreshInstance, RefreshAnswer]
