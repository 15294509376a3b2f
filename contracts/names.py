"""Names that other programs rely on: workflows, task queues, search attributes, ids."""

from __future__ import annotations

import hashlib
import re
import uuid
from typing import Annotated

from pydantic import AfterValidator, StringConstraints
from temporalio.common import SearchAttributeKey

DEFAULT_SCOPE = "global"
TASK_QUEUE = "integrations"

EXECUTE_METHOD = "ExecuteMethod"
CONNECT_INSTANCE = "ConnectInstance"
REFRESH_OAUTH = "RefreshOAuth"

INTEGRATION_DEFINITION = SearchAttributeKey.for_keyword("IntegrationDefinition")
INTEGRATION_INSTANCE = SearchAttributeKey.for_keyword("IntegrationInstance")
INTEGRATION_STATUS = SearchAttributeKey.for_keyword("IntegrationStatus")
INTEGRATION_METHOD = SearchAttributeKey.for_keyword("IntegrationMethod")
SEARCH_ATTRIBUTES = (
    INTEGRATION_DEFINITION,
    INTEGRATION_INSTANCE,
    INTEGRATION_STATUS,
    INTEGRATION_METHOD,
)

# Semantic Versioning 2.0.0, its own suggested grammar (https://semver.org).
_SEMVER = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(?:-((?:0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)(?:\.(?:0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*))*))?"
    r"(?:\+([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?",
    re.ASCII,
)


def control_queue(task_queue: str) -> str:
    """Where refreshes, connection-side and maintenance activities run, beside `task_queue`."""
    return f"{task_queue}-control"


def connection_tests_queue(task_queue: str) -> str:
    """Where `connectionTest` runs: a slow upstream takes places here, and none of a refresh."""
    return f"{control_queue(task_queue)}-tests"


def connection_workflow_id(instance_id: str) -> str:
    """The id of the one workflow that owns an instance."""
    return f"connection:{instance_id}"


def refresh_workflow_id(instance_id: str) -> str:
    """The id of the one workflow that spends an instance's refresh token."""
    return f"oauth-refresh:{instance_id}"


def activity_type(definition: str, method: str) -> str:
    """The name under which a method stands in the Web UI, such as ``github.create_issue``."""
    return f"{definition}.{method}"


_CANONICAL_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_EXECUTIONS = uuid.UUID("8f6b1d5e-3a52-4f0e-9d39-6a1f3a2f7c10")


def execution_key(*parts: str) -> str:
    """The default idempotency key: UUIDv5 over what names an execution, the same at each of its attempts."""
    return str(uuid.uuid5(_EXECUTIONS, "/".join(parts)))


def is_uuid(text: str) -> bool:
    """Whether `text` parses as a UUID in any of its spellings (an instance's name must not)."""
    if is_canonical_uuid(text):
        return True
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True


def is_canonical_uuid(text: str) -> bool:
    """Whether `text` is a UUID as we write them: lower case, with hyphens, without braces or `urn:`."""
    return _CANONICAL_UUID.fullmatch(text) is not None


def _canonical_uuid(text: str) -> str:
    if not is_canonical_uuid(text):
        raise ValueError("must be a UUID in canonical lower case")
    return text


def _instance_name(text: str) -> str:
    if is_uuid(text):
        raise ValueError("must not look like a UUID, since calls name an instance by either")
    return text


def _semver(text: str) -> str:
    if not _SEMVER.fullmatch(text):
        raise ValueError("must be a semantic version such as 1.4.0")
    return text


def fairness_key(scope: str, reference: str) -> str:
    """What Temporal shares a backlog out by (`Priority.fairness_key`, at most 64 bytes): an instance by id or name."""
    return reference if is_uuid(reference) else hashlib.sha256(f"{scope}\0{reference}".encode()).hexdigest()[:32]


def semver_key(version: str) -> tuple[tuple[int, int, int], bool, tuple[tuple[bool, int, str], ...]]:
    """Orders versions by precedence (Semantic Versioning 2.0.0, §11); build metadata does not count."""
    match = _SEMVER.fullmatch(version)
    if match is None:
        raise ValueError(f"not a semantic version: {version}")
    major, minor, patch, pre, _ = match.groups()
    parts = tuple(
        (not part.isdigit(), int(part) if part.isdigit() else 0, "" if part.isdigit() else part)
        for part in (pre.split(".") if pre else ())
    )
    return (int(major), int(minor), int(patch)), not pre, parts


def is_prerelease(version: str) -> bool:
    """Whether `version` carries a pre-release part such as ``-rc.1``."""
    return not semver_key(version)[1]


DefinitionName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
MethodName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")]
InstanceName = Annotated[
    str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00]*$"), AfterValidator(_instance_name)
]
Scope = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00]*$")]
Uuid = Annotated[str, AfterValidator(_canonical_uuid)]
SemVer = Annotated[str, StringConstraints(max_length=128), AfterValidator(_semver)]
