"""What queries and updates answer, as callers hold it: the JSON object as it came, its keys known to type checkers.

Keys that a newer service adds are kept, and times stay the texts of the wire.
"""

from __future__ import annotations

from typing import Any, NotRequired

from typing_extensions import TypedDict

from integration_service.contracts.definitions import IntegrationAuthType
from integration_service.contracts.instances import IntegrationInstanceStatus


class StatusError(TypedDict):
    """What is wrong with an instance."""

    message: str
    code: str
    details: NotRequired[Any]


class ConnectionStatus(TypedDict):
    """The status object: the `IntegrationInstance`, and what its workflow knows besides.

    `authorizationUrl` and `userCode` stand there only while somebody is to open it; the times of the token only with
    OAuth. Before the instance's row is written there are `id` and `status` alone.
    """

    id: str
    status: IntegrationInstanceStatus
    integrationDefinitionId: NotRequired[str]
    name: NotRequired[str]
    config: NotRequired[dict[str, Any]]
    error: NotRequired[StatusError]
    createdAt: NotRequired[str]
    updatedAt: NotRequired[str]
    lastUsedAt: NotRequired[str]
    lastConnectedAt: NotRequired[str]
    scope: NotRequired[str]
    definition: NotRequired[str]
    definitionVersion: NotRequired[str]
    authType: NotRequired[IntegrationAuthType]
    version: NotRequired[int]
    authorizationUrl: NotRequired[str]
    userCode: NotRequired[str]
    expiresAt: NotRequired[str]
    nextRefreshAt: NotRequired[str]
    grantedScope: NotRequired[str]
    missingScope: NotRequired[list[str]]


class Authorization(TypedDict):
    """An authorization that has begun: the address that a person opens, and until when."""

    authorizationUrl: str
    expiresAt: str
    stateHash: str
    userCode: NotRequired[str]
    intervalMs: NotRequired[int]


class TokenRefresh(TypedDict):
    """What a refresh gave; never a token. With `retryAfterMs` no newer token could be had yet."""

    generation: int
    expiresAt: NotRequired[str]
    retryAfterMs: NotRequired[int]
    retryAt: NotRequired[str]
