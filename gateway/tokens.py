"""Bearer tokens (RFC 6750): who may fetch what is not for everybody."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from integration_service.contracts.errors import ErrorCode

SAFE_HEADERS: Mapping[str, str] = {
    "Cache-Control": "private, no-store",
    "X-Content-Type-Options": "nosniff",
    # The body is somebody else's: in a browser it may do nothing in our name.
    "Content-Security-Policy": "sandbox; default-src 'none'",
}


class Tokens:
    """The tokens that this gateway was given; with none of them it lets nobody through."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._hashes = tuple(_hash(token) for token in tokens)

    def refusal(self, request: Request, *, what: str) -> Response | None:
        """The answer to who may not have it, or None; `what` is said where there are no tokens."""
        if not self._hashes:
            return refused(
                503,
                ErrorCode.UNAVAILABLE,
                f"this gateway serves no {what}: INTEGRATIONS_GATEWAY_TOKENS is not set",
                path="INTEGRATIONS_GATEWAY_TOKENS",
            )
        given = _bearer(request)
        if given is not None and self._is_known(given):
            return None
        challenge = "Bearer" if given is None else 'Bearer error="invalid_token"'
        sentence = "a bearer token is missing" if given is None else "that bearer token is not known here"
        return refused(401, ErrorCode.AUTH_ERROR, sentence, headers={"WWW-Authenticate": challenge})

    def _is_known(self, token: str) -> bool:
        # Each is compared, and hashes only: the time tells neither a token nor which one it was.
        given = _hash(token)
        return sum(hmac.compare_digest(given, known) for known in self._hashes) > 0


def refused(
    status: int, code: str, message: str, *, path: str | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """A failure as the gateway answers it (`Refusal`)."""
    wire = {"code": str(code), "message": message, **({"path": path} if path else {})}
    return JSONResponse(wire, status, headers={**SAFE_HEADERS, **(headers or {})})


def _bearer(request: Request) -> str | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
