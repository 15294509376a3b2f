"""Seal keys and OAuth clients: one active key, nothing in clear."""

from __future__ import annotations

import asyncio
import base64
import uuid

import pytest

from integration_service.contracts.credentials import Sealed, SealKey
from integration_service.contracts.definitions import DefinitionFile
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.instances import ConnectInstanceInput
from integration_service.contracts.oauth import OAuthClientRecord
from integration_service.contracts.wire import parse
from integration_service.storage.database import Database
from integration_service.storage.definitions import Definitions
from integration_service.storage.instances import Instances
from integration_service.storage.oauth_clients import OAuthClients
from integration_service.storage.seal_keys import SealKeys, current_seal_key
from integration_service.storage.vault.keyring import Keyring
from integration_service.storage.vault.seal import seal
from tests.world import definition_file

INSTANCE = "2f1f6f0a-0f7c-4b7e-9a43-0d6e6f6f0a11"


async def active(database: Database) -> SealKey:
    key = await current_seal_key(database)
    assert key is not None
    return key


async def test_five_who_ensure_a_seal_key_at_once_leave_one(database: Database, keyring: Keyring) -> None:
    keys = SealKeys(database, keyring)
    # The stack's worker has made one already: put it out of action, so that all five find none.
    await keys.ensure()
    before = (await active(database)).key_id
    await database.one("UPDATE vault.seal_keys SET active = false WHERE id = %(id)s", {"id": before})
    await asyncio.gather(*(SealKeys(database, keyring).ensure() for _ in range(5)))
    rows = await database.all("SELECT id FROM vault.seal_keys WHERE active")
    assert len(rows) == 1
    assert rows[0]["id"] == (await active(database)).key_id != before
    await keys.ensure()
    assert await database.all("SELECT id FROM vault.seal_keys WHERE active") == rows


async def test_what_was_sealed_to_the_current_key_opens(database: Database, keyring: Keyring) -> None:
    keys = SealKeys(database, keyring)
    await keys.ensure()
    key = await active(database)
    assert len(base64.b64decode(key.public_key)) == 32
    assert key.suite == "HPKE-X25519-HKDF-SHA256-AES-256-GCM"
    assert await keys.open(seal(key, INSTANCE, b"secret"), INSTANCE) == b"secret"


async def test_a_seal_to_a_retired_key_still_opens(database: Database, keyring: Keyring) -> None:
    keys = SealKeys(database, keyring)
    await keys.ensure()
    sealed = seal(await active(database), INSTANCE, b"secret")
    await database.one("UPDATE vault.seal_keys SET active = false WHERE active", {})
    await keys.ensure()
    assert (await active(database)).key_id != sealed.key_id
    assert await keys.open(sealed, INSTANCE) == b"secret"


async def test_an_unknown_key_is_the_senders_mistake(database: Database, keyring: Keyring) -> None:
    for key_id in ("no-such-key", "'; DROP TABLE vault.seal_keys; --"):
        with pytest.raises(IntegrationError) as refused:
            await SealKeys(database, keyring).open(Sealed(key_id=key_id, sealed="AAAA"), INSTANCE)
        assert (refused.value.code, refused.value.path) == (ErrorCode.VALIDATION_ERROR, "sealed.keyId")


async def test_a_seal_for_another_instance_is_refused(database: Database, keyring: Keyring) -> None:
    keys = SealKeys(database, keyring)
    await keys.ensure()
    sealed = seal(await active(database), INSTANCE, b"secret")
    with pytest.raises(IntegrationError) as refused:
        await keys.open(sealed, INSTANCE[:-1] + "2")
    assert (refused.value.code, refused.value.path) == (ErrorCode.VALIDATION_ERROR, "sealed")


async def test_a_swapped_private_key_does_not_open(database: Database, keyring: Keyring) -> None:
    keys = SealKeys(database, keyring)
    await keys.ensure()
    key = await active(database)
    await database.one(
        """INSERT INTO vault.seal_keys
           SELECT 'copy-of-' || id, public_key, envelope_version, suite, key_id, key_version, wrapped_key, commitment,
                  nonce, ciphertext, now(), false
             FROM vault.seal_keys WHERE id = %(id)s ON CONFLICT DO NOTHING""",
        {"id": key.key_id},
    )
    copied = key.model_copy(update={"key_id": f"copy-of-{key.key_id}"})
    with pytest.raises(IntegrationError) as refused:
        await keys.open(seal(copied, INSTANCE, b"secret"), INSTANCE)
    assert refused.value.code == ErrorCode.INTEGRITY_ERROR


@pytest.fixture
def clients(database: Database, keyring: Keyring) -> OAuthClients:
    return OAuthClients(database, keyring)


CLIENT = OAuthClientRecord(client_id="planted-id", client_secret="planted-s", private_key="planted-k", key_id="k1")


def client(id_: str) -> OAuthClientRecord:
    return OAuthClientRecord(client_id=id_)


async def instance_of(database: Database, name: str) -> str:
    definition = await Definitions(database).apply(parse(DefinitionFile, definition_file(name)), publish=True)
    id_ = str(uuid.uuid4())
    await Instances(database).add(ConnectInstanceInput(instance_id=id_, definition=name, name=f"i {id_}"), definition)
    return id_


async def test_an_oauth_client_is_kept_by_scope_and_definition(clients: OAuthClients, name: str) -> None:
    await clients.store(scope="s", definition=name, client=CLIENT)
    assert await clients.load(scope="s", definition=name) == CLIENT
    assert await clients.load(scope="global", definition=name) is None
    assert await clients.load(scope="s", definition=f"{name}x") is None
    await clients.store(scope="s", definition=name, client=client("new"))
    assert await clients.load(scope="s", definition=name) == client("new")


async def test_the_nearest_client_is_used(clients: OAuthClients, database: Database, name: str) -> None:
    instance, other = await instance_of(database, name), str(uuid.uuid4())
    assert await clients.load(scope="s", definition=name, instance_id=instance) is None
    await clients.store(scope="global", definition=name, client=client("global"))
    assert await clients.load(scope="s", definition=name, instance_id=instance) == client("global")
    await clients.store(scope="s", definition=name, client=client("scope"))
    assert await clients.load(scope="s", definition=name, instance_id=instance) == client("scope")
    await clients.store(scope="s", definition=name, client=client("own"), instance_id=instance)
    await clients.store(scope="s", definition=name, client=client("own again"), instance_id=instance)
    assert await clients.load(scope="s", definition=name, instance_id=instance) == client("own again")
    for scope, asked, found in (("s", None, "scope"), ("s", other, "scope"), ("global", instance, "global")):
        assert await clients.load(scope=scope, definition=name, instance_id=asked) == client(found)
    await clients.erase(instance)
    assert await clients.load(scope="s", definition=name, instance_id=instance) == client("scope")


async def test_of_five_who_store_a_client_at_once_one_row_is_left(
    clients: OAuthClients, database: Database, name: str
) -> None:
    await asyncio.gather(*(clients.store(scope="s", definition=name, client=client(f"c{n}")) for n in range(5)))
    rows = await database.all("SELECT 1 FROM vault.oauth_clients WHERE definition_name = %(n)s", {"n": name})
    assert len(rows) == 1


async def test_an_instances_own_client_goes_with_it(clients: OAuthClients, database: Database, name: str) -> None:
    instance = await instance_of(database, name)
    await clients.store(scope="global", definition=name, client=CLIENT, instance_id=instance)
    await Instances(database).delete(instance)
    assert await clients.load(scope="global", definition=name, instance_id=instance) is None
    with pytest.raises(IntegrationError) as refused:
        await clients.store(scope="global", definition=name, client=CLIENT, instance_id=instance)
    assert refused.value.code == ErrorCode.INSTANCE_NOT_FOUND


async def test_an_oauth_clients_row_holds_only_ciphertext(clients: OAuthClients, database: Database, name: str) -> None:
    await clients.store(scope="global", definition=name, client=CLIENT)
    row = await database.one(
        "SELECT c::text AS text, ciphertext FROM vault.oauth_clients c WHERE definition_name = %(n)s", {"n": name}
    )
    assert row is not None
    assert b"planted".hex() not in row["text"]
    assert "planted" not in row["text"]
    assert b"planted" not in row["ciphertext"]


@pytest.mark.parametrize("move", ["definition_name", "scope", "instance_id"])
async def test_a_client_moved_to_another_owner_does_not_open(
    clients: OAuthClients, database: Database, name: str, move: str
) -> None:
    instance = await instance_of(database, name)
    await clients.store(scope="global", definition=name, client=CLIENT)
    to = {"definition_name": f"{name}-other", "scope": "s", "instance_id": instance}[move]
    await database.one(
        f"UPDATE vault.oauth_clients SET {move} = %(to)s WHERE definition_name = %(n)s", {"n": name, "to": to}
    )
    with pytest.raises(IntegrationError) as refused:
        await clients.load(
            scope="s" if move == "scope" else "global",
            definition=to if move == "definition_name" else name,
            instance_id=instance,
        )
    assert refused.value.code == ErrorCode.INTEGRITY_ERROR
