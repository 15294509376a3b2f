"""`integrations call`."""

from __future__ import annotations

import click

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
@click.option("--workflow-id", help="The same id twice runs the call once.")
@scope_option
@with_session
async def call(
    session: Session,
    instance: str,
    method: str,
    *,
    params: str,
    idempotency_key: str | None,
    deadline_ms: int | None,
    workflow_id: str | None,
    scope: str,
) -> None:
    """Run METHOD of INSTANCE (id or name) and print the whole MethodResult as JSON."""
    asked = {
        "instanceId": instance,
        "method": method,
        "scope": scope,
        "params": json_option(params, "--params"),
        **({"idempotencyKey": idempotency_key} if idempotency_key is not None else {}),
        **({"deadlineMs": deadline_ms} if deadline_ms is not None else {}),
    }
    integrations = await session.integrations()
    result = await integrations.call(parse(MethodCall, asked), workflow_id=workflow_id)
    print_json(result.to_wire())
