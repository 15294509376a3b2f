"""`integrations instance connect-link`: a link with which a person connects an instance in a browser."""

from __future__ import annotations

import click

from integration_service.cli.options import scope_option
from integration_service.cli.output import print_object
from integration_service.cli.session import Session, with_session
from integration_service.contracts.connect_tickets import MAX_EXPIRES_MS, ConnectTicketWanted
from integration_service.contracts.wire import parse
from integration_service.storage.connect_tickets import ConnectTickets

_MAX_MINUTES = MAX_EXPIRES_MS // 60_000


@click.command("connect-link")
@click.argument("reference", metavar="INSTANCE")
@click.option("--return-url", help="Where the browser goes afterwards; INTEGRATIONS_RETURN_URLS must allow it.")
@click.option(
    "--expires",
    type=click.IntRange(1, _MAX_MINUTES),
    default=_MAX_MINUTES,
    show_default=True,
    help="Minutes within which it must be opened.",
)
@scope_option
@with_session
async def connect_link(session: Session, reference: str, *, return_url: str | None, expires: int, scope: str) -> None:
    """Print a link with which a person configures and connects INSTANCE in a browser. It works once: send it to
    nobody else."""
    asked = {"instanceId": reference, "scope": scope, "expiresMs": expires * 60_000}
    wanted = parse(ConnectTicketWanted, {**asked, **({"returnUrl": return_url} if return_url else {})})
    async with session.database() as database:
        made = await ConnectTickets(database).make(
            wanted, public_url=session.settings.public_url, return_urls=session.settings.return_urls
        )
    if session.as_json:
        print_object(made.to_wire(), as_json=True)
    else:
        click.echo(made.url)
