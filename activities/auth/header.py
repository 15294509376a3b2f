"""A header that carries a credential."""

from __future__ import annotations

import re

from integration_service.activities.outbound.messages import OutboundRequest
from integration_service.contracts.errors import ErrorCode, IntegrationError

_UNSAFE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def with_credential(request: OutboundRequest, name: str, value: str, *, what: str) -> OutboundRequest:
    """The request with that secret header. Raises IntegrationError AUTH_ERROR when `value` cannot stand in one."""
    problem = header_problem(value)
    if problem is not None:
        raise IntegrationError(ErrorCode.AUTH_ERROR, f"{what} {problem}")
    return request.with_secret_header(name, value.strip())


def header_problem(value: str) -> str | None:
    """Why a text cannot stand in a header (RFC 9110 §5.5), or None."""
    if _UNSAFE.search(value):
        return "holds a line break or control character"
    if any(ord(letter) > 255 for letter in value):
        return "holds characters that a header cannot"
    return None
