"""Signed assertions (RFC 7523) and tokens (RFC 7519), each with the one algorithm that its definition names."""

from __future__ import annotations

import json
import warnings
from typing import Any

from joserfc import jwt
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from integration_service.contracts.errors import ErrorCode, IntegrationError

_KINDS: dict[str, type[RSAKey] | type[ECKey] | type[OKPKey]] = {
    "RS": RSAKey,
    "PS": RSAKey,
    "ES": ECKey,
    "Ed": OKPKey,
}


def sign(claims: dict[str, Any], *, key_text: str, key_id: str | None, algorithm: str) -> str:
    """A compact JWS. `key_text` is a PEM, a JWK as JSON, or with HS256 to HS512 the secret itself.

    Raises IntegrationError VALIDATION_ERROR that quotes nothing of the key.
    """
    header = {"typ": "JWT", "alg": algorithm, **({"kid": key_id} if key_id else {})}
    try:
        with warnings.catch_warnings():
            # The definition chose the algorithm and the provider the key; a warning on stderr changes neither.
            warnings.simplefilter("ignore", SecurityWarning)
            return jwt.encode(header, claims, _key(key_text, algorithm), algorithms=[algorithm])
    except Exception:
        # joserfc and cryptography raise whatever a broken key makes them meet, and some of it quotes the key.
        raise IntegrationError(
            ErrorCode.VALIDATION_ERROR, f"the key cannot sign with {algorithm}", path="privateKey"
        ) from None


def _key(text: str, algorithm: str) -> RSAKey | ECKey | OKPKey | OctKey:
    if algorithm.startswith("HS"):
        return OctKey.import_key(text)
    kind = _KINDS[algorithm[:2]]
    if text.lstrip().startswith("{"):
        return kind.import_key(json.loads(text))
    if "\n" not in text.strip():
        text = text.replace("\\n", "\n")  # a PEM that went through an environment variable
    return kind.import_key(text)
