"""Who may use the codec: a JSON Web Token (RFC 7519) of the issuer that the operator named, signed by one of its keys.

The algorithms are fixed, and all asymmetric: a token cannot choose how it is checked (RFC 8725 §3.1). The key set comes
inline, from a file, or from the issuer's URL, which is asked again after ten minutes, and for a key that is not known.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet

from integration_service.contracts.errors import ErrorCode, IntegrationError

VARIABLE = "INTEGRATIONS_CODEC_JWKS"
_ALGORITHMS = ["RS256", "PS256", "ES256", "EdDSA", "Ed25519"]
_LEEWAY_S = 30
_FRESH_S = 600.0
_KEPT_S = 24 * 3600.0
"""How long known keys stay good while the issuer does not answer."""
_PAUSE_S = 10.0
"""Between two requests for keys, whatever tokens come."""
_MAX_JWKS_BYTES = 1024 * 1024
_FETCH_S = 10.0
"""For all of it: an issuer that drips keeps others waiting no longer."""
_log = logging.getLogger(__name__)


class Refused(Exception):
    """The token is not one to be let in; the sentence tells why, and nothing of the token."""


class AccessTokens:
    """Checks bearer tokens. `issuer` and `audience` must be the token's own, and it must expire."""

    def __init__(self, keys: KeySource, *, issuer: str, audience: str) -> None:
        self._keys = keys
        self._claims = jwt.JWTClaimsRegistry(
            leeway=_LEEWAY_S,
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "value": audience},
            exp={"essential": True},
        )

    async def check(self, token: str) -> None:
        """Raises Refused, and IntegrationError UNAVAILABLE when the keys cannot be had."""
        try:
            try:
                found = jwt.decode(token, await self._keys.current(), algorithms=_ALGORITHMS)
            except (InvalidKeyIdError, ValueError):  # joserfc tells an unknown `kid` by either
                found = jwt.decode(token, await self._keys.newer(), algorithms=_ALGORITHMS)
            self._claims.validate(found.claims)
        except (JoseError, ValueError, TypeError) as error:
            raise Refused(f"the token is not accepted ({getattr(error, 'error', 'malformed')})") from None


class KeySource:
    """The issuer's public keys, from `source`: inline JSON, a path, or a URL.

    A URL is https: whoever could change its answer could let himself in. Plain http is taken from a loopback address,
    and from one that is written out and lies within the CIDR ranges `allow`. Raises IntegrationError.
    """

    def __init__(self, source: str, *, allow: Sequence[str] = ()) -> None:
        self._fetch: Callable[[], Awaitable[Any]] | None = None
        self._known: KeySet | None = None
        self._read_at = self._asked_at = float("-inf")
        self._asking = asyncio.Lock()
        if source.startswith(("https://", "http://")):
            _check_url(source, allow)
            self._fetch = lambda: _fetched(source)
        else:
            self._known = _key_set(source)

    async def current(self) -> KeySet:
        if self._fetch is None and self._known is not None:
            return self._known
        return await self._asked(older_than=_FRESH_S)

    async def newer(self) -> KeySet:
        """After a key that was not among them: the issuer may have a new one."""
        if self._fetch is None and self._known is not None:
            return self._known
        return await self._asked(older_than=_PAUSE_S)

    async def _asked(self, *, older_than: float) -> KeySet:
        async with self._asking:
            now = time.monotonic()
            if self._fetch is not None and now - self._read_at > older_than and now - self._asked_at > _PAUSE_S:
                self._asked_at = now
                try:
                    self._known = _public(await self._fetch())
                    self._read_at = time.monotonic()
                except _UNUSABLE as error:
                    _log.warning("the codec's key set cannot be had: %s", type(error).__name__)
            if self._known is None or now - self._read_at > _KEPT_S:
                raise IntegrationError(ErrorCode.UNAVAILABLE, "the issuer's keys cannot be had just now", path=VARIABLE)
            return self._known


_UNUSABLE = (httpx2.HTTPError, TimeoutError, JoseError, ValueError, TypeError, KeyError, RecursionError)


async def _fetched(url: str) -> Any:
    """The operator names this URL, no customer does: the egress policy is not asked. Redirects, proxies of the
    environment and content-codings are not followed, and time and size are bounded."""
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    async with (
        asyncio.timeout(_FETCH_S),
        httpx2.AsyncClient(trust_env=False, follow_redirects=False, timeout=5) as http,
        http.stream("GET", url, headers=headers) as answer,
    ):
        answer.raise_for_status()
        body = bytearray()
        async for part in answer.aiter_raw():
            body += part
            if len(body) > _MAX_JWKS_BYTES:
                raise ValueError("too long")
    return json.loads(body)


def _check_url(url: str, allow: Sequence[str]) -> None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host = ""
    if not host or parts.username is not None:
        raise IntegrationError(ErrorCode.VALIDATION_ERROR, "is no URL of a key set", path=VARIABLE)
    if parts.scheme != "https" and not _is_near(host, allow):
        raise IntegrationError(
            ErrorCode.VALIDATION_ERROR,
            "must be https: whoever changes the answer on its way lets himself in. Plain http is for a loopback "
            "address, or for one that INTEGRATIONS_EGRESS_ALLOW lists; or mount the key set as a file",
            path=VARIABLE,
        )


def _is_near(host: str, allow: Sequence[str]) -> bool:
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False  # a name: whoever answers for it decides where it leads
    try:
        networks = [ipaddress.ip_network(text) for text in allow]
    except ValueError as error:
        raise IntegrationError(ErrorCode.VALIDATION_ERROR, str(error), path="INTEGRATIONS_EGRESS_ALLOW") from None
    return address.is_loopback or any(address in network for network in networks)


def _key_set(source: str) -> KeySet:
    try:
        text = source if source.lstrip().startswith("{") else Path(source).read_text(encoding="utf-8")
        return _public(json.loads(text))
    except (OSError, ValueError, TypeError, KeyError, JoseError):
        raise IntegrationError(
            ErrorCode.VALIDATION_ERROR, "is no JSON Web Key Set, no file that holds one, and no URL", path=VARIABLE
        ) from None


def _public(wire: Any) -> KeySet:
    """Asymmetric keys only: one that is shared would let whoever checks a token make one."""
    wanted = [key for key in wire["keys"] if isinstance(key, dict) and key.get("kty") in ("RSA", "EC", "OKP")]
    if not wanted:
        raise ValueError("no key")
    return KeySet.import_key_set({"keys": wanted})
