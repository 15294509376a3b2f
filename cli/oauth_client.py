"""`integrations definition client …`: the OAuth client that a definition, or one instance, uses."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from integration_service.cli.output import print_object
from integration_service.cli.session import Session, with_session
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.names import DEFAULT_SCOPE
from integration_service.contracts.oauth import OAuthClientRecord
from integration_service.contracts.wire import JsonObject, parse
from integration_service.storage.definitions import Definitions
from integration_service.storage.instances import Instances
from integration_service.storage.oauth_clients import OAuthClients
from integration_service.storage.vault.keyring import Keyring


@click.group()
def client() -> None:
    """A definition's registration at its provider; it goes into the vault and never back out."""


@client.command("set")
@click.argument("definition")
@click.option("--client-id", required=True)
@click.option("--secret-file", help="File with the client secret; - reads stdin. Without it, a prompt asks.")
@click.option("--private-key-file", help="File with a PEM or JWK, for private_key_jwt and jwt_bearer; - reads stdin.")
@click.option("--key-id", help="The private key's kid.")
@click.option("--scope", default=DEFAULT_SCOPE, show_default=True)
@click.option("--instance", "reference", help="Only for this instance.")
@with_session
async def set_(
    session: Session,
    definition: str,
    *,
    client_id: str,
    secret_file: str | None,
    private_key_file: str | None,
    key_id: str | None,
    scope: str,
    reference: str | None,
) -> None:
    """Keep the OAuth client of DEFINITION, in place of the one before; it may be set before the file is applied."""
    if [secret_file, private_key_file].count("-") > 1:
        raise click.UsageError("stdin gives one secret: --secret-file or --private-key-file")
    given: JsonObject = {
        "clientId": client_id,
        "clientSecret": _secret(secret_file, ask=private_key_file is None),
        "privateKey": _read(private_key_file) if private_key_file else None,
        "keyId": key_id,
    }
    record = parse(OAuthClientRecord, {key: value for key, value in given.items() if value is not None})
    keyring = Keyring.load(session.settings.require("keyring"))
    async with session.database() as database:
        found = await Instances(database).find(scope, reference) if reference else None
        if found is not None and found.definition != definition:
            raise IntegrationError(
                ErrorCode.VALIDATION_ERROR, f"that instance is one of {found.definition}", path="--instance"
            )
        if not await _is_known(Definitions(database), scope, definition):
            click.echo(f"There is no definition {definition} in scope {scope} yet.", err=True)
        scope, instance_id = (found.scope, found.id) if found else (scope, None)
        clients = OAuthClients(database, keyring)
        await clients.store(scope=scope, definition=definition, client=record, instance_id=instance_id)
    told = {"scope": scope, "definition": definition, "instance": instance_id, "set": sorted(record.to_wire())}
    print_object({key: value for key, value in told.items() if value is not None}, as_json=session.as_json)


async def _is_known(definitions: Definitions, scope: str, name: str) -> bool:
    places = dict.fromkeys((scope, DEFAULT_SCOPE))
    return any([await definitions.find(place, name) is not None for place in places])


def _secret(file: str | None, *, ask: bool) -> str | None:
    if file is not None:
        return _read(file)
    if not ask or not sys.stdin.isatty():
        return None  # a public client has none
    entered: str = click.prompt(
        "Client secret (empty for none)", default="", show_default=False, hide_input=True, err=True
    )
    return entered or None


def _read(file: str) -> str:
    try:
        text = (sys.stdin.read() if file == "-" else Path(file).read_text()).strip()
    except OSError as error:
        raise IntegrationError(ErrorCode.VALIDATION_ERROR, str(error.strerror), path=file) from None
    except UnicodeDecodeError:
        raise IntegrationError(ErrorCode.VALIDATION_ERROR, "not UTF-8 text", path=file) from None
    if not text:
        raise IntegrationError(ErrorCode.VALIDATION_ERROR, "it is empty", path=file)
    return text
