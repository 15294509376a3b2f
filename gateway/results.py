"""`GET /v1/results/{id}`: large results, for who has a token (RFC 6750)."""

from __future__ import annotations

from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.gateway.tokens import SAFE_HEADERS, Tokens, refused
from integration_service.storage.large_results import LargeResult, LargeResults


class Results:
    """The endpoint. `results` is None where the gateway was given no tokens, and so no key to open anything."""

    def __init__(self, results: LargeResults | None, *, tokens: Tokens) -> None:
        self._results = results
        self._tokens = tokens

    async def __call__(self, request: Request) -> Response:
        refusal = self._tokens.refusal(request, what="results")
        if refusal is not None or self._results is None:
            return refusal or refused(503, ErrorCode.UNAVAILABLE, "this gateway serves no results")
        try:
            result = await self._results.open(request.path_params["id"])
        except IntegrationError as error:
            if error.code != ErrorCode.INTEGRITY_ERROR:
                raise
            return refused(404, error.code, error.message, path="id")
        if result is None:
            return refused(404, ErrorCode.VALIDATION_ERROR, "no such result, or it has expired", path="id")
        return Response(result.body, headers=_headers(result))


def _headers(result: LargeResult) -> dict[str, str]:
    headers = {**SAFE_HEADERS, "Content-Type": result.content_type, "ETag": f'"{result.sha256}"'}
    if result.file_name is not None:
        headers["Content-Disposition"] = _attachment(result.file_name)
    return headers


def _attachment(name: str) -> str:
    """RFC 6266, with the name in RFC 8187's encoding: no letter of the upstream's stands there as it is."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    encoded = quote("".join(letter for letter in last if letter.isprintable())[:255], safe="", errors="replace")
    return f"attachment; filename*=UTF-8''{encoded}" if encoded else "attachment"
