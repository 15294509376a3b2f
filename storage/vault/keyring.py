"""Key-encryption keys: who holds them, and the file or inline key set that does so here."""

from __future__ import annotations

import base64
import json
import os
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.wire import format_time

VARIABLE = "INTEGRATIONS_KEYRING"
KEY_BYTES = 32
_NONCE_BYTES = 12


@dataclass(frozen=True)
class KeyRef:
    """Names one key-encryption key: its line and its version in that line."""

    key_id: str
    version: int

    def __str__(self) -> str:
        return f"{self.key_id}:{self.version}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``<id>:<version>``. Raises IntegrationError VALIDATION_ERROR."""
        key_id, _, version = text.rpartition(":")
        if not key_id or not version.isascii() or not version.isdigit():
            raise IntegrationError(ErrorCode.VALIDATION_ERROR, "a key is named by its id and version, as kek-1:2")
        return cls(key_id, int(version))


class KeyProvider(Protocol):
    """Wraps data keys. A KMS or Vault transit engine can stand here: keys need not leave it."""

    @property
    def active(self) -> KeyRef:
        """The key that new data keys are wrapped under."""

    @property
    def refs(self) -> tuple[KeyRef, ...]:
        """The keys that it can unwrap with."""

    async def wrap(self, data_key: bytes, bound: bytes) -> tuple[KeyRef, bytes]:
        """Wrap under the active key; `bound` plus the key's name is authenticated."""

    async def unwrap(self, ref: KeyRef, wrapped: bytes, bound: bytes) -> bytes:
        """Raises IntegrationError: KEY_UNAVAILABLE for an unknown key, INTEGRITY_ERROR for a bad tag."""


@dataclass(frozen=True)
class Keyring:
    """A `KeyProvider` whose keys lie in a file (mode 0600) or an environment variable.

    JSON: ``{"active": {"id", "version"}, "keys": [{"id", "version", "key": base64 of 32 bytes, "createdAt"}]}``.
    Keys are wrapped with AES-256-GCM-SIV (RFC 8452): a repeated nonce would not open them.
    """

    active: KeyRef
    keys: dict[KeyRef, bytes] = field(repr=False)

    @classmethod
    def load(cls, source: str) -> Self:
        """Read a key set from inline JSON or from the file at that path.

        Raises IntegrationError VALIDATION_ERROR; it never quotes the text, which may be a key.
        """
        text = source if is_inline(source) else _read(Path(source))
        try:
            return cls._parse(json.loads(text))
        except (ValueError, KeyError, TypeError):
            raise IntegrationError(
                ErrorCode.VALIDATION_ERROR,
                'not a key set; `integrations keys generate` makes one: {"active", "keys"}',
                path=VARIABLE,
            ) from None

    @classmethod
    def _parse(cls, data: dict[str, Any]) -> Self:
        keys: dict[KeyRef, bytes] = {}
        for entry in data["keys"]:
            key = base64.b64decode(entry["key"], validate=True)
            ref = _ref(entry)
            if len(key) != KEY_BYTES or ref in keys:
                raise ValueError
            keys[ref] = key
        active = _ref(data["active"])
        if active not in keys:
            raise ValueError
        return cls(active=active, keys=keys)

    @property
    def refs(self) -> tuple[KeyRef, ...]:
        return tuple(self.keys)

    @cached_property
    def _ciphers(self) -> dict[KeyRef, AESGCMSIV]:
        return {ref: AESGCMSIV(key) for ref, key in self.keys.items()}

    async def wrap(self, data_key: bytes, bound: bytes) -> tuple[KeyRef, bytes]:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = self._ciphers[self.active].encrypt(nonce, data_key, _bound(self.active, bound))
        return self.active, nonce + sealed

    async def unwrap(self, ref: KeyRef, wrapped: bytes, bound: bytes) -> bytes:
        cipher = self._ciphers.get(ref)
        if cipher is None:
            raise key_not_held(ref)
        nonce, sealed = wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:]
        try:
            return cipher.decrypt(nonce, sealed, _bound(ref, bound))
        except (InvalidTag, ValueError):
            raise IntegrationError(ErrorCode.INTEGRITY_ERROR, "a wrapped data key does not open") from None


def is_inline(source: str) -> bool:
    """Whether a keyring's source is the key set itself, and no path."""
    return source.lstrip().startswith("{")


def key_not_held(ref: KeyRef) -> IntegrationError:
    """KEY_UNAVAILABLE for a key."""
    return IntegrationError(ErrorCode.KEY_UNAVAILABLE, f"the keyring holds no key {ref.key_id} version {ref.version}")


def generate_keyring() -> str:
    """A new key set with one random key, as JSON text."""
    # A name of its own, so that another installation's keyring is told by KEY_UNAVAILABLE, not by a bad tag.
    key = {"id": f"kek-{secrets.token_hex(8)}", "version": 1}
    entry = {
        **key,
        "key": base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode(),
        "createdAt": format_time(datetime.now(UTC)),
    }
    return json.dumps({"active": key, "keys": [entry]}, indent=2) + "\n"


def generate_keyring_file(path: Path) -> None:
    """Write a new key set to `path`, readable by its owner only. An existing file is never overwritten."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise IntegrationError(
            ErrorCode.VALIDATION_ERROR, "a file is there already; its keys may be in use", path=str(path)
        ) from None
    except OSError as error:
        raise IntegrationError(
            ErrorCode.VALIDATION_ERROR, f"cannot write it: {error.strerror}", path=str(path)
        ) from None
    with os.fdopen(descriptor, "w") as file:
        file.write(generate_keyring())
        file.flush()
        os.fsync(file.fileno())


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise IntegrationError(ErrorCode.VALIDATION_ERROR, "the keyring is no text", path=VARIABLE) from None
    except OSError as error:
        raise IntegrationError(
            ErrorCode.VALIDATION_ERROR, f"cannot read the keyring: {error.strerror}", path=VARIABLE
        ) from None


def _ref(entry: dict[str, Any]) -> KeyRef:
    key_id, version = entry["id"], entry["version"]
    if not isinstance(key_id, str) or type(version) is not int or not 1 <= version < 2**31:
        raise TypeError
    return KeyRef(key_id, version)


def _bound(ref: KeyRef, bound: bytes) -> bytes:
    name = ref.key_id.encode()
    return len(name).to_bytes(4) + name + ref.version.to_bytes(8) + bound
