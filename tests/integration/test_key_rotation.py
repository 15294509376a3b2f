"""Rewrapping on a real database: every table, compare-and-set, what does not open, what is missing."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from integration_service.contracts.credentials import parse_credential
from integration_service.contracts.definitions import DefinitionFile
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.instances import ConnectInstanceInput
from integration_service.contracts.oauth import OAuthClientRecord
from integration_service.contracts.wire import parse
from integration_service.devstack.stack import Stack
from integration_service.storage.authorizations import Authorizations, state_hash
from integration_service.storage.credentials import Credentials
from integration_service.storage.database import Database
from integration_service.storage.definitions import Definitions
from integration_service.storage.instances import Instances
from integration_service.storage.key_rotation import (
    MAIN,
    RESULTS,
    WRAPPED_TABLES,
    KeyRotation,
    WrappedTable,
    key_use,
    wrapped_tables,
)
from integration_service.storage.large_results import LargeResults
from integration_service.storage.oauth_clients import OAuthClients
from integration_service.storage.seal_keys import SealKeys, current_seal_key
from integration_service.storage.vault.key_file import KeyringFile, add_key
from integration_service.storage.vault.keyring import KeyRef, generate_keyring_file
from integration_service.storage.vault.openings import Use
from integration_service.storage.vault.seal import seal
from tests.fresh_database import fresh_database
from tests.world import definition_file

USE = Use(worker="test", reason="rotate", activity_type="RewrapKeys", activity_id="1", attempt=1)


@dataclass
class Place:
    database: Database
    path: Path
    keyring: KeyringFile

    @property
    def rotation(self) -> KeyRotation:
        return KeyRotation(self.database, {MAIN: self.keyring, RESULTS: self.keyring})

    async def instance(self) -> str:
        """A new instance with a credential."""
        id_ = str(uuid.uuid4())
        definition = await Definitions(self.database).connectable("global", "thing")
        await Instances(self.database).add(
            ConnectInstanceInput(instance_id=id_, definition="thing", name=f"n {id_[:8]}"), definition
        )
        payload = parse_credential(b'{"type":"custom","custom":{"a":"b"}}')
        await Credentials(self.database, self.keyring).store(instance_id=id_, scope="global", payload=payload)
        return id_

    async def opens(self, instance_id: str) -> bool:
        credentials = Credentials(self.database, self.keyring)
        stored = await credentials.load(instance_id)
        assert stored is not None
        return (await credentials.open(stored)).custom == {"a": "b"}

    async def rewrap(self, table: WrappedTable, to: KeyRef, *, limit: int = 100) -> dict[str, int]:
        """The whole table, a batch at a time."""
        total = {"rewrapped": 0, "broken": 0, "missing": 0}
        after: list[str] | None = None
        while True:
            batch = await self.rotation.rewrap(table, to, after=after, use=USE, limit=limit)
            for name in total:
                total[name] += getattr(batch, name)
            if (after := batch.after) is None:
                return total


@pytest.fixture
async def place(stack: Stack, tmp_path: Path) -> AsyncIterator[Place]:
    path = tmp_path / "keyring.json"
    generate_keyring_file(path)
    async with fresh_database(stack) as fresh, Database(fresh.url) as database:
        await Definitions(database).apply(parse(DefinitionFile, definition_file("thing")), publish=True)
        yield Place(database, path, KeyringFile.open(path))


async def test_every_table_with_wrapped_keys_is_known(place: Place) -> None:
    """Whoever adds a table that holds envelopes adds it to `WRAPPED_TABLES` too."""
    assert set(await wrapped_tables(place.database)) == set(WRAPPED_TABLES)


async def test_everything_comes_under_the_new_key_and_opens(place: Place) -> None:
    ids = [await place.instance() for _ in range(25)]
    seals, clients = SealKeys(place.database, place.keyring), OAuthClients(place.database, place.keyring)
    await seals.ensure()
    public = await current_seal_key(place.database)
    assert public is not None
    of_definition, of_instance = OAuthClientRecord(client_id="a"), OAuthClientRecord(client_id="b", client_secret="s")
    await clients.store(scope="global", definition="thing", client=of_definition)
    await clients.store(scope="global", definition="thing", client=of_instance, instance_id=ids[0])
    authorizations, hashed = Authorizations(place.database, place.keyring), state_hash("state")
    await authorizations.begin(
        hashed=hashed,
        instance_id=ids[0],
        scope="global",
        return_url=None,
        secret={"verifier": "v"},
        lifetime=timedelta(minutes=5),
    )
    results = LargeResults(place.database, place.keyring)
    ref = await results.store(instance_id=ids[0], data=[1, 2])
    before = await place.database.all("SELECT id, ciphertext, updated_at FROM vault.credentials ORDER BY id")
    old, new = place.keyring.active, add_key(place.path, activate=True)
    assert await place.rotation.left({MAIN: new, RESULTS: new}) == {
        "vault.credentials": 25,
        "vault.seal_keys": 1,
        "vault.oauth_clients": 2,
        "vault.authorizations": 1,
        "integrations.large_results": 1,
    }
    for table in WRAPPED_TABLES.values():
        await place.rewrap(table, new, limit=10)
    assert await place.rotation.left({MAIN: new, RESULTS: new}) == {}
    assert [use.key for use in await key_use(place.database)] == [new]
    # Payloads are untouched, and nothing looks newer than it is.
    assert await place.database.all("SELECT id, ciphertext, updated_at FROM vault.credentials ORDER BY id") == before
    _forget(place, old)
    assert all([await place.opens(id_) for id_ in ids])
    assert await seals.open(seal(public, ids[0], b"secret"), ids[0]) == b"secret"
    assert await clients.load(scope="x", definition="thing") == of_definition
    assert await clients.load(scope="global", definition="thing", instance_id=ids[0]) == of_instance
    assert await authorizations.read(hashed, ids[0]) == {"verifier": "v"}
    opened = await results.open(ref.id)
    assert opened is not None
    assert json.loads(opened.body) == [1, 2]


async def test_a_write_in_between_is_not_overwritten(place: Place) -> None:
    """Read under the old key, written anew by somebody else, then our write: theirs stays."""
    id_ = await place.instance()
    new = add_key(place.path, activate=True)
    table, rotation = WRAPPED_TABLES["vault.credentials"], place.rotation
    payload = parse_credential(b'{"type":"custom","custom":{"a":"newer"}}')
    credentials = Credentials(place.database, place.keyring)

    class Between(KeyringFile):
        async def unwrap(self, ref: KeyRef, wrapped: bytes, bound: bytes) -> bytes:
            await credentials.store(instance_id=id_, scope="global", payload=payload)
            return await super().unwrap(ref, wrapped, bound)

    rotation = KeyRotation(place.database, {MAIN: Between.open(place.path), RESULTS: place.keyring})
    batch = await rotation.rewrap(table, new, after=None, use=USE)
    assert (batch.rewrapped, batch.broken, batch.missing) == (0, 0, 0)
    stored = await credentials.load(id_)
    assert stored is not None
    assert stored.generation == 2
    assert (await credentials.open(stored)).custom == {"a": "newer"}


async def test_rows_that_do_not_open_or_whose_key_is_missing_stop_nobody(place: Place) -> None:
    good, broken, missing = [await place.instance() for _ in range(3)]
    for id_, change in ((broken, "wrapped_key = wrapped_key || '\\x00'"), (missing, "key_version = 77")):
        await place.database.one(f"UPDATE vault.credentials SET {change} WHERE instance_id = %(id)s", {"id": id_})
    new = add_key(place.path, activate=True)
    done = await place.rewrap(WRAPPED_TABLES["vault.credentials"], new, limit=1)
    assert done == {"rewrapped": 1, "broken": 1, "missing": 1}
    assert await place.rotation.left({MAIN: new, RESULTS: new}) == {"vault.credentials": 2}
    assert await place.opens(good)
    with pytest.raises(IntegrationError) as refused:
        await place.opens(missing)
    assert refused.value.code == ErrorCode.KEY_UNAVAILABLE


async def test_a_process_whose_active_key_is_another_does_not_begin(place: Place) -> None:
    with pytest.raises(IntegrationError) as refused:
        await place.rotation.rewrap(WRAPPED_TABLES["vault.credentials"], KeyRef("other", 1), after=None, use=USE)
    assert refused.value.code == ErrorCode.KEY_UNAVAILABLE


async def test_a_batch_is_a_line_in_the_log_of_decrypts(place: Place) -> None:
    old = place.keyring.active
    for _ in range(3):
        await place.instance()
    await place.rewrap(WRAPPED_TABLES["vault.credentials"], add_key(place.path, activate=True))
    [row] = await place.database.all("SELECT * FROM audit.decrypts")
    assert (row["kind"], row["reason"], row["subject"]) == ("data_key", "rotate", "vault.credentials/3 rows")
    assert (row["key_id"], row["key_version"]) == (old.key_id, old.version)


def _forget(place: Place, ref: KeyRef) -> None:
    content: dict[str, Any] = json.loads(place.path.read_text())
    content["keys"] = [entry for entry in content["keys"] if entry["version"] != ref.version]
    place.path.write_text(json.dumps(content))
