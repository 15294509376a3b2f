"""`integrations call`."""

from __future__ import annotations

import click
from pydantic.alias_generators import to_camel

from integration_service.cli.options import json_option, scope_option
from integration_service.cli.output import print_json
from integration_service.cli.session import Session, with_session
from integration_service.contracts.calls import MethodCall
from integration_service.contracts.wire import parse


@click.command()
@click.argument("instance")
@click.argument("method")
@click.option("--params", default="{}", help="The method's params, as JSON.")
@click.option("--idempotency-key", help="Sent upstream where the method has an idempotency header.")
@click.option("--deadline-ms", type=int, help="How long the call may take with all its waits.")
@click.option("--cache", type=click.Choice(["use", "bypass", "refresh"]), help="What to do with cached answers.")
@click.option("--on-auth-error", type=click.Choice(["fail", "wait"]), help="wait: until somebody has authorised it.")
@click.option("--wait-timeout-ms", type=int, help="How long that wait may be.")
@click.option("--large-result", type=click.Choice(["fail", "reference"]), help="How a result over 1 MiB is given.")
@click.option("--page", help="The nextPage of an earlier result.")
@click.option("--correlation-id", help="Stands in the execution log.")
@click.option("--workflow-id", help="The same id twice runs the call once.")
@scope_option
@with_session
async def call(
    session: Session,
    /,
    instance: str,
    method: str,
    *,
    params: str,
    workflow_id: str | None,
    scope: str,
    **options: str | int | None,
) -> None:
    """Run METHOD of INSTANCE (id or name) and print the whole MethodResult as JSON."""
    asked = {
        "instanceId": instance,
        "method": method,
        "scope": scope,
        "params": json_option(params, "--params"),
        **{to_camel(name): value for name, value in options.items() if value is not None},
    }
    integrations = await session.integrations()
    result = await integrations.call(parse(MethodCall, asked), workflow_id=workflow_id)
    print_json(result.to_wire())
