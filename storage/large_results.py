"""Results that are too large to be handed over: encrypted, fetched from the gateway, gone after a day.

One row holds one result. The transport stops at 10 MiB, which Postgres keeps out of line in a single value.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeGuard

from psycopg.errors import ForeignKeyViolation

from integration_service.contracts.calls import RESULTS_PATH, ResultRef
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.names import is_canonical_uuid
from integration_service.storage.database import Database
from integration_service.storage.instances import not_found
from integration_service.storage.vault.envelope import ENVELOPE_COLUMNS, Context, Envelope, decrypt, encrypt
from integration_service.storage.vault.keyring import KeyProvider

RESULT_LIFETIME = timedelta(hours=24)
MAX_STORED_BYTES = 64 * 1024 * 1024
"""More than one answer can make; pages put together, or a transform, could."""
_SWEEP = 5
_BINARY_KEYS = {"$binary", "contentType", "fileName"}
# RFC 9110 §8.3.1, parameters included; anything else would be a header of the upstream's making.
_MEDIA_TYPE = re.compile(r"[\w.+!#$&^-]{1,64}/[\w.+!#$&^-]{1,64}(;[\x20-\x7e]{0,128})?", re.ASCII)
_COLUMNS = ", ".join(ENVELOPE_COLUMNS)
_VALUES = ", ".join(f"%({name})s" for name in ENVELOPE_COLUMNS)
_STORE = f"""
WITH swept AS (
    DELETE FROM integrations.large_results WHERE id IN (
        SELECT id FROM integrations.large_results
         WHERE expires_at < statement_timestamp() ORDER BY expires_at LIMIT {_SWEEP} FOR UPDATE SKIP LOCKED)
)
INSERT INTO integrations.large_results (id, instance_id, expires_at, {_COLUMNS})
VALUES (%(id)s, %(instance_id)s, clock_timestamp() + %(lifetime)s, {_VALUES})
RETURNING expires_at
"""


@dataclass(frozen=True)
class LargeResult:
    """A result's body: the JSON of its `data`, or the bytes of a binary one. `sha256` is in hex."""

    body: bytes
    content_type: str
    file_name: str | None = None

    @classmethod
    def of(cls, data: Any) -> LargeResult:
        """The body of a result's `data`; ``{"$binary", "contentType", "fileName"?}`` is taken out of its base64."""
        if isinstance(data, dict) and isinstance(data.get("$binary"), str) and data.keys() <= _BINARY_KEYS:
            try:
                raw = base64.b64decode(data["$binary"], validate=True)
            except binascii.Error:
                pass
            else:
                kind, name = data.get("contentType"), data.get("fileName")
                return cls(
                    body=raw,
                    content_type=kind if _is_media_type(kind) else "application/octet-stream",
                    file_name=name if isinstance(name, str) and name else None,
                )
        return cls(body=_json(data), content_type="application/json")

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.body).hexdigest()

    def to_plaintext(self) -> bytes:
        """What is encrypted: a line of JSON about the body, then the body."""
        about = {"contentType": self.content_type, "fileName": self.file_name}
        return json.dumps(about).encode() + b"\n" + self.body

    @classmethod
    def from_plaintext(cls, plaintext: bytes) -> LargeResult:
        line, _, body = plaintext.partition(b"\n")
        about = json.loads(line)
        return cls(body=body, content_type=about["contentType"], file_name=about["fileName"])


class LargeResults:
    """The large results of one database. Who only fetches needs no `public_url`."""

    def __init__(
        self,
        database: Database,
        provider: KeyProvider,
        *,
        public_url: str = "",
        lifetime: timedelta = RESULT_LIFETIME,
    ) -> None:
        self._database = database
        self._provider = provider
        self._public_url = public_url.rstrip("/")
        self._lifetime = lifetime

    async def store(self, *, instance_id: str, data: Any) -> ResultRef:
        """Encrypt and keep a result's `data`; returns where it is fetched. Stored twice, it is there twice.

        Raises IntegrationError RESPONSE_TOO_LARGE, INSTANCE_NOT_FOUND, UNAVAILABLE or KEY_UNAVAILABLE.
        """
        result = LargeResult.of(data)
        size = len(result.body)
        if size > MAX_STORED_BYTES:
            raise IntegrationError(
                ErrorCode.RESPONSE_TOO_LARGE, f"the result is {size} bytes, over {MAX_STORED_BYTES}: ask for less"
            )
        id_ = str(uuid.uuid4())
        envelope = await encrypt(self._provider, result.to_plaintext(), _context(id_, instance_id))
        values = {"id": id_, "instance_id": instance_id, "lifetime": self._lifetime, **envelope.to_row()}
        try:
            row = await self._database.one(_STORE, values)
        except ForeignKeyViolation:
            raise not_found(instance_id) from None
        if row is None:
            raise IntegrationError(ErrorCode.UNAVAILABLE, "the database kept no result")
        return ResultRef(
            id=id_,
            url=f"{self._public_url}{RESULTS_PATH}{id_}",
            sha256=result.sha256,
            bytes=size,
            expires_at=row["expires_at"],
        )

    async def open(self, result_id: str) -> LargeResult | None:
        """A result that has not expired, or None; any text may be asked for.

        Raises IntegrationError INTEGRITY_ERROR, KEY_UNAVAILABLE or UNAVAILABLE.
        """
        if not is_canonical_uuid(result_id):
            return None
        async with self._database.connection() as connection:
            # Binary: as text a body would come twice as long.
            cursor = await connection.execute(
                f"""SELECT instance_id, {_COLUMNS} FROM integrations.large_results
                     WHERE id = %(id)s AND expires_at > clock_timestamp()""".encode(),
                {"id": result_id},
                binary=True,
            )
            row = await cursor.fetchone()
        if row is None:
            return None
        context = _context(result_id, str(row["instance_id"]))
        return LargeResult.from_plaintext(await decrypt(self._provider, Envelope.from_row(row), context))


def _context(result_id: str, instance_id: str) -> Context:
    return Context("large-result", (result_id, instance_id))


def _is_media_type(text: object) -> TypeGuard[str]:
    return isinstance(text, str) and _MEDIA_TYPE.fullmatch(text) is not None


def _json(data: Any) -> bytes:
    try:
        return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # half a surrogate pair has no bytes of its own
        return json.dumps(data, separators=(",", ":")).encode()
