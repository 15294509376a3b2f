"""What the page of `ExecuteMethod` in Temporal's Web UI says while a call runs, waits and when it is over."""

from __future__ import annotations

from datetime import datetime

from integration_service.contracts.advice import advice_for
from integration_service.contracts.calls import MethodCall, MethodResult, ResolvedMethod
from integration_service.contracts.errors import IntegrationError
from integration_service.contracts.markdown import code, instance_command, moment, plain
from integration_service.contracts.names import activity_type, connection_workflow_id


def call_page(
    headline: str, call: MethodCall, resolved: ResolvedMethod | None, *, caller: str | None, deadline: datetime
) -> str:
    """Markdown: `headline`, then who calls what. `caller` is the id of the workflow that started this one."""
    if resolved is None:
        facts = [f"Method: {code(call.method or '?')} of instance {code(call.instance_id)}"]
    else:
        name = activity_type(resolved.definition, resolved.method)
        facts = [
            f"Method: {code(name)}, definition version {code(resolved.definition_version)}",
            f"Instance: {code(resolved.instance_id)}, workflow {code(connection_workflow_id(resolved.instance_id))}",
        ]
    if caller is not None:
        facts.append(f"Called by workflow {code(caller)}")
    if call.correlation_id is not None:
        facts.append(f"Correlation id: {code(call.correlation_id)}")
    facts.append(f"Given up at the latest: {moment(deadline)}")
    return headline + "\n\n" + "\n".join(f"- {fact}" for fact in facts)


RUNNING = "## Runs\n\nThe method's activity is at work, or waits for its next try."


def waiting(error: IntegrationError, until: datetime) -> str:
    """A throttle, an open breaker or an outage is waited out."""
    means, do = advice_for(error.code)
    return (
        f"## Waits until {moment(until)}\n\n**Why:** {means} ({code(error.code)}) The call then goes on by itself, and "
        f"this spends none of its retries.\n\n**What to do:** nothing, unless it lasts. {do}"
    )


def parked(call: MethodCall, resolved: ResolvedMethod, until: datetime) -> str:
    """The instance is to be authorised again first."""
    command = instance_command("authorize", resolved.instance_id, scope=call.scope)
    return (
        "## Waits for the instance to be authorised again\n\n**Why:** its connection was lost, and this call is to "
        f"wait for it until {moment(until)}.\n\n**What to do:** run {command} and open the address that it prints, as "
        "the person whose account it is. The call then goes on by itself."
    )


def done(result: MethodResult) -> str:
    """It has its answer."""
    how = "from the cache" if result.cached else f"HTTP {result.status_code}, tries: {result.attempts}"
    return f"## Done\n\nThe upstream answered: {how}."


def failed(error: IntegrationError) -> str:
    """It is given up."""
    means, do = advice_for(error.code)
    where = f" ({plain(error.path)})" if error.path else ""
    return f"## Failed: {code(error.code)}\n\n**What is wrong:** {means}{where}\n\n**What to do:** {do}"
