"""Reading what callers send, inside the workflow: an input that cannot be decoded fails it and does not hang it."""

from __future__ import annotations

from typing import Any

from temporalio import workflow
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue

with workflow.unsafe.imports_passed_through():
    from integration_service.contracts.errors import ErrorCode, IntegrationError


NOTHING = RawValue(Payload())
"""Stands where an input was left out."""


def read_input(raw: Any) -> Any:
    """The JSON value of an input, None without one. Raises IntegrationError VALIDATION_ERROR."""
    if raw is NOTHING:
        return None
    if not isinstance(raw, RawValue):
        return raw  # the SDK drops type hints when the count of inputs is not the one declared
    try:
        return workflow.payload_converter().from_payload(raw.payload)
    except Exception:
        raise IntegrationError(ErrorCode.VALIDATION_ERROR, "the input cannot be decoded as JSON") from None
