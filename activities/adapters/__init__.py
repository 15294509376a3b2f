"""Pure builders and parsers, one per definition type: values in, values out; they never send."""

from __future__ import annotations

from integration_service.activities.adapters.graphql import GraphqlAdapter
from integration_service.activities.adapters.http import HttpAdapter
from integration_service.activities.adapters.protocol import Adapter, Parsed
from integration_service.contracts.definitions import DefinitionFile, GraphqlRequest, HttpRequest, IntegrationMethod
from integration_service.contracts.errors import ErrorCode, IntegrationError

__all__ = ["Adapter", "Parsed", "adapter_for"]


def adapter_for(definition: DefinitionFile, method: IntegrationMethod, *, at: str) -> Adapter:
    """The adapter of a method. Raises IntegrationError VALIDATION_ERROR when it cannot be built."""
    match method.request:
        case None:
            raise _missing(f"{at}.request")
        case HttpRequest() as request:
            return HttpAdapter(_base_url(definition), request, at=f"{at}.request")
        case GraphqlRequest() as request:
            # A transform makes the variables: the params' schema then says nothing about them.
            params = method.param_schema if method.request_transform is None else None
            return GraphqlAdapter(
                _base_url(definition), request, at=f"{at}.request", params=params, params_at=f"{at}.paramSchema"
            )
    raise IntegrationError(
        ErrorCode.VALIDATION_ERROR, f"type {definition.type} cannot be run by this version", path="type"
    )


def _base_url(definition: DefinitionFile) -> str:
    if definition.base_url is None:
        raise _missing("baseUrl")
    return definition.base_url


def _missing(path: str) -> IntegrationError:
    return IntegrationError(ErrorCode.VALIDATION_ERROR, "required key is missing", path=path)
