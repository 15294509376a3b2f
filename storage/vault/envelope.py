"""Envelope encryption: a fresh data key per write, committed to, bound to where the secret belongs.

Layers: HKDF-SHA512 (RFC 5869) splits the data key into an encryption key and a 32-byte commitment; AES-256-GCM
takes the payload; the key provider wraps the data key. Both layers authenticate the same context, so a row
that was swapped, replayed, truncated or changed in any byte does not open.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass, fields
from typing import Any, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.storage.vault.keyring import KeyProvider, KeyRef
from integration_service.storage.vault.openings import note_opening
from integration_service.telemetry.redaction import remember

ENVELOPE_VERSION = 1
SUITE = 1
"""HKDF-SHA512 + AES-256-GCM, data key wrapped with AES-256-GCM-SIV."""
_INFO = b"integration-service/envelope/v1"


@dataclass(frozen=True)
class Context:
    """What a secret is bound to. `kind` keeps the tables apart; `parts` name the row."""

    kind: str
    parts: tuple[str, ...]

    def encoded(self) -> bytes:
        """Each part behind its length, so that no two contexts share an encoding."""
        texts = [part.encode() for part in (self.kind, *self.parts)]
        return len(texts).to_bytes(4) + b"".join(len(text).to_bytes(4) + text for text in texts)


@dataclass(frozen=True)
class Envelope:
    """An encrypted secret, column by column as it is stored."""

    envelope_version: int
    suite: int
    key_id: str
    key_version: int
    wrapped_key: bytes
    commitment: bytes
    nonce: bytes
    ciphertext: bytes

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Self:
        return cls(**{name: row[name] for name in ENVELOPE_COLUMNS})

    def to_row(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ENVELOPE_COLUMNS}


ENVELOPE_COLUMNS = tuple(column.name for column in fields(Envelope))


async def encrypt(provider: KeyProvider, plaintext: bytes, context: Context) -> Envelope:
    """Encrypt under a fresh data key. Raises IntegrationError KEY_UNAVAILABLE."""
    bound = context.encoded()
    remember(plaintext)
    data_key, nonce = secrets.token_bytes(32), secrets.token_bytes(12)
    key, commitment = _derive(data_key)
    ref, wrapped = await provider.wrap(data_key, bound)
    return Envelope(
        envelope_version=ENVELOPE_VERSION,
        suite=SUITE,
        key_id=ref.key_id,
        key_version=ref.version,
        wrapped_key=wrapped,
        commitment=commitment,
        nonce=nonce,
        ciphertext=AESGCM(key).encrypt(nonce, plaintext, bound),
    )


async def decrypt(provider: KeyProvider, envelope: Envelope, context: Context) -> bytes:
    """Open an envelope in its context, and note it for the log of decrypts.

    Raises IntegrationError INTEGRITY_ERROR or KEY_UNAVAILABLE, and UNAVAILABLE when the log cannot be written.
    """
    if (envelope.envelope_version, envelope.suite) != (ENVELOPE_VERSION, SUITE):
        raise _broken("is in no format that this version knows")
    bound = context.encoded()
    ref = KeyRef(envelope.key_id, envelope.key_version)
    data_key = await provider.unwrap(ref, envelope.wrapped_key, bound)
    key, commitment = _derive(data_key)
    if not hmac.compare_digest(commitment, envelope.commitment):
        raise _broken("does not match its key commitment")
    try:
        plaintext = AESGCM(key).decrypt(envelope.nonce, envelope.ciphertext, bound)
    except (InvalidTag, ValueError):
        raise _broken("does not open: it was changed, or belongs to another row") from None
    await note_opening(context.kind, context.parts, ref)
    remember(plaintext)
    return plaintext


@dataclass(frozen=True)
class Wrapped:
    """A data key as a row holds it: the key-encryption key's name and the wrapped bytes."""

    key: KeyRef
    wrapped_key: bytes


async def rewrap(provider: KeyProvider, wrapped: Wrapped, context: Context) -> Wrapped:
    """The same data key under the provider's active key: the payload stays as it is, and closed.

    Raises IntegrationError INTEGRITY_ERROR or KEY_UNAVAILABLE.
    """
    bound = context.encoded()
    data_key = await provider.unwrap(wrapped.key, wrapped.wrapped_key, bound)
    return Wrapped(*await provider.wrap(data_key, bound))


def _derive(data_key: bytes) -> tuple[bytes, bytes]:
    material = HKDF(algorithm=SHA512(), length=64, salt=None, info=_INFO).derive(data_key)
    return material[:32], material[32:]


def _broken(why: str) -> IntegrationError:
    return IntegrationError(ErrorCode.INTEGRITY_ERROR, f"a stored secret {why}")
