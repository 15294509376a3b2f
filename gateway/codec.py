"""`POST /codec/encode` and `/codec/decode`: Temporal's remote codec, for its Web UI and its CLI.

The protocol is that of https://docs.temporal.io/codec-server: ``{"payloads": […]}`` both ways, as protobuf's JSON.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Sequence

from google.protobuf.json_format import MessageToDict, Parse, ParseError
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Mount, Route
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.converter import PayloadCodec

from integration_service.contracts.errors import Decision, ErrorCode, IntegrationError
from integration_service.gateway.access_tokens import AccessTokens, KeySource, Refused
from integration_service.settings import Settings

_MAX_BYTES = 32 * 1024 * 1024
_NO_STORE = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_HEADERS = ("content-type", "x-namespace", "authorization")
_Change = Callable[[Sequence[Payload]], Awaitable[list[Payload]]]


class Codec:
    """The two endpoints. `tokens` says who may use them; `local` lets in the pages of a Web UI on this machine.

    `codec` is None where this gateway holds no key set of payloads, `tokens` where nobody was named.
    """

    def __init__(
        self, codec: PayloadCodec | None, *, tokens: AccessTokens | None, origins: Sequence[str], local: str | None
    ) -> None:
        self._codec = codec
        self._tokens = tokens
        self._origins = tuple(origins)
        self._local = local

    @classmethod
    def build(cls, settings: Settings, codec: PayloadCodec | None) -> Codec:
        """Raises IntegrationError when a setting is missing or does not fit."""
        tokens = None
        if settings.codec_jwks:
            settings.require("payload_keyring")
            tokens = AccessTokens(
                KeySource(settings.codec_jwks, allow=settings.egress_allow),
                issuer=settings.require("codec_issuer"),
                audience=settings.require("codec_audience"),
            )
        local = settings.gateway_listen if settings.codec_local_ui else None
        if local is not None and not _is_loopback(local.rpartition(":")[0]):
            raise IntegrationError(
                ErrorCode.VALIDATION_ERROR,
                "is for a gateway that listens on a loopback address only",
                path="INTEGRATIONS_CODEC_LOCAL_UI",
            )
        return cls(codec, tokens=tokens, origins=settings.codec_origins, local=local)

    def routes(self) -> BaseRoute:
        """With CORS for the origins that were named, exactly, and without cookies."""
        cors = Middleware(
            CORSMiddleware,
            allow_origins=self._origins,
            allow_methods=["POST"],
            allow_headers=_HEADERS,
            max_age=600,
        )
        return Mount(
            "/codec",
            routes=[
                Route("/encode", self._encode, methods=["POST"]),
                Route("/decode", self._decode, methods=["POST"]),
            ],
            middleware=[cors],
        )

    async def _encode(self, request: Request) -> JSONResponse:
        return await self._answer(request, None if self._codec is None else self._codec.encode)

    async def _decode(self, request: Request) -> JSONResponse:
        return await self._answer(request, None if self._codec is None else self._codec.decode)

    async def _answer(self, request: Request, change: _Change | None) -> JSONResponse:
        if change is None or (self._tokens is None and self._local is None):
            missing = "INTEGRATIONS_PAYLOAD_KEYRING" if change is None else "INTEGRATIONS_CODEC_JWKS"
            return _error(503, ErrorCode.UNAVAILABLE, f"this gateway is no codec server: {missing} is not set")
        if (refusal := await self._refusal(request)) is not None:
            return refusal
        try:
            payloads = Parse(await _body(request), Payloads())
        except _TooLong:
            return _error(413, ErrorCode.VALIDATION_ERROR, "more than 32 MiB of payloads")
        except (ParseError, UnicodeDecodeError, RecursionError):
            return _error(400, ErrorCode.VALIDATION_ERROR, 'must be {"payloads": […]} as Temporal writes it')
        try:
            changed = await change(payloads.payloads)
        except IntegrationError as error:
            return _error(503 if error.decision is Decision.WAIT else 422, error.code, error.message)
        return JSONResponse(MessageToDict(Payloads(payloads=changed)), headers=_NO_STORE)

    async def _refusal(self, request: Request) -> JSONResponse | None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token.strip() and self._tokens is not None:
            try:
                await self._tokens.check(token.strip())
            except Refused as refused:
                challenge = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
                return _error(401, ErrorCode.AUTH_ERROR, str(refused), headers=challenge)
            except IntegrationError as error:
                return _error(503, error.code, error.message)
            return None
        if self._is_local_page(request):
            return None
        return _error(401, ErrorCode.AUTH_ERROR, "a bearer token is missing", headers={"WWW-Authenticate": "Bearer"})

    def _is_local_page(self, request: Request) -> bool:
        """A page of the Web UI that was named, in a browser on this machine, which asked for this very address.

        The origin keeps out every other page, also one whose host name was made to lead here (DNS rebinding).
        """
        return (
            self._local is not None
            and request.client is not None
            and _is_loopback(request.client.host)
            and request.headers.get("host") == self._local
            and request.headers.get("origin") in self._origins
        )


class _TooLong(Exception):
    """The body is over the limit."""


async def _body(request: Request) -> bytes:
    body = bytearray()
    try:
        async for part in request.stream():
            body += part
            if len(body) > _MAX_BYTES:
                raise _TooLong
    except ClientDisconnect:
        return b""
    return bytes(body)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _error(status: int, code: str, message: str, *, headers: dict[str, str] | None = None) -> JSONResponse:
    wire = {"code": str(code), "message": message}
    return JSONResponse(wire, status, headers={**_NO_STORE, **(headers or {})})
