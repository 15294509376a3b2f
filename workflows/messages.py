"""Reading messages and answering them: failures typed by code, one writer at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

with workflow.unsafe.imports_passed_through():
    from integration_service.contracts.errors import (
        ErrorCode,
        IntegrationError,
        from_failure,
        to_application_error,
    )
    from integration_service.contracts.wire import WireModel, parse

Message = TypeVar("Message", bound=WireModel)


def read_message(model: type[Message], message: Any) -> Message:
    """A message as its model. Raises ApplicationError VALIDATION_ERROR."""
    try:
        return parse(model, {} if message is None else message)
    except IntegrationError as error:
        raise to_application_error(error) from None


def as_application_error(error: IntegrationError | ActivityError) -> ApplicationError:
    """A failure as callers see it, whatever Temporal wrapped it in."""
    if isinstance(error, IntegrationError):
        return to_application_error(error)
    found = from_failure(error) or IntegrationError(ErrorCode.UNAVAILABLE, "a step of the connection could not be done")
    return to_application_error(found)


class Turn:
    """One update's turn: after the start, one at a time, its failures typed by code."""

    def __init__(self, opened: Callable[[], Any], lock: asyncio.Lock, deleted: Callable[[], bool]) -> None:
        self._opened = opened
        self._lock = lock
        self._is_deleted = deleted

    async def __aenter__(self) -> None:
        await self._opened()
        await self._lock.acquire()
        if self._is_deleted():
            self._lock.release()
            raise to_application_error(
                IntegrationError(ErrorCode.INSTANCE_NOT_FOUND, "the instance was deleted", path="instanceId")
            )

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._lock.release()
        if isinstance(error, ActivityError | IntegrationError):
            raise as_application_error(error) from None
