"""The key pair that secrets are sealed to: public to all, its private half wrapped by the keyring."""

from __future__ import annotations

import base64
import uuid

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from integration_service.contracts.credentials import Sealed, SealKey
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.storage.database import Database
from integration_service.storage.vault.envelope import ENVELOPE_COLUMNS, Context, Envelope, decrypt, encrypt
from integration_service.storage.vault.keyring import KeyProvider
from integration_service.storage.vault.seal import unseal

_ENVELOPE = ", ".join(ENVELOPE_COLUMNS)
_VALUES = ", ".join(f"%({name})s" for name in ENVELOPE_COLUMNS)


async def current_seal_key(database: Database) -> SealKey | None:
    """What `GET /v1/seal-key` tells; needs no keyring."""
    row = await database.one("SELECT id, public_key FROM vault.seal_keys WHERE active", {})
    if row is None:
        return None
    return SealKey(key_id=row["id"], public_key=base64.b64encode(row["public_key"]).decode())


class SealKeys:
    """Makes the seal key once and opens what was sealed to it."""

    def __init__(self, database: Database, provider: KeyProvider) -> None:
        self._database = database
        self._provider = provider

    async def ensure(self) -> None:
        """Make the first seal key if there is none; of two processes that try, one wins."""
        if await current_seal_key(self._database) is not None:
            return
        private, key_id = X25519PrivateKey.generate(), str(uuid.uuid4())
        envelope = await encrypt(self._provider, private.private_bytes_raw(), _context(key_id))
        await self._database.one(
            f"""INSERT INTO vault.seal_keys (id, public_key, active, {_ENVELOPE})
                VALUES (%(id)s, %(public_key)s, true, {_VALUES}) ON CONFLICT DO NOTHING""",
            {"id": key_id, "public_key": private.public_key().public_bytes_raw(), **envelope.to_row()},
        )

    async def open(self, sealed: Sealed, instance_id: str) -> bytes:
        """The plaintext of a seal made for `instance_id`.

        Raises IntegrationError VALIDATION_ERROR for an unknown key or a seal that does not open.
        """
        row = await self._database.one(
            f"SELECT {_ENVELOPE} FROM vault.seal_keys WHERE id = %(id)s", {"id": sealed.key_id}
        )
        if row is None:
            raise IntegrationError(
                ErrorCode.VALIDATION_ERROR,
                "no seal key of that id; GET /v1/seal-key tells the current one",
                path="sealed.keyId",
            )
        private = await decrypt(self._provider, Envelope.from_row(row), _context(sealed.key_id))
        return unseal(sealed, private, instance_id)


def _context(key_id: str) -> Context:
    return Context("seal_key", (key_id,))
