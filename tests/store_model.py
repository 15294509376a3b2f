"""What the stores must hold, in memory, and writers that are let loose at the same time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from integration_service.contracts.credentials import CredentialPayload, parse_credential
from integration_service.contracts.definitions import IntegrationDefinitionStatus
from integration_service.contracts.errors import IntegrationError
from integration_service.contracts.instances import IntegrationInstanceStatus
from integration_service.contracts.wire import JsonObject

Answer = TypeVar("Answer")
Choice = TypeVar("Choice")


@dataclass
class Held:
    """What an instance and its credential must be. `generation` is 0 without a credential, `reached` the last ever."""

    id: str
    name: str
    definition_id: str
    version: int
    status: IntegrationInstanceStatus
    config: JsonObject
    generation: int = 0
    reached: int = 0
    epoch: int = 0
    secret: str = ""


@dataclass
class Published:
    """What a version of the definition must be."""

    id: str
    status: IntegrationDefinitionStatus
    description: str


@dataclass
class Model:
    """All that must be stored."""

    definitions: dict[str, Published] = field(default_factory=dict)
    instances: list[Held] = field(default_factory=list)

    @property
    def published(self) -> list[Published]:
        return [held for held in self.definitions.values() if held.status is IntegrationDefinitionStatus.PUBLISHED]


async def together(
    work: Callable[[Choice], Awaitable[Answer]], among: Iterable[Choice]
) -> tuple[list[Answer], list[str | None]]:
    """What was answered, and for each its error's code or None."""
    done, failed = await _all(work, among)
    return done, [error.code if error else None for error in failed]


async def racing(
    write: Callable[[Choice], Awaitable[Answer]], among: Iterable[Choice]
) -> tuple[list[Answer], list[JsonObject]]:
    """What the writers that got through answered, and the details of the others' VERSION_CONFLICTs."""
    done, failed = await _all(write, among)
    conflicts = [error for error in failed if error is not None]
    assert {error.code for error in conflicts} <= {"VERSION_CONFLICT"}, conflicts
    return done, [error.details for error in conflicts]


async def _all(
    work: Callable[[Choice], Awaitable[Answer]], among: Iterable[Choice]
) -> tuple[list[Answer], list[IntegrationError | None]]:
    outcomes = await asyncio.gather(*(work(choice) for choice in among), return_exceptions=True)
    done: list[Answer] = []
    failed: list[IntegrationError | None] = []
    for outcome in outcomes:
        if isinstance(outcome, IntegrationError):
            failed.append(outcome)
        elif isinstance(outcome, BaseException):
            raise outcome
        else:
            failed.append(None)
            done.append(outcome)
    return done, failed


def told_both(error: IntegrationError, version: int) -> bool:
    """Whether a conflict names the version that was read, and a later one."""
    return bool(error.details["expected"] == version < error.details["current"])


def secret_payload(secret: str) -> CredentialPayload:
    """A credential that holds one secret."""
    return parse_credential(json.dumps({"type": "custom", "custom": {"secret": secret}}).encode())
