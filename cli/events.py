"""`integrations events …`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from integration_service.activities.webhooks import check_secret, new_secret
from integration_service.cli.options import scope_option
from integration_service.cli.output import print_object, print_rows
from integration_service.cli.session import Session, with_session
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.events import NewSubscription, Subscription, like_pattern
from integration_service.contracts.names import is_canonical_uuid
from integration_service.contracts.wire import JsonObject, parse
from integration_service.storage.database import Database
from integration_service.storage.deliveries import Deliveries, ReplayFilter
from integration_service.storage.instances import Instances
from integration_service.storage.outbox import Outbox
from integration_service.storage.subscriptions import Subscriptions
from integration_service.storage.vault.key_file import open_keyring
from integration_service.storage.vault.keyring import KeyProvider

_SUBSCRIPTIONS = ("id", "scope", "target", "eventTypes", "definition", "instanceId", "enabled", "disabledReason")
_EVENTS = ("time", "type", "subject", "sequence", "id")
_DEAD = ("deadSince", "type", "subject", "attempts", "reason", "eventId", "subscriptionId")
_TIME = click.DateTime(["%Y-%m-%dT%H:%M:%S.%fZ", "%Y-%m-%dT%H:%M:%SZ"])
_KEEP_OLD = timedelta(hours=24)
_SECRET_HELP = "File with the signing secret (whsec_…); - reads stdin."  # noqa: S105 - no secret


@click.group()
def events() -> None:
    """Who hears of what: webhooks and workflows that subscribe, dead letters, replay."""


@events.command()
@click.option("--url", help="Webhook: where events are posted to.")
@click.option("--workflow", "workflow_id", help="Workflow that is signalled, by id.")
@click.option("--signal", "signal_name", help="The signal's name.")
@click.option("--type", "types", multiple=True, help="Event type, `integration.credential.*` or `*`; may be repeated.")
@click.option("--definition", help="Only of this definition.")
@click.option("--instance", "reference", help="Only of this instance (id or name).")
@click.option("--all-scopes", is_flag=True, help="Hear every scope; only with the global scope.")
@click.option("--secret-file", help=_SECRET_HELP)
@click.option("--ask-secret", is_flag=True, help="Ask for the signing secret.")
@scope_option
@with_session
async def subscribe(
    session: Session,
    *,
    url: str | None,
    workflow_id: str | None,
    signal_name: str | None,
    types: tuple[str, ...],
    definition: str | None,
    reference: str | None,
    all_scopes: bool,
    secret_file: str | None,
    ask_secret: bool,
    scope: str,
) -> None:
    """Subscribe a webhook, or a workflow. A webhook's secret is made, and shown this once, when none is given."""
    if (url is None) == (workflow_id is None) or (workflow_id is None) != (signal_name is None):
        raise click.UsageError("give --url, or --workflow and --signal")
    if workflow_id and (secret_file or ask_secret):
        raise click.UsageError("only a webhook has a secret")
    given = _given_secret(secret_file, ask=ask_secret)
    secret = given or new_secret() if url else None
    async with session.database() as database:
        asked: JsonObject = {
            "scope": scope,
            "allScopes": all_scopes,
            "webhook": {"url": url} if url else None,
            "workflow": {"workflowId": workflow_id, "signalName": signal_name} if workflow_id else None,
            "eventTypes": list(types) or None,
            "definition": definition,
            "instanceId": await _instance_id(database, scope, reference),
        }
        wanted = parse(NewSubscription, {key: value for key, value in asked.items() if value is not None})
        made = await Subscriptions(database, _keyring(session)).add(wanted, secret=secret)
    shown = {"secret": secret} if secret and not given else {}
    print_object({**_row(made), **shown}, as_json=session.as_json)
    if shown and not session.as_json:
        click.echo("Keep the secret now: it is not shown again.", err=True)


@events.command("list")
@click.option("--scope", help="Only this scope.")
@with_session
async def list_(session: Session, scope: str | None) -> None:
    """Every subscription."""
    async with session.database() as database:
        found = await Subscriptions(database, _keyring(session)).list(scope=scope)
    print_rows([_row(one) for one in found], _SUBSCRIPTIONS, as_json=session.as_json)


@events.command()
@click.argument("subscription", type=click.UUID)
@with_session
async def unsubscribe(session: Session, subscription: object) -> None:
    """Forget a subscription, its secrets and what is still owed to it."""
    async with session.database() as database:
        await Subscriptions(database, _keyring(session)).remove(str(subscription))
    print_object({"id": str(subscription), "unsubscribed": True}, as_json=session.as_json)


@events.command()
@click.argument("subscription", type=click.UUID)
@with_session
async def enable(session: Session, subscription: object) -> None:
    """Enable a subscription again; what it missed comes by `replay`."""
    async with session.database() as database:
        found = await Subscriptions(database, _keyring(session)).enable(str(subscription))
    print_object(_row(found), as_json=session.as_json)


@events.command()
@click.argument("subscription", type=click.UUID)
@click.option("--secret-file", help=_SECRET_HELP)
@click.option("--ask-secret", is_flag=True, help="Ask for the signing secret.")
@with_session
async def rotate(session: Session, subscription: object, *, secret_file: str | None, ask_secret: bool) -> None:
    """Sign with a new secret; for a day, with the old ones beside it."""
    given = _given_secret(secret_file, ask=ask_secret)
    secret = given or new_secret()
    async with session.database() as database:
        await Subscriptions(database, _keyring(session)).rotate(str(subscription), secret, keep_old_for=_KEEP_OLD)
    shown = {} if given else {"secret": secret}
    print_object({"id": str(subscription), "rotated": True, **shown}, as_json=session.as_json)


@events.command()
@click.option("--limit", "-n", default=20, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--type", "pattern", help="Only this event type, or `integration.credential.*`.")
@click.option("--instance", "reference", help="Only of this instance (id or name).")
@scope_option
@with_session
async def tail(session: Session, *, limit: int, pattern: str | None, reference: str | None, scope: str) -> None:
    """The newest events, newest last; whole with --json."""
    async with session.database() as database:
        found = await Outbox(database).tail(
            limit=limit,
            scope=scope,
            instance_id=await _instance_id(database, scope, reference),
            pattern=like_pattern(pattern) if pattern else None,
        )
    print_rows([one.to_wire() for one in found], _EVENTS, as_json=session.as_json)


@events.command()
@click.option("--limit", "-n", default=20, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--subscription", type=click.UUID, help="Only of this one.")
@with_session
async def dead(session: Session, *, limit: int, subscription: object | None) -> None:
    """The newest dead letters: events that could not be delivered."""
    async with session.database() as database:
        rows = await Deliveries(database).dead(limit=limit, subscription_id=str(subscription) if subscription else None)
    print_rows(rows, _DEAD, as_json=session.as_json)


@events.command()
@click.option("--id", "event_id", type=click.UUID, help="This event.")
@click.option("--subscription", type=click.UUID, help="Only to this one.")
@click.option("--since", type=_TIME, help="From this time on (UTC).")
@click.option("--until", type=_TIME, help="Before this time (UTC).")
@click.option("--dead", "only_dead", is_flag=True, help="Only dead letters.")
@click.option("--dry-run", is_flag=True, help="Only say how many it would be.")
@with_session
async def replay(
    session: Session,
    *,
    event_id: object | None,
    subscription: object | None,
    since: datetime | None,
    until: datetime | None,
    only_dead: bool,
    dry_run: bool,
) -> None:
    """Deliver events again, each with its old id, to the subscriptions that match them now."""
    if not any((event_id, subscription, since, until)):
        raise click.UsageError("say what: --id, --subscription, --since or --until")
    wanted = ReplayFilter(
        event_id=str(event_id) if event_id else None,
        subscription_id=str(subscription) if subscription else None,
        since=since.replace(tzinfo=UTC) if since else None,
        until=until.replace(tzinfo=UTC) if until else None,
        dead=only_dead,
    )
    async with session.database() as database:
        deliveries = Deliveries(database)
        count = await (deliveries.would_replay(wanted) if dry_run else deliveries.replay(wanted))
    print_object({"deliveries": count, "dryRun": dry_run}, as_json=session.as_json)


def _keyring(session: Session) -> KeyProvider:
    return open_keyring(session.settings.require("keyring"))


async def _instance_id(database: Database, scope: str, reference: str | None) -> str | None:
    """By its id, an instance that was deleted still has its events."""
    if reference is None or is_canonical_uuid(reference):
        return reference
    return (await Instances(database).find(scope, reference)).id


def _given_secret(file: str | None, *, ask: bool) -> str | None:
    if file is None and not ask:
        return None
    if file is None:
        secret: str = click.prompt("Signing secret", hide_input=True, err=True)
    else:
        try:
            secret = sys.stdin.read() if file == "-" else Path(file).read_text()
        except OSError as error:
            raise IntegrationError(ErrorCode.VALIDATION_ERROR, str(error.strerror), path=file) from None
        except UnicodeDecodeError:
            raise IntegrationError(ErrorCode.VALIDATION_ERROR, "not UTF-8 text", path=file) from None
    check_secret(secret.strip())
    return secret.strip()


def _row(one: Subscription) -> JsonObject:
    target = one.webhook.url if one.webhook else one.workflow.workflow_id if one.workflow else ""
    return {"target": target, **one.to_wire()}
