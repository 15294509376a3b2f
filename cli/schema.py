"""`integrations schema`: JSON Schemas of every wire type."""

from __future__ import annotations

from pathlib import Path

import click

from integration_service.cli.output import print_json
from integration_service.cli.session import common_options
from integration_service.contracts import calls, credentials, definitions, instances, retry
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.wire import JsonObject, WireModel

_TYPES: dict[str, type[WireModel]] = {
    model.__name__: model
    for model in (
        calls.MethodCall,
        calls.MethodResult,
        credentials.IntegrationCredential,
        credentials.CredentialPayload,
        credentials.Sealed,
        credentials.SealKey,
        definitions.DefinitionFile,
        definitions.IntegrationDefinition,
        definitions.IntegrationMethod,
        definitions.OAuth2Config,
        retry.RetryConfig,
        instances.IntegrationInstance,
        instances.ConnectInstanceInput,
        instances.Configure,
        instances.SubmitCredentials,
        instances.Upgrade,
        instances.Disconnect,
        instances.Observed,
    )
}


@click.command()
@click.argument("type_name", metavar="[TYPE]", required=False)
@common_options
def schema(type_name: str | None, *, data_dir: Path | None, as_json: bool) -> None:
    """The JSON Schema of TYPE, or of all wire types by name."""
    if type_name is None:
        return print_json({name: _schema(model) for name, model in _TYPES.items()})
    model = _TYPES.get(type_name)
    if model is None:
        raise IntegrationError(ErrorCode.VALIDATION_ERROR, f"no such type; there are {', '.join(_TYPES)}", path="TYPE")
    print_json(_schema(model))


def _schema(model: type[WireModel]) -> JsonObject:
    # As input: the custom serializer that leaves absent keys out hides the shape from the other mode.
    return model.model_json_schema(by_alias=True, mode="validation")
