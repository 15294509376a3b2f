"""Pure builders and parsers, one per definition type: values in, values out; they never send."""

from __future__ import annotations

from integration_service.activities.adapters.graphql import GraphqlAdapter
from integration_service.activities.adapters.http import HttpAdapter
from integration_service.activities.adapters.protocol import Adapter, Parsed
from integration_service.activities.adapters.soap import SoapAdapter
from integration_service.activities.wsdl.documents import WsdlDocuments
from integration_service.activities.wsdl.model import wsdl_model
from integration_service.contracts.definitions import (
    DefinitionFile,
    GraphqlRequest,
    HttpRequest,
    IntegrationMethod,
    SoapRequest,
)
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
        case SoapRequest() as request:
            model = wsdl_model(WsdlDocuments.of(definition))
            return SoapAdapter(model, request, base_url=definition.base_url, at=f"{at}.request")


def _base_url(definition: DefinitionFile) -> str:
    if definition.base_url is None:
        raise _missing("baseUrl")
    return definition.base_url


def _missing(path: str) -> IntegrationError:
    return IntegrationError(ErrorCode.VALIDATION_ERROR, "required key is missing", path=path)
