"""Many instances with credentials, as rows: what a rotation or a long list needs."""

from __future__ import annotations

import json
import uuid

from integration_service.contracts.definitions import DefinitionFile
from integration_service.contracts.wire import JsonObject, parse
from integration_service.storage.credentials import StoredCredential
from integration_service.storage.database import Database
from integration_service.storage.definitions import Definitions
from integration_service.storage.vault.envelope import ENVELOPE_COLUMNS, encrypt
from integration_service.storage.vault.keyring import KeyProvider
from tests.world import definition_file

_CREDENTIAL = ("id", "instance_id", "scope", "type", "schema_version", "generation", *ENVELOPE_COLUMNS)


async def add_credentials(
    database: Database,
    provider: KeyProvider,
    count: int,
    *,
    file: JsonObject | None = None,
    payload: JsonObject | None = None,
    config: JsonObject | None = None,
) -> list[str]:
    """Connected instances of a definition, each with a credential; returns their ids. No workflow owns them."""
    definition = await Definitions(database).apply(parse(DefinitionFile, file or definition_file("many")), publish=True)
    plaintext = json.dumps(payload or {"type": "custom", "custom": {"a": "b"}}).encode()
    ids = [str(uuid.uuid4()) for _ in range(count)]
    for start in range(0, count, 5_000):
        part = ids[start : start + 5_000]
        rows = []
        for id_ in part:
            row = {
                "id": str(uuid.uuid4()),
                "instance_id": id_,
                "scope": "global",
                "type": (payload or {"type": "custom"})["type"],
                "schema_version": 1,
                "generation": 1,
            }
            envelope = await encrypt(provider, plaintext, StoredCredential(row).context)
            rows.append({**row, **envelope.to_row()})
        async with database.transaction() as connection, connection.cursor() as cursor:
            await cursor.execute(
                b"""INSERT INTO integrations.instances (id, name, definition_id, config, status)
                    SELECT id, 'n ' || id, %(definition)s, %(config)s, 'CONNECTED'
                      FROM unnest(%(ids)s::uuid[]) AS id""",
                {"definition": definition.id, "config": json.dumps(config or {}), "ids": part},
            )
            await cursor.executemany(
                f"""INSERT INTO vault.credentials ({", ".join(_CREDENTIAL)})
                    VALUES ({", ".join(f"%({name})s" for name in _CREDENTIAL)})""".encode(),
                rows,
            )
    return ids
