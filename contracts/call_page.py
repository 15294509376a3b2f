"""What the page of `ExecuteMethod` in Temporal's Web UI says: its status as Markdown."""

from __future__ import annotations

from integration_service.contracts.call_status import CallStatus
from integration_service.contracts.markdown import code, moment, plain
from integration_service.contracts.names import DEFAULT_SCOPE, activity_type, connection_workflow_id

_OVER = ("DONE", "FAILED", "CANCELLED")
_ASKS = ("WAITING", "PARKED", "FAILED")
"""Something holds the call up, or did."""


def call_page(status: CallStatus) -> str:
    """A headline, why it stands so and what to do, then who calls what."""
    parts = [f"## {_headline(status)}"]
    if status.state in _ASKS:
        wrong = "What is wrong" if status.state == "FAILED" else "Why"
        parts += [f"**{wrong}:** {_why(status)}", f"**What to do:** {status.what_to_do}"]
    else:
        parts.append(_why(status))
    return "\n\n".join([*parts, "\n".join(f"- {fact}" for fact in _facts(status))]).rstrip()


def _headline(status: CallStatus) -> str:
    match status.state:
        case "WAITING" if status.until is not None:
            return f"Waits until {moment(status.until)}"
        case "PARKED":
            return "Waits for the instance to be authorised"
        case "FAILED":
            return f"Failed: {code(status.code or '?')}"
        case "RUNNING":
            return "Runs"
    return {"STARTING": "Starts", "DONE": "Done", "CANCELLED": "Cancelled"}.get(status.state, status.state)


def _why(status: CallStatus) -> str:
    means = status.why
    match status.state:
        case "RUNNING":
            return f"{means} *Pending Activities* shows which one."
        case "PARKED" if status.until is not None:
            return f"{means} It is given up at {moment(status.until)}."
        case "FAILED":
            said = f"{means.removesuffix('.')}: {plain(status.message)}." if status.message else means
            return said + (f" ({code(status.path)})" if status.path else "")
    return means


def _facts(status: CallStatus) -> list[str]:
    facts: list[str] = []
    if status.definition is not None and status.instance_id is not None:
        name = activity_type(status.definition, status.method or "?")
        facts.append(f"Method: {code(name)}, definition version {code(status.definition_version or '?')}")
        named = f"{code(status.instance)}, " if status.instance and status.instance != status.instance_id else ""
        workflow = code(connection_workflow_id(status.instance_id))
        facts.append(f"Instance: {named}{code(status.instance_id)}, workflow {workflow}")
    elif status.instance is not None:
        facts.append(f"Method: {code(status.method or '?')} of instance {code(status.instance)}")
    if status.scope not in (None, DEFAULT_SCOPE):
        facts.append(f"Scope: {code(status.scope or '')}")
    if status.max_tries is not None and status.state in ("RUNNING", "WAITING"):
        facts.append(f"Tries that earlier activities spent: {status.tries_spent} of {status.max_tries}")
    if status.called_by is not None:
        facts.append(f"Called by workflow {code(status.called_by)}")
    if status.correlation_id is not None:
        facts.append(f"Correlation id: {code(status.correlation_id)}")
    if status.deadline is not None and status.state not in _OVER:
        facts.append(f"Given up at the latest: {moment(status.deadline)}")
    return facts
