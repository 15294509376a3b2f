"""`integrations instance …`: thin clients of `ConnectInstance`."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable

import click
import httpx2

from integration_service.cli.authorize import authorize
from integration_service.cli.connect_link import connect_link
from integration_service.cli.options import json_option, scope_option
from integration_service.cli.output import print_object, print_rows
from integration_service.cli.secrets import read_credential
from integration_service.cli.session import Session, with_session
from integration_service.client import Connection
from integration_service.contracts.answers import ConnectionStatus
from integration_service.contracts.credentials import SealKey
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.instances import Configure, ConnectInstanceInput, IntegrationInstance
from integration_service.contracts.wire import JsonObject, parse
from integration_service.storage.instances import Instances
from integration_service.storage.vault.seal import seal

_COLUMNS = ("scope", "name", "status", "definition", "definitionVersion", "lastUsedAt", "id")


@click.group()
def instance() -> None:
    """One customer's connection: connect, prove, call, take away."""


@instance.command()
@click.argument("definition")
@click.option("--name", required=True, help="What people call the instance.")
@click.option("--version", help="A version of the definition (default: the highest that is published).")
@click.option("--config", help="The instance's config, as JSON.")
@click.option("--id", "instance_id", help="Its UUID (default: a new one).")
@scope_option
@with_session
async def connect(
    session: Session,
    definition: str,
    *,
    name: str,
    version: str | None,
    config: str | None,
    instance_id: str | None,
    scope: str,
) -> None:
    """Make an instance of DEFINITION and start the workflow that owns it."""
    asked: JsonObject = {
        "instanceId": instance_id or str(uuid.uuid4()),
        "scope": scope,
        "definition": definition,
        "name": name,
        **({"version": version} if version else {}),
        **({"config": json_option(config, "--config")} if config is not None else {}),
    }
    wanted = parse(ConnectInstanceInput, asked)
    integrations = await session.integrations()
    print_object(await integrations.connect(wanted), as_json=session.as_json)


@instance.command("list")
@click.option("--scope", help="Only this scope.")
@with_session
async def list_(session: Session, scope: str | None) -> None:
    """Every instance."""
    async with session.database() as database:
        rows = [one.to_wire() for one in await Instances(database).list(scope=scope)]
    print_rows(rows, _COLUMNS, as_json=session.as_json)


@instance.command()
@click.argument("reference", metavar="INSTANCE")
@scope_option
@with_session
async def show(session: Session, reference: str, scope: str) -> None:
    """An instance as its row stands, with `lastUsedAt`."""
    print_object((await _find(session, scope, reference)).to_wire(), as_json=session.as_json)


@instance.command()
@click.argument("reference", metavar="INSTANCE")
@click.option("--file", help="JSON object with the credential; - reads stdin. Without it, a prompt asks.")
@scope_option
@with_session
async def credentials(session: Session, reference: str, *, file: str | None, scope: str) -> None:
    """Seal a credential, submit it and prove it."""
    found = await _find(session, scope, reference)
    plaintext = read_credential(found.auth_type, file)
    key = await _seal_key(session.settings.public_url)
    connection = (await session.integrations()).connection(found.id)
    answer = await connection.submit_credentials(seal(key, found.id, plaintext))
    print_object(answer, as_json=session.as_json)


instance.add_command(authorize)
instance.add_command(connect_link)


@instance.command()
@click.argument("reference", metavar="INSTANCE")
@scope_option
@with_session
async def refresh(session: Session, reference: str, scope: str) -> None:
    """Get a new access token at once."""
    found = await _find(session, scope, reference)
    print_object(await (await session.integrations()).refresh(found.id), as_json=session.as_json)


@instance.command()
@click.argument("reference", metavar="INSTANCE")
@click.option("--config", required=True, help="The whole config, as JSON.")
@scope_option
@with_session
async def configure(session: Session, reference: str, *, config: str, scope: str) -> None:
    """Replace the instance's config."""
    wanted = parse(Configure, {"config": json_option(config, "--config")}).config
    connection = await _connection(session, scope, reference)
    print_object(await connection.configure(wanted), as_json=session.as_json)


@instance.command()
@click.argument("reference", metavar="INSTANCE")
@click.argument("version")
@scope_option
@with_session
async def upgrade(session: Session, reference: str, version: str, scope: str) -> None:
    """Pin the instance to another published VERSION."""
    connection = await _connection(session, scope, reference)
    print_object(await connection.upgrade(version), as_json=session.as_json)


@instance.command()
@click.argument("reference", metavar="INSTANCE")
@click.option("--revoke/--no-revoke", default=True, help="Ask the provider to revoke, where it can.")
@scope_option
@with_session
async def disconnect(session: Session, reference: str, *, revoke: bool, scope: str) -> None:
    """Erase the credential and stop using the instance."""
    connection = await _connection(session, scope, reference)
    print_object(await connection.disconnect(revoke=revoke), as_json=session.as_json)


def _plain(command: str, update: Callable[[Connection], Awaitable[ConnectionStatus]], text: str) -> click.Command:
    @instance.command(command, help=text)
    @click.argument("reference", metavar="INSTANCE")
    @scope_option
    @with_session
    async def send(session: Session, reference: str, scope: str) -> None:
        print_object(await update(await _connection(session, scope, reference)), as_json=session.as_json)

    return send


test = _plain("test", Connection.test, "Prove the credential again.")
reconnect = _plain("reconnect", Connection.reconnect, "Take a disconnected instance into use again.")
delete = _plain("delete", Connection.delete, "Erase the instance, free its name and end its workflow.")


async def _connection(session: Session, scope: str, reference: str) -> Connection:
    found = await _find(session, scope, reference)
    return (await session.integrations()).connection(found.id)


async def _find(session: Session, scope: str, reference: str) -> IntegrationInstance:
    async with session.database() as database:
        return await Instances(database).find(scope, reference)


async def _seal_key(gateway: str) -> SealKey:
    """Our own gateway's address, so neither the egress policy nor a proxy has a say."""
    try:
        async with httpx2.AsyncClient(trust_env=False, timeout=10) as http:
            response = await http.get(f"{gateway}/v1/seal-key")
            response.raise_for_status()
            return parse(SealKey, response.json())
    except (httpx2.HTTPError, ValueError):
        raise IntegrationError(
            ErrorCode.UNAVAILABLE, f"no seal key at {gateway}", path="INTEGRATIONS_PUBLIC_URL"
        ) from None
