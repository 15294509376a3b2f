"""`GET /v1/results/{id}`: large results, for who has a token (RFC 6750)."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.storage.large_results import LargeResult, LargeResults

_SAFE_HEADERS = {
    "Cache-Control": "private, no-store",
    "X-Content-Type-Options": "nosniff",
    # The body is the upstream's: in a browser it may do nothing in our name.
    "Content-Security-Policy": "sandbox; default-src 'none'",
}


class Results:
    """The endpoint. `results` is None where the gateway was given no tokens, and so no key to open anything."""

    def __init__(self, results: LargeResults | None, *, tokens: Sequence[str]) -> None:
        self._results = results
        self._hashes = tuple(_hash(token) for token in tokens)

    async def __call__(self, request: Request) -> Response:
        if self._results is None or not self._hashes:
            return _error(
                503,
                ErrorCode.UNAVAILABLE,
                "this gateway serves no results: INTEGRATIONS_GATEWAY_TOKENS is not set",
                path="INTEGRATIONS_GATEWAY_TOKENS",
            )
        given = _bearer(request)
        if given is None or not self._is_known(given):
            challenge = "Bearer" if given is None else 'Bearer error="invalid_token"'
            sentence = "a bearer token is missing" if given is None else "that bearer token is not known here"
            return _error(401, ErrorCode.AUTH_ERROR, sentence, headers={"WWW-Authenticate": challenge})
        try:
            result = await self._results.open(request.path_params["id"])
        except IntegrationError as error:
            if error.code != ErrorCode.INTEGRITY_ERROR:
                raise
            return _error(404, error.code, error.message, path="id")
        if result is None:
            return _error(404, ErrorCode.VALIDATION_ERROR, "no such result, or it has expired", path="id")
        return Response(result.body, headers=_headers(result))

    def _is_known(self, token: str) -> bool:
        # Each is compared, and hashes only: the time tells neither a token nor which one it was.
        given = _hash(token)
        return sum(hmac.compare_digest(given, known) for known in self._hashes) > 0


def _bearer(request: Request) -> str | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _headers(result: LargeResult) -> dict[str, str]:
    headers = {**_SAFE_HEADERS, "Content-Type": result.content_type, "ETag": f'"{result.sha256}"'}
    if result.file_name is not None:
        headers["Content-Disposition"] = _attachment(result.file_name)
    return headers


def _attachment(name: str) -> str:
    """RFC 6266, with the name in RFC 8187's encoding: no letter of the upstream's stands there as it is."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    encoded = quote("".join(letter for letter in last if letter.isprintable())[:255], safe="", errors="replace")
    return f"attachment; filename*=UTF-8''{encoded}" if encoded else "attachment"


def _error(
    status: int, code: str, message: str, *, path: str | None = None, headers: dict[str, str] | None = None
) -> JSONResponse:
    wire = {"code": str(code), "message": message, **({"path": path} if path else {})}
    return JSONResponse(wire, status, headers={**_SAFE_HEADERS, **(headers or {})})
