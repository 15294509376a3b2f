"""What a connection's page in Temporal's Web UI says, to somebody who sees it for the first time.

Names, codes and times only: an upstream's own words, and whatever config holds, stand in query `status`.
"""

from __future__ import annotations

from integration_service.contracts.advice import advice_for, connect_link
from integration_service.contracts.connections import ConnectionState
from integration_service.contracts.definitions import IntegrationAuthType
from integration_service.contracts.errors import ErrorCode
from integration_service.contracts.instances import InstanceError
from integration_service.contracts.instances import IntegrationInstanceStatus as Status
from integration_service.contracts.markdown import code, instance_command, moment, plain
from integration_service.contracts.names import refresh_workflow_id
from integration_service.contracts.oauth import PendingAuthorization, TokenState

_TITLES = {
    Status.PENDING_CONFIGURATION: "Waits for its configuration",
    Status.PENDING_AUTHENTICATION: "Waits for its credential",
    Status.CONNECTED: "Connected",
    Status.DISCONNECTED: "Disconnected",
    Status.AUTH_ERROR: "Connection lost",
    Status.CONFIG_ERROR: "Wrong configuration",
}
_LOST = {
    "revoked": "The provider refuses the refresh token: access was withdrawn, or it has expired.",
    "outcome_unknown": "An answer of the provider was lost, and now it refuses the refresh token.",
    "no_refresh_token": "The access token has expired, and the provider gave none to refresh it with.",
}
_MACHINE_GRANTS = ("client_credentials", "jwt_bearer")


def connection_page(state: ConnectionState, error: InstanceError | None, pending: PendingAuthorization | None) -> str:
    """Markdown. `error` is the instance's, or its upstream's; `pending` an authorization that is under way."""
    instance = state.instance
    parts = [
        f"## {_TITLES[instance.status]}: {plain(instance.name)}",
        f"**What is wrong:** {_wrong(state, error)}",
        f"**What to do:** {_to_do(state, error)}",
    ]
    if pending is not None and instance.status is not Status.CONNECTED:
        parts.append(
            f"**Under way:** somebody was given an address to grant access at. It is good until "
            f"{moment(pending.expires_at)}; query {code('status')} tells it."
        )
    return "\n\n".join([*parts, "\n".join(f"- {fact}" for fact in _facts(state, error))])


def deleted_page(name: str) -> str:
    """What stays when the instance is gone."""
    return f"## Deleted: {plain(name)}\n\nThe credential was erased and the name is free. Its rows in the log stay."


def _wrong(state: ConnectionState, error: InstanceError | None) -> str:
    match state.instance.status:
        case Status.CONNECTED if error is None:
            return "nothing. The credential works, and calls run."
        case Status.CONNECTED:
            return f"{advice_for(error.code).means} The credential is kept." if error else ""
        case Status.DISCONNECTED:
            return "nothing. It was taken out of use and its credential erased; calls are refused."
        case Status.PENDING_CONFIGURATION:
            return "Values that it needs are missing, so it cannot be called yet."
        case Status.CONFIG_ERROR:
            why = f" {plain(error.message)}." if error is not None and error.code == ErrorCode.CONFIG_ERROR else ""
            return f"Its config does not fit the definition.{why}"
        case Status.AUTH_ERROR:
            return f"{_refusal(error)} Calls are refused until this is mended."
        case _ if error is None:
            return "It has no credential yet, so it cannot be called."
        case _:
            return f"Its credential could not be proved yet. {advice_for(error.code).means}"


def _refusal(error: InstanceError | None) -> str:
    if error is not None and error.code == ErrorCode.REAUTH_REQUIRED:
        cause = error.details.get("cause") if isinstance(error.details, dict) else None
        return _LOST.get(str(cause), _LOST["revoked"])
    return "The upstream refuses the credential: it answers calls with 401 or 403."


def _to_do(state: ConnectionState, error: InstanceError | None) -> str:
    instance = state.instance

    def run(verb: str, *more: str) -> str:
        return instance_command(verb, instance.name, *more, scope=instance.scope)

    match instance.status:
        case Status.CONNECTED if error is None:
            return "nothing."
        case Status.CONNECTED:
            return f"{advice_for(error.code).do} Then prove it: {run('test')}." if error else ""
        case Status.DISCONNECTED:
            return f"nothing; or take it into use again with {run('reconnect')}, or remove it with {run('delete')}."
        case Status.PENDING_CONFIGURATION | Status.CONFIG_ERROR:
            return (
                f"run {run('configure', '--config', '{…}')} with values that fit the definition's `configSchema`. "
                f"Or {connect_link(instance.name, instance.scope)}; the page asks for what is missing or wrong."
            )
        case Status.PENDING_AUTHENTICATION if state.generation and error is not None:
            return f"{advice_for(error.code).do} Then run {run('test')}."
    return _credential_to_do(state, run("authorize"), run("credentials"), run("test"))


def _credential_to_do(state: ConnectionState, authorize: str, credentials: str, test: str) -> str:
    instance = state.instance
    link = connect_link(instance.name, instance.scope)
    if instance.auth_type is IntegrationAuthType.NONE:
        return f"look at the upstream, then run {test}."
    if instance.auth_type is not IntegrationAuthType.OAUTH2:
        return f"{link}. Or run {credentials}, which asks you for a credential that the upstream accepts."
    if state.grant in _MACHINE_GRANTS:
        client = code(f"integrations definition client set {instance.definition}")
        return f"set the client's id and secret with {client}, then run {test}."
    if state.grant == "password":
        return f"{link}. Or run {credentials}, which asks you for the account's user name and password."
    return (
        f"{link}. If the account is your own, run {authorize} instead. "
        "The instance keeps its id; calls that wait for it go on by themselves."
    )


def _next_refresh(token: TokenState) -> str | None:
    if token.next_refresh_at is not None:
        return moment(token.next_refresh_at)
    if token.expires_at is None or not token.renewable:
        return None
    # Its workflow tells the time with the first refresh; until then this much is known.
    return f"by itself, shortly before {moment(token.expires_at)}" if token.automatic else "when somebody asks for it"


def _facts(state: ConnectionState, error: InstanceError | None) -> list[str]:
    instance, token = state.instance, state.token
    facts = [
        f"Status: {code(instance.status.value)}",
        f"Instance: {code(instance.id)}, scope {code(instance.scope)}",
        f"Definition: {code(f'{instance.definition} {instance.definition_version}')}",
    ]
    if error is not None:
        facts.append(f"Last error: {code(error.code)}")
    if token is not None:
        if instance.status is Status.CONNECTED:
            expires = moment(token.expires_at) if token.expires_at else "the provider does not say"
            facts.append(f"Access token expires: {expires}")
            if (next_refresh := _next_refresh(token)) is not None:
                facts.append(f"Next refresh: {next_refresh}")
        facts.append(f"The token's own page: workflow {code(refresh_workflow_id(instance.id))}")
    if state.missing_scope:
        facts.append(f"Asked for and not granted: {', '.join(code(scope) for scope in state.missing_scope)}")
    if instance.last_connected_at is not None:
        facts.append(f"Last became connected: {moment(instance.last_connected_at)}")
    facts.append(f"Last change: {moment(instance.updated_at)}")
    return facts
