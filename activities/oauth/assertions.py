"""Signed assertions (RFC 7523) and tokens (RFC 7519), each with the one algorithm that its definition names."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey

from integration_service.contracts.errors import ErrorCode, IntegrationError

_KINDS: dict[str, type[Key]] = {"RS": RSAKey, "PS": RSAKey, "ES": ECKey, "Ed": OKPKey, "HS": OctKey}


def sign(claims: dict[str, Any], *, key_text: str, key_id: str | None, algorithm: str) -> str:
    """A compact JWS. `key_text` is a PEM, a JWK as JSON, or with HS256 to HS512 the secret itself.

    Raises IntegrationError VALIDATION_ERROR that quotes nothing of the key.
    """
    header = {"typ": "JWT", "alg": algorithm, **({"kid": key_id} if key_id else {})}
    try:
        return jwt.encode(header, claims, _key(key_text, algorithm), algorithms=[algorithm])
    except (JoseError, ValueError, TypeError, KeyError):
        raise IntegrationError(
            ErrorCode.VALIDATION_ERROR, f"the key cannot sign with {algorithm}", path="privateKey"
        ) from None


@lru_cache(maxsize=128)  # parsing an RSA key takes longer than signing with it
def _key(text: str, algorithm: str) -> Any:
    kind = _KINDS[algorithm[:2]]
    if text.lstrip().startswith("{"):
        return kind.import_key(json.loads(text))
    return kind.import_key(text)
