"""`integrations schema`: JSON Schemas of every wire type, and of a definition's methods."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from integration_service.cli.options import scope_option
from integration_service.cli.output import print_json
from integration_service.cli.session import common_options, find_session
from integration_service.contracts.definitions import IntegrationDefinition
from integration_service.contracts.names import DEFAULT_SCOPE
from integration_service.contracts.schemas import WIRE_TYPES, definition_schemas, method_schemas, type_schema


@click.command()
@click.argument("type_name", metavar="[TYPE]", required=False)
@click.option("--definition", metavar="NAME[@VERSION]", help="Of its methods (default: the highest published version).")
@click.option("--method", help="Of this method only.")
@scope_option
@common_options
def schema(
    type_name: str | None,
    *,
    definition: str | None,
    method: str | None,
    scope: str,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """JSON Schemas of what goes over the wire, and of methods.

    Without an argument of every type, by name; with TYPE of that one; with --definition of its methods' params and
    results.
    """
    if definition is not None and type_name is not None:
        raise click.UsageError("takes a TYPE or --definition, not both")
    if definition is None and method is not None:
        raise click.UsageError("--method goes with --definition")
    if definition is not None:
        found = asyncio.run(_find(data_dir, scope, definition))
        return print_json(definition_schemas(found) if method is None else method_schemas(found, method))
    if type_name is not None:
        return print_json(type_schema(type_name))
    print_json({name: type_schema(name) for name in WIRE_TYPES})


async def _find(data_dir: Path | None, scope: str, wanted: str) -> IntegrationDefinition:
    """That very version, a draft too, or what a new instance would get; the scope's own first, then the global one."""
    from integration_service.storage.definitions import Definitions, not_found

    name, _, version = wanted.partition("@")
    async with find_session(data_dir).database() as database:
        definitions = Definitions(database)
        if not version:
            return await definitions.connectable(scope, name)
        for place in dict.fromkeys((scope, DEFAULT_SCOPE)):
            if (found := await definitions.find(place, name, version)) is not None:
                return found
    raise not_found(name, version)
