"""Who may use the codec: a JSON Web Token (RFC 7519) of the issuer that the operator named, signed by one of its keys.

The algorithms are fixed, and all asymmetric: a token cannot choose how it is checked (RFC 8725 §3.1). The key set comes
inline, from a file, or from the issuer's URL, which is asked again after ten minutes, and for a key that is not known.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

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
    """The issuer's public keys, from `source`: inline JSON, a path, or an http(s) URL."""

    def __init__(self, source: str) -> None:
        self._fetch: Callable[[], Awaitable[Any]] | None = None
        self._known: KeySet | None = None
        self._read_at = self._asked_at = float("-inf")
        self._asking = asyncio.Lock()
        if source.startswith(("https://", "http://")):
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
                except (httpx2.HTTPError, JoseError, ValueError, TypeError, KeyError) as error:
                    _log.warning("the codec's key set cannot be had: %s", type(error).__name__)
            if self._known is None or now - self._read_at > _KEPT_S:
                raise IntegrationError(ErrorCode.UNAVAILABLE, "the issuer's keys cannot be had just now", path=VARIABLE)
            return self._known


async def _fetched(url: str) -> Any:
    """The operator names this URL, no customer does; redirects and proxies of the environment are not followed."""
    async with (
        httpx2.AsyncClient(trust_env=False, timeout=5) as http,
        http.stream("GET", url, headers={"Accept": "application/json"}) as answer,
    ):
        answer.raise_for_status()
        body = bytearray()
        async for part in answer.aiter_bytes():
            body += part
            if len(body) > _MAX_JWKS_BYTES:
                raise ValueError("too long")
    return json.loads(body)


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
