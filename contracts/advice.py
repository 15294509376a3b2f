"""What each error code means to somebody who meets it, and what to do: sentences without a value of anybody's."""

from __future__ import annotations

from typing import NamedTuple

from integration_service.contracts.errors import ErrorCode


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
