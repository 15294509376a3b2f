"""What each error code means to somebody who meets it, and what to do: sentences without a value of anybody's."""

from __future__ import annotations

from typing import NamedTuple

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.markdown import code as code_span
from integration_service.contracts.markdown import command, instance_command
from integration_service.contracts.names import DEFAULT_SCOPE


class Advice(NamedTuple):
    """Two sentences."""

    means: str
    do: str


_KNOWN: dict[str, Advice] = {
    ErrorCode.VALIDATION_ERROR: Advice("The input does not fit.", "Fix it; the failure's path says where."),
    ErrorCode.DEFINITION_NOT_FOUND: Advice("There is no such definition.", "Apply and publish it."),
    ErrorCode.DEFINITION_NOT_PUBLISHED: Advice("The definition is not published.", "Publish it, or name a version."),
    ErrorCode.METHOD_NOT_FOUND: Advice("The instance's version has no such method.", "Fix the name, or upgrade."),
    ErrorCode.INSTANCE_NOT_FOUND: Advice("There is no such instance in that scope.", "Fix the name, or connect it."),
    ErrorCode.INSTANCE_NOT_CONNECTED: Advice("The instance is not connected.", "Look at its connection's page."),
    ErrorCode.VERSION_CONFLICT: Advice("Somebody else wrote at the same time.", "Try again."),
    ErrorCode.CONFIG_ERROR: Advice("The instance's config does not fit.", "Configure it."),
    ErrorCode.AUTH_ERROR: Advice("The upstream refuses the credential.", "Give the instance one that it accepts."),
    ErrorCode.REAUTH_REQUIRED: Advice("The connection was lost.", "Somebody must authorise the instance again."),
    ErrorCode.RATE_LIMITED: Advice("The rate limit is used up.", "Wait, or call less often."),
    ErrorCode.CIRCUIT_OPEN: Advice(
        "The upstream's circuit breaker is open: half of the recent calls to it failed.",
        "Look at the upstream; calls go on by themselves once one gets through.",
    ),
    ErrorCode.TIMEOUT: Advice("No whole answer came in time.", "Look at the upstream, or allow more time."),
    ErrorCode.CONNECTION_ERROR: Advice(
        "The upstream cannot be reached, or the connection broke.", "Look at the upstream and the network."
    ),
    ErrorCode.MALFORMED_RESPONSE: Advice("The answer cannot be read.", "Look at the upstream."),
    ErrorCode.RESULT_VALIDATION_ERROR: Advice("The answer does not fit the schema.", "Fix it in a new version."),
    ErrorCode.TRANSFORM_ERROR: Advice("A transform failed.", "Fix the definition in a new version."),
    ErrorCode.RESPONSE_TOO_LARGE: Advice("The answer is too large.", "Ask for less, or for a reference."),
    ErrorCode.EGRESS_DENIED: Advice(
        "The host is in a range that is not called.", "Fix the config, or allow the range."
    ),
    ErrorCode.OUTCOME_UNKNOWN: Advice(
        "The request may have arrived, and its answer was lost.", "Ask the upstream before calling again."
    ),
    ErrorCode.UNAVAILABLE: Advice(
        "Something of ours did not answer: the database, Temporal or a worker.", "Restore it; calls go on after that."
    ),
    ErrorCode.KEY_UNAVAILABLE: Advice(
        "The workers' keyring lacks the key of a stored secret.", "Give every worker the whole keyring."
    ),
    ErrorCode.INTEGRITY_ERROR: Advice(
        "A stored secret does not open.", "Check the keyring, or give the instance its credential again."
    ),
}


def advice_for(code: str) -> Advice:
    """What is known of `code`; an HTTP status speaks for itself."""
    if code.startswith("HTTP_"):
        return Advice(f"The upstream answered HTTP {code.removeprefix('HTTP_')}.", "Look at the upstream.")
    return _KNOWN.get(code) or Advice("The upstream answered with an error.", "Look at the failure's details.")


def connect_link(reference: str, scope: str) -> str:
    """How a person who is not at this keyboard connects an instance: the first half of a sentence."""
    link = instance_command("connect-link", reference, scope=scope)
    return (
        f"run {link} and send the link that it prints to the person whose account it is; it works once, within 15 "
        "minutes"
    )


def refused_call(error: IntegrationError, instance: str | None, scope: str | None, *, definition: str | None) -> str:
    """What to do about a call that is given up, as far as its input and the failure tell."""
    reference, within = instance or "…", scope or DEFAULT_SCOPE
    of = (reference, within)
    match error.code:
        case ErrorCode.VALIDATION_ERROR:
            return _fix_input(error.path, definition)
        case ErrorCode.INSTANCE_NOT_FOUND:
            wanted = command("integrations", "instance", "list", "--scope", within)
            return f"Fix the name or the scope: {wanted} shows which there are."
        case ErrorCode.METHOD_NOT_FOUND:
            return f"Fix the name, or upgrade the instance: {_show(*of)} tells its definition and version."
        case ErrorCode.INSTANCE_NOT_CONNECTED | ErrorCode.CONFIG_ERROR:
            return _reconnect(str(error.details.get("status")), *of)
        case ErrorCode.AUTH_ERROR | ErrorCode.REAUTH_REQUIRED:
            return f"{_sentence(connect_link(*of))}. Then call again; {_WOULD_WAIT}"
    return advice_for(error.code).do


_WOULD_WAIT = "with `onAuthError` = `wait` a call waits for that by itself."


def _fix_input(path: str | None, definition: str | None) -> str:
    which = f"Fix {code_span(path)}" if path else "Fix the input"
    if definition is not None and (path or "").startswith("params"):
        shown = command("integrations", "definition", "show", definition)
        return f"{which} and call again: {shown} has the method's `paramSchema`."
    return f"{which} and call again: `integrations schema MethodCall` shows what a call takes."


def _reconnect(status: str, reference: str, scope: str) -> str:
    match status:
        case "DISCONNECTED":
            return f"Take it into use again with {instance_command('reconnect', reference, scope=scope)}; call again."
        case "CONFIG_ERROR" | "PENDING_CONFIGURATION":
            configure = instance_command("configure", reference, "--config", "{…}", scope=scope)
            return f"Run {configure} with values that fit. Or {connect_link(reference, scope)}. Then call again."
        case "PENDING_AUTHENTICATION":
            return (
                f"{_sentence(connect_link(reference, scope))}. Then call again; {_WOULD_WAIT} "
                f"{_show(reference, scope)} tells what it waits for."
            )
    return f"{_show(reference, scope)} tells what is wrong with it."


def _show(reference: str, scope: str) -> str:
    return instance_command("show", reference, scope=scope)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
