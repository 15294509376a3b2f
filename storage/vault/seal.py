"""Seals: how a secret travels to us through Temporal (HPKE, RFC 9180, base mode).

Anyone with the public key seals; only an activity opens. `info` names the instance, so a seal that was made for
one instance opens for no other.
"""

from __future__ import annotations

import base64
import binascii

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from integration_service.contracts.credentials import Sealed, SealKey
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.telemetry.redaction import remember

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def seal(key: SealKey, instance_id: str, plaintext: bytes) -> Sealed:
    """Seal `plaintext` for one instance."""
    public = X25519PublicKey.from_public_bytes(base64.b64decode(key.public_key))
    box = _SUITE.encrypt(plaintext, public, info=_info(instance_id))
    return Sealed(key_id=key.key_id, sealed=base64.b64encode(box).decode())


def unseal(sealed: Sealed, private_key: bytes, instance_id: str) -> bytes:
    """Open a seal. Raises IntegrationError VALIDATION_ERROR when it was not made for this key and instance."""
    try:
        box = base64.b64decode(sealed.sealed, validate=True)
        plaintext = _SUITE.decrypt(box, X25519PrivateKey.from_private_bytes(private_key), info=_info(instance_id))
    except (InvalidTag, ValueError, binascii.Error):
        raise IntegrationError(
            ErrorCode.VALIDATION_ERROR, "the seal does not open for this instance", path="sealed"
        ) from None
    remember(plaintext)
    return plaintext


def _info(instance_id: str) -> bytes:
    return f"integration-service/v1/{instance_id}".encode()
