"""Pure builders and parsers, one per definition type: values in, values out; they never send."""

from __future__ import annotations

from integration_service.activities.adapters.http import HttpAdapter
from integration_service.activities.adapters.protocol import Adapter, Parsed
from integration_service.contracts.definitions import DefinitionFile, HttpRequest, IntegrationMethod
from integration_service.contracts.errors import ErrorCode, IntegrationError

__all__ = ["Adapter", "Parsed", "adapter_for"]


def adapter_for(definition: DefinitionFile, method: IntegrationMethod, *, at: str) -> Adapter:
    """The adapter of a method. Raises IntegrationError VALIDATION_ERROR when it cannot be built."""
    if definition.type != "http":
        raise IntegrationError(
            ErrorCode.VALIDATION_ERROR, f"type {definition.type} cannot be run by this version", path="type"
        )
    if not isinstance(method.request, HttpRequest):
        raise IntegrationError(ErrorCode.VALIDATION_ERROR, "required key is missing", path=f"{at}.request")
    if definition.base_url is None:
        raise IntegrationError(ErrorCode.VALIDATION_ERROR, "required key is missing", path="baseUrl")
    return HttpAdapter(definition.base_url, method.request, at=f"{at}.request")
