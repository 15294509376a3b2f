"""What the page of `RefreshOAuth` in Temporal's Web UI says."""

from __future__ import annotations

from datetime import datetime

from integration_service.contracts.advice import advice_for, connect_link
from integration_service.contracts.markdown import code, instance_command, moment
from integration_service.contracts.names import connection_workflow_id
from integration_service.contracts.oauth import RefreshFailure, RefreshInput, TokenState


def token_page(wanted: RefreshInput, token: TokenState, due: datetime | None, failure: RefreshFailure | None) -> str:
    """Markdown. `due` is the next refresh; `failure` what became of the last one, if it failed."""
    facts = [
        f"Token number (generation): {token.generation}",
        f"Expires: {moment(token.expires_at) if token.expires_at else 'the provider does not say'}",
        f"Next refresh: {_next(token, due)}",
        f"Instance: {code(wanted.instance_id)}, scope {code(wanted.scope)}",
        f"Connection: workflow {code(connection_workflow_id(wanted.instance_id))}",
    ]
    if failure is not None:
        facts.append(f"Last trouble: {code(failure.code)}")
    return "\n\n".join([*_state(wanted, failure), "\n".join(f"- {fact}" for fact in facts)])


def _state(wanted: RefreshInput, failure: RefreshFailure | None) -> list[str]:
    if failure is None:
        return ["## The token is kept fresh", "**What is wrong:** nothing.", "**What to do:** nothing."]
    if failure.final:
        command = instance_command("authorize", wanted.instance_id, scope=wanted.scope)
        return [
            "## The token is lost",
            "**What is wrong:** The provider refuses to give a new one. No further request is made.",
            f"**What to do:** {connect_link(wanted.instance_id, wanted.scope)}. If the account is your own, run "
            f"{command} instead.",
        ]
    return [
        "## The last refresh failed; it is tried again",
        f"**What is wrong:** {advice_for(failure.code).means} The connection stays as it is.",
        "**What to do:** nothing yet. If this lasts until the token expires, look at the provider.",
    ]


def _next(token: TokenState, due: datetime | None) -> str:
    if due is not None:
        return moment(due)
    return "none by itself" if token.automatic else f"by update {code('refresh')} only"
