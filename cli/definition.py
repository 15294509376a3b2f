"""`integrations definition …`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import yaml

from integration_service.activities.execution.compiled import check_definition
from integration_service.activities.outbound.egress import EgressPolicy
from integration_service.activities.outbound.transport import Transport
from integration_service.activities.wsdl.collection import with_documents
from integration_service.cli.oauth_client import client
from integration_service.cli.options import scope_option
from integration_service.cli.output import print_json, print_object, print_rows
from integration_service.cli.secrets import read_source
from integration_service.cli.session import Session, with_session
from integration_service.contracts.definitions import (
    DefinitionFile,
    IntegrationDefinition,
    IntegrationDefinitionStatus,
)
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.oauth import OAuthClientRecord
from integration_service.contracts.wire import JsonObject, parse
from integration_service.storage.database import Database
from integration_service.storage.definitions import Definitions, not_found
from integration_service.storage.oauth_clients import OAuthClients
from integration_service.storage.vault.keyring import Keyring

_COLUMNS = ("scope", "name", "version", "status", "type", "authType", "methods", "id")


@click.group()
def definition() -> None:
    """What an API is: apply files, publish, list."""


definition.add_command(client)


@definition.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--publish", is_flag=True, help="Publish what is applied.")
@with_session
async def apply(session: Session, files: tuple[Path, ...], *, publish: bool) -> None:
    """Store definitions from YAML or JSON files. All files are checked before the first is stored."""
    read = [(path, await _with_wsdl(session, path, _read_file(path), many=len(files) > 1)) for path in files]
    for path, file in read:
        with _named(path, many=len(files) > 1):
            check_definition(file, publish=publish)
    stored: list[IntegrationDefinition] = []
    async with session.database() as database:
        for path, file in read:
            with _named(path, many=len(files) > 1):
                stored.append(await Definitions(database).apply(file, publish=publish))
                await _seed_client(session, database, path, file)
    print_rows([_row(one) for one in stored], _COLUMNS, as_json=session.as_json)


@definition.command("list")
@click.option("--scope", help="Only this scope.")
@with_session
async def list_(session: Session, scope: str | None) -> None:
    """Every definition."""
    async with session.database() as database:
        rows = [_row(one) for one in await Definitions(database).list(scope=scope)]
    print_rows(rows, _COLUMNS, as_json=session.as_json)


@definition.command()
@click.argument("name")
@click.argument("version", required=False)
@scope_option
@with_session
async def show(session: Session, name: str, version: str | None, scope: str) -> None:
    """A definition as JSON, the newest without VERSION."""
    async with session.database() as database:
        found = await Definitions(database).find(scope, name, version)
    if found is None:
        raise not_found(name, version)
    print_json(found.to_wire())


def _lifecycle(command: str, to: IntegrationDefinitionStatus, text: str) -> click.Command:
    @definition.command(command, help=text)
    @click.argument("name")
    @click.argument("version", required=False)
    @scope_option
    @with_session
    async def move(session: Session, name: str, version: str | None, scope: str) -> None:
        async with session.database() as database:
            definitions = Definitions(database)
            if to is IntegrationDefinitionStatus.PUBLISHED:
                found = await definitions.find(scope, name, version)
                if found is not None:
                    check_definition(found, publish=True)
            moved = await definitions.move(scope, name, version, to)
        print_object(_row(moved), as_json=session.as_json)

    return move


publish = _lifecycle(
    "publish", IntegrationDefinitionStatus.PUBLISHED, "Make a DRAFT usable; from then on it never changes."
)
deprecate = _lifecycle(
    "deprecate", IntegrationDefinitionStatus.DEPRECATED, "Refuse new instances; existing ones go on."
)
archive = _lifecycle(
    "archive", IntegrationDefinitionStatus.ARCHIVED, "Put a DEPRECATED definition away that no instance uses."
)


def _read_file(path: Path) -> DefinitionFile:
    try:
        text = path.read_text()
        data: Any = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
        # YAML reads dates and the like; what goes on must be what JSON can say.
        data = json.loads(json.dumps(data, default=str))
    except OSError as error:
        raise IntegrationError(ErrorCode.VALIDATION_ERROR, str(error.strerror), path=str(path)) from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise IntegrationError(
            ErrorCode.VALIDATION_ERROR, f"not readable as YAML or JSON: {_where(error)}", path=str(path)
        ) from None
    return parse(DefinitionFile, data)


async def _with_wsdl(session: Session, path: Path, file: DefinitionFile, *, many: bool) -> DefinitionFile:
    """A SOAP definition holds its WSDL and all that it imports: what is stored never changes, and no worker asks."""
    if file.type != "soap":
        return file
    transport = Transport(EgressPolicy(session.settings.egress_allow))
    await transport.open()
    try:
        with _named(path, many=many):
            return await with_documents(file, beside=path, transport=transport)
    finally:
        await transport.close()


def _where(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or type(error).__name__
    return f"{problem} in line {mark.line + 1}" if mark else str(problem)


class _named:  # noqa: N801 - reads as a function where it is used
    """Among several files, an error's path begins with its file."""

    def __init__(self, path: Path, *, many: bool) -> None:
        self._path, self._many = path, many

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if self._many and isinstance(error, IntegrationError):
            error.path = f"{self._path}: {error.path}" if error.path else str(self._path)


async def _seed_client(session: Session, database: Database, path: Path, file: DefinitionFile) -> None:
    """The file's client id and secrets go into the vault; the stored definition has none of them."""
    config = file.oauth2_config
    if config is None or config.client_id is None:
        return
    sources = {
        "clientId": config.client_id,
        "clientSecret": config.client_secret,
        "privateKey": config.private_key,
        "keyId": config.key_id,
    }
    given = {key: read_source(source, beside=path) for key, source in sources.items() if source is not None}
    seeded = parse(OAuthClientRecord, given, at="oauth2Config")
    keyring = Keyring.load(session.settings.require("keyring"))
    await OAuthClients(database, keyring).store(scope=file.scope, definition=file.name, client=seeded)


def _row(one: IntegrationDefinition) -> JsonObject:
    wire = one.to_wire()
    return {
        **{key: wire[key] for key in ("id", "scope", "name", "version", "status", "type", "authType")},
        "methods": [method.name for method in one.methods],
    }
