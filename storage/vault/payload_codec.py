"""Payload encryption: what Temporal stores of our workflows, closed to whoever reads its histories.

A process makes a data key, has it wrapped once by the key provider, and derives a key and a nonce of its own for each
payload from it: HKDF-SHA256 (RFC 5869) with 32 random bytes of salt, then AES-256-GCM. So a key service is asked once
in an hour and not for each payload, and no nonce repeats. The wrapped data key goes with every payload: whoever holds
the keyring opens it, years later too.

Authenticated with each: the suite, the name of the key-encryption key, and the wrapped data key. The workflow is not: a
codec server is told no workflow, and payloads wander between workflows.
"""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from google.protobuf.message import DecodeError
from temporalio.api.common.v1 import Payload
from temporalio.converter import DataConverter, DefaultFailureConverterWithEncodedAttributes, PayloadCodec

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.storage.vault.envelope import Context
from integration_service.storage.vault.keyring import KeyProvider, KeyRef

ENCODING = b"binary/encrypted"
KEY_ID, KEY_VERSION = "encryption-key-id", "encryption-key-version"
"""Metadata of an encrypted payload: which key-encryption key opens it."""
_SUITE = b"\x01"
"""HKDF-SHA256 with a salt for each payload, AES-256-GCM; data key wrapped by the key provider."""
_CONTEXT = Context("temporal-payload", ()).encoded()
_INFO = b"integration-service/payload/v1"
_SALT_BYTES = 32
_LIFE_S = 3600.0
_KNOWN_KEYS = 1000


@dataclass(frozen=True)
class _DataKey:
    """A data key, opened and wrapped."""

    ref: KeyRef
    wrapped: bytes
    key: bytes = dataclasses.field(repr=False)


class PayloadEncryption(PayloadCodec):
    """Encrypts where `encrypts`, and opens what is encrypted either way; what is not ours or not encrypted stays.

    A codec that was there before, `inner`, is applied as well: first on the way out, last on the way in.
    Opening raises IntegrationError: KEY_UNAVAILABLE for a key that is not held, INTEGRITY_ERROR for what was changed.
    """

    def __init__(self, provider: KeyProvider, *, encrypts: bool, inner: PayloadCodec | None = None) -> None:
        self._provider = provider
        self.encrypts = encrypts
        self.inner = inner
        self._writing: _DataKey | None = None
        self._until = 0.0
        self._opened: OrderedDict[tuple[KeyRef, bytes], bytes] = OrderedDict()
        self._making = asyncio.Lock()

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        inner = list(payloads) if self.inner is None else await self.inner.encode(payloads)
        if not self.encrypts:
            return inner
        data_key = await self._data_key()
        return [_close(payload, data_key) for payload in inner]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        opened = [await self._open(payload) for payload in payloads]
        return opened if self.inner is None else await self.inner.decode(opened)

    async def _data_key(self) -> _DataKey:
        """One data key serves for an hour, or until another key is the active one."""
        async with self._making:
            known = self._writing
            if known is None or known.ref != self._provider.active or time.monotonic() >= self._until:
                key = secrets.token_bytes(32)
                known = self._writing = _DataKey(*await self._provider.wrap(key, _CONTEXT), key)
                self._until = time.monotonic() + _LIFE_S
            return known

    async def _open(self, payload: Payload) -> Payload:
        metadata = payload.metadata
        if metadata.get("encoding") != ENCODING or KEY_ID not in metadata:
            return payload
        try:
            ref = KeyRef(metadata[KEY_ID].decode(), int(metadata[KEY_VERSION]))
            suite, size = payload.data[:1], int.from_bytes(payload.data[1:3])
            rest = payload.data[3:]
            wrapped, salt, sealed = rest[:size], rest[size : size + _SALT_BYTES], rest[size + _SALT_BYTES :]
        except (ValueError, KeyError):
            raise _broken() from None
        if suite != _SUITE:
            raise _broken()
        key, nonce = _derive(await self._unwrapped(ref, wrapped), salt)
        try:
            return Payload.FromString(AESGCM(key).decrypt(nonce, sealed, _bound(ref, wrapped)))
        except (InvalidTag, ValueError, DecodeError):
            raise _broken() from None

    async def _unwrapped(self, ref: KeyRef, wrapped: bytes) -> bytes:
        known = self._opened.get((ref, wrapped))
        if known is None:
            known = self._opened[ref, wrapped] = await self._provider.unwrap(ref, wrapped, _CONTEXT)
            if len(self._opened) > _KNOWN_KEYS:
                self._opened.popitem(last=False)
        return known


def with_payload_encryption(converter: DataConverter, provider: KeyProvider | None, *, encrypts: bool) -> DataConverter:
    """`converter` with payload encryption around the codec that it has; the same where it encrypts already, or where
    there are no keys. With `encrypts`, messages and stack traces of failures are encrypted too."""
    there = inner = converter.payload_codec
    if isinstance(there, PayloadEncryption):
        if there.encrypts or not encrypts:
            return converter
        inner = there.inner  # it could only open, and is to encrypt as well
    if provider is None:
        return converter
    codec = PayloadEncryption(provider, encrypts=encrypts, inner=inner)
    if not encrypts:
        return dataclasses.replace(converter, payload_codec=codec)
    return dataclasses.replace(
        converter, payload_codec=codec, failure_converter_class=DefaultFailureConverterWithEncodedAttributes
    )


def _close(payload: Payload, data_key: _DataKey) -> Payload:
    salt = secrets.token_bytes(_SALT_BYTES)
    key, nonce = _derive(data_key.key, salt)
    sealed = AESGCM(key).encrypt(nonce, payload.SerializeToString(), _bound(data_key.ref, data_key.wrapped))
    return Payload(
        metadata={
            "encoding": ENCODING,
            KEY_ID: data_key.ref.key_id.encode(),
            KEY_VERSION: str(data_key.ref.version).encode(),
        },
        data=b"".join((_SUITE, len(data_key.wrapped).to_bytes(2), data_key.wrapped, salt, sealed)),
    )


def _derive(data_key: bytes, salt: bytes) -> tuple[bytes, bytes]:
    material = HKDF(algorithm=SHA256(), length=44, salt=salt, info=_INFO).derive(data_key)
    return material[:32], material[32:]


def _bound(ref: KeyRef, wrapped: bytes) -> bytes:
    return _SUITE + Context("temporal-payload", (ref.key_id, str(ref.version), wrapped.hex())).encoded()


def _broken() -> IntegrationError:
    return IntegrationError(ErrorCode.INTEGRITY_ERROR, "an encrypted payload does not open: it was changed or cut")
